import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.quantize.proof import prove
from onnxpress.rewriter.errors import ModelError


def test_refuses_a_model_that_became_infinite(build, bench):
    before = build([helper.make_node("Relu", ["x"], ["y"])], {}, x=("n", 2))
    after = build([helper.make_node("Reciprocal", ["x"], ["y"])], {}, x=("n", 2))
    with pytest.raises(ModelError, match="output 'y' became NaN or infinite"):
        prove(after, before, bench(before, np.zeros((1, 2), np.float32)), name="pass")


def test_takes_what_was_infinite_before(build, bench):
    model = build([helper.make_node("Reciprocal", ["x"], ["y"])], {}, x=("n", 2))
    prove(model, model, bench(model, np.zeros((1, 2), np.float32)), name="pass")


def test_refuses_a_model_that_does_not_load(build):
    broken = build([helper.make_node("Relu", ["x", "x"], ["y"])], {}, x=("n", 2))
    with pytest.raises(ModelError, match="does not load"):
        prove(broken, broken, Workbench(), name="pass")
