"""What tests of rules draw and look up."""

from collections.abc import Callable

import numpy as np
import pytest

from onnxpress.rewriter.couplings import Group, find_couplings
from onnxpress.rewriter.model import Model


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def draw(rng) -> Callable[..., np.ndarray]:
    """Weights of unit scale."""

    def make(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return make


@pytest.fixture
def microsoft(parse) -> Callable[..., Model]:
    """A model that may use com.microsoft."""

    def make(text: str, **weights: np.ndarray) -> Model:
        model = parse(text, **weights)
        model.import_domain("com.microsoft", 1)
        return model

    return make


@pytest.fixture
def groups() -> Callable[[Model], dict[str, Group]]:
    """Groups by name."""
    return lambda model: {group.name: group for group in find_couplings(model).groups}
