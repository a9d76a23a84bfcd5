"""A model of which units are chosen."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.rewriter.model import Model


@pytest.fixture
def model(build) -> Model:
    """Two groups of 8 and 4 neurons between three layers; the first has most of the weights."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="first"),
        helper.make_node("MatMul", ["p", "b"], ["q"], name="second"),
        helper.make_node("MatMul", ["q", "c"], ["y"], name="last"),
    ]
    shapes = {"a": (10, 8), "b": (8, 4), "c": (4, 2)}
    return build(nodes, {name: np.ones(shape, np.float32) for name, shape in shapes.items()}, x=("n", 10))
