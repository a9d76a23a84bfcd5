"""Every site that gets no structure is told why."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.selection import RefusalError
from onnxpress.passes.structure.circulant import StructureCirculant
from onnxpress.passes.structure.fastfood import StructureFastfood

MATMUL = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")


def why(model, structured=None, bench=None) -> str:
    result = (structured or StructureCirculant(block=4))(model, bench)
    (skip,) = result.report.skips
    assert not result.report.changes
    return skip.reason


def weight(*shape: int) -> dict[str, np.ndarray]:
    return {"w": np.ones(shape, np.float32)}


def test_what_saves_nothing(build):
    model = build([MATMUL], weight(16, 16), x=(1, 16))
    assert why(model) == "circulant blocks of 4 would save nothing: 256 bytes and about 1024 for nodes ≥ 1024"


def test_other_operators(build):
    conv = helper.make_node("Conv", ["x", "w"], ["y"], name="layer")
    reason = why(build([conv], weight(32, 32, 3, 3), x=(1, 32, 8, 8)))
    assert reason == "only a pointwise Conv of one group is a matrix"
    gather = helper.make_node("Gather", ["w", "x"], ["y"], name="layer")
    reason = why(build([gather], weight(64, 64), x=(1,), dtype=7, gives=1))
    assert reason == "is a weight of Gather; only Gemm, MatMul and pointwise Conv get a structure"


def test_stacks_of_matrices(build):
    assert why(build([MATMUL], weight(4, 32, 32), x=(4, 1, 32))) == "its weight is a stack of matrices"


def test_weights_that_others_read(build):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], name="layer"), helper.make_node("Add", ["h", "w"], ["y"])]
    assert "reads its weight, too" in why(build(nodes, weight(64, 64), x=(64, 64)))


def test_old_models(build):
    model = build([MATMUL], weight(64, 64), x=(1, 64), opset=9)
    assert why(model) == "opset 9 lacks operators that compute it: raise it to 11"


def test_weights_that_are_not_finite(build):
    model = build([MATMUL], {"w": np.full((64, 64), np.nan, np.float32)}, x=(1, 64))
    assert why(model) == "holds values that are not finite"


def test_too_many_inputs_to_permute():
    with pytest.raises(RefusalError, match="at most 32768 are permuted"):
        StructureFastfood().structure((2, 40000))


def test_for_speed_layers_that_are_written_in_no_other_way(build):
    fast = StructureCirculant(block=4, goal="latency")
    conv = helper.make_node("Conv", ["x", "w"], ["y"], name="layer")
    reason = why(build([conv], weight(64, 64, 1, 1), x=(1, 64, 8, 8)), fast)
    assert reason == "is Conv's; only X·W of Gemm and MatMul is written otherwise, goal 'size' takes it"
    gemm = helper.make_node("Gemm", ["x", "w"], ["y"], name="layer", alpha=0.5)
    reason = why(build([gemm], weight(64, 64), x=(1, 64)), fast)
    assert reason == "its Gemm transposes its input or scales; goal 'size' takes it"
    twice = [helper.make_node("MatMul", ["x", "w"], ["h"], name="layer"), helper.make_node("MatMul", ["h", "w"], ["y"])]
    assert why(build(twice, weight(64, 64), x=(1, 64)), fast) == "2 layers share its weight; goal 'size' takes it"


def test_for_speed_blocks_that_do_not_divide(build):
    model = build([MATMUL], weight(66, 64), x=(1, 66))
    reason = why(model, StructureCirculant(block=4, goal="latency"))
    assert reason == "blocks of 4 do not divide its 64 outputs and 66 inputs"


def test_for_speed_inputs_of_unknown_shape(build):
    nodes = [
        helper.make_node("NonZero", ["x"], ["i"]),
        helper.make_node("Cast", ["i"], ["c"], to=1),
        helper.make_node("MatMul", ["c", "w"], ["y"], name="layer"),
    ]
    reason = why(build(nodes, weight(64, 64), x=(1, 64)), StructureCirculant(block=4, goal="latency"))
    assert reason == "nobody knows the shape of its input: give samples with --data"


def test_for_speed_what_is_measured_slower(build, monkeypatch):
    measured = np.array([0.5, 0.25]), np.array([0.4, 0.2])
    monkeypatch.setattr("onnxpress.passes.structure.products.speedups", lambda *given: measured)
    reason = why(build([MATMUL], weight(64, 64), x=(1, 64)), StructureCirculant(block=4, goal="latency"))
    assert reason == (
        "is not faster: products by frequency 0.50, convolution over the padded inputs 0.25 times as fast as the "
        "dense layer on [1, 64]"
    )
