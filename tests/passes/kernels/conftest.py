"""Equations of layers whose inputs go together."""

from collections.abc import Callable

import numpy as np
import pytest

from onnxpress.passes.kernels.normal import Normal


@pytest.fixture
def correlated(random) -> Callable[..., tuple[np.ndarray, Normal]]:
    """Draws a weight [groups·rows, k], and the equations for what it gives of inputs with four causes."""

    def draw(groups: int = 1, rows: int = 6, k: int = 24, count: int = 400) -> tuple[np.ndarray, Normal]:
        inputs = random.standard_normal((groups, count, 4)) @ random.standard_normal((groups, 4, k))
        inputs += 0.2 * random.standard_normal((groups, count, k))
        weight = random.standard_normal((groups * rows, k))
        outputs = inputs @ weight.reshape(groups, rows, k).transpose(0, 2, 1)
        return weight, Normal.of(inputs, outputs)

    return draw
