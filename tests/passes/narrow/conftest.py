"""A small model of two layers."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.rewriter.model import Model


@pytest.fixture
def linear(build, random) -> Model:
    """Two layers; the first has more than 192 bytes of weights, and its bias fewer."""
    weights = {
        "w": random.standard_normal((32, 48), np.float32),
        "b": random.standard_normal(48, np.float32),
        "v": random.standard_normal((48, 32), np.float32),
    }
    steps = [("MatMul", ["x", "w"], "p"), ("Add", ["p", "b"], "q"), ("Relu", ["q"], "r"), ("MatMul", ["r", "v"], "y")]
    nodes = [helper.make_node(op, inputs, [output], name=f"{op}_{output}") for op, inputs, output in steps]
    return build(nodes, weights, x=("n", 32))
