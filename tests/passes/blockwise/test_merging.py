import ml_dtypes
import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.blockwise.merging import runtime_name, unmerged
from onnxpress.rewriter.errors import ModelError


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs)


def blocked(source, out, block):
    return node("DequantizeLinear", [source, "s"], [out], axis=0, block_size=block)


def constants(block, size=64):
    return {
        "w": np.ones((size, 64), ml_dtypes.int4),
        "s": np.ones((size // block, 64), np.float32),
    }


def test_tells_products_that_run_on_codes_from_those_that_do_not(build):
    good = build([blocked("w", "d", 32), node("MatMul", ["x", "d"], ["y"])], constants(32), x=("n", 64), opset=21)
    assert unmerged(good, ["d"], Workbench()) == set()
    odd = build([blocked("w", "d", 8), node("MatMul", ["x", "d"], ["y"])], constants(8), x=("n", 64), opset=21)
    assert unmerged(odd, ["d"], Workbench(threads=1)) == {"d"}
    assert unmerged(odd, ["other"], Workbench(providers=("cpu",))) == set()


def test_looks_into_branches(build):
    then = helper.make_graph(
        [blocked("w", "d", 8), node("MatMul", ["x", "d"], ["a"])],
        "then",
        [],
        [helper.make_tensor_value_info("a", 1, None)],
    )
    other = helper.make_graph(
        [node("Identity", ["x"], ["b"])], "other", [], [helper.make_tensor_value_info("b", 1, None)]
    )
    nodes = [
        node("ReduceMax", ["x"], ["m"], keepdims=0),
        node("Cast", ["m"], ["c"], to=9),
        node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    model = build(nodes, constants(8), x=("n", 64), opset=21)
    assert len(unmerged(model, ["d"], Workbench())) == 1


def test_a_model_that_does_not_load_is_one_line(build):
    model = build([node("MatMul", ["x", "missing"], ["y"])], {}, x=("n", 64))
    with pytest.raises(ModelError, match="does not load"):
        unmerged(model, ["d"], Workbench())


def test_names_the_runtime():
    assert runtime_name().startswith("ONNX Runtime 1.")
