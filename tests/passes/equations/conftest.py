"""A model of two layers, and samples for it."""

from collections.abc import Callable

import numpy as np
import pytest
from onnx import helper

from onnxpress.rewriter.model import Model


@pytest.fixture
def array(random) -> Callable[..., np.ndarray]:
    """Draws weights."""
    return lambda *shape: random.standard_normal(shape).astype(np.float32)


@pytest.fixture
def batches() -> list[np.ndarray]:
    """27 rows, in batches of several sizes."""
    random = np.random.default_rng(1)
    return [random.standard_normal((rows, 6)).astype(np.float32) for rows in (5, 4, 6, 5, 7)]


@pytest.fixture
def chain(build, array) -> Model:
    """x @ w + c -> Relu -> h; h @ v -> y."""
    nodes = [
        helper.make_node(op, inputs, [output], name=f"make_{output}")
        for op, inputs, output in (
            ("MatMul", ["x", "w"], "p"),
            ("Add", ["p", "c"], "q"),
            ("Relu", ["q"], "h"),
            ("MatMul", ["h", "v"], "y"),
        )
    ]
    return build(nodes, {"w": array(6, 5), "c": array(5), "v": array(5, 3)}, x=["n", 6])
