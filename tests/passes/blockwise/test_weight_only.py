"""Weights in blocks: what is written computes what the codes mean, in ONNX Runtime."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxpress.passes.blockwise import weight_only
from onnxpress.passes.blockwise.weights import QuantizeWeights
from onnxpress.passes.encode.decode import Decode
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.normalise import Normalise
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs)


def relative(one, other):
    return np.linalg.norm(one - other) / np.linalg.norm(other)


def weights_of(model, run, size):
    """The weight that a model of one product multiplies by, decoded by ONNX Runtime."""
    return run(model, np.eye(size, dtype=np.float32))[0]


@pytest.fixture
def product(build, random):
    """y = x·w, w [k, out]."""

    def make(k=128, out=48, opset=17, **attrs):
        weight = random.standard_normal((k, out)).astype(np.float32)
        stored = weight.T.copy() if attrs.get("transB") else weight
        op = "Gemm" if attrs else "MatMul"
        return build([node(op, ["x", "w"], ["y"], **attrs)], {"w": stored}, x=("n", k), opset=opset), weight

    return make


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("k", [128, 100, 99, 20])
def test_codes_that_run_and_codes_decoded_at_load_are_the_same(product, run, fused, random, bits, symmetric, k):
    model, weight = product(k=k, out=36 if bits == 2 else 33)
    options = {"bits": bits, "symmetric": symmetric, "block": 32}
    loaded = QuantizeWeights(form="load", **options)(model)
    running = QuantizeWeights(form="run", **options)(model)
    decoded = weights_of(loaded.model, run, k)
    assert loaded.report.changes[0].error == pytest.approx(relative(decoded, weight), rel=1e-3)
    assert relative(decoded, weight) < {8: 0.01, 4: 0.15, 2: 0.7}[bits]
    x = random.standard_normal((3, k)).astype(np.float32)
    np.testing.assert_allclose(run(loaded.model, x)[0], x @ decoded, rtol=1e-4, atol=1e-4)  # sums in another order
    assert relative(run(running.model, x)[0], x @ decoded) < 0.02  # activations are int8 in blocks there
    assert fused(loaded.model) == fused(model)
    merged = fused(running.model)["MatMulNBits"]  # older versions of ONNX Runtime merge 4 bits alone
    assert merged == 1 or bits != 4
    assert len(running.report.warnings) == 1 - merged


@pytest.mark.parametrize("out", [33, 34, 7])
def test_two_bits_run_only_where_outputs_fill_bytes(product, run, random, out):
    model, _ = product(out=out)
    result = QuantizeWeights(bits=2, form="run", method="hqq")(model)
    assert "2-bit codes wrongly" in result.report.changes[-1].action
    x = random.standard_normal((3, 128)).astype(np.float32)
    assert relative(run(result.model, x)[0], run(model, x)[0]) < 0.5


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
def test_raises_the_opset_that_running_on_codes_needs(product, run, random, opset):
    model, _ = product(opset=opset)
    result = QuantizeWeights(bits=4)(model)
    assert result.model.opset == 21
    assert result.model.header.ir_version >= 10
    raised = [each.action for each in result.report.changes if "became" in each.action]
    assert len(raised) == (opset < 21)
    x = random.standard_normal((2, 128)).astype(np.float32)
    assert relative(run(result.model, x)[0], run(model, x)[0]) < 0.15


def test_two_bits_need_opset_25(product):
    result = QuantizeWeights(bits=2)(product()[0])
    assert (result.model.opset, result.model.header.ir_version) == (25, 13)
    onnx.checker.check_model(result.model.to_proto())


def test_decoding_at_load_leaves_the_opset(product):
    assert QuantizeWeights(bits=4, form="load")(product(opset=12)[0]).model.opset == 12
    assert QuantizeWeights(bits=4, form="load")(product(opset=9)[0]).model.opset == 11


@pytest.mark.parametrize(
    "attrs",
    [
        {"transB": 1},
        {"transB": 0},
        {"transB": 1, "alpha": 2.0},
        {"transB": 1, "alpha": 0.5, "beta": 3.0},
        {"transB": 0, "beta": 3.0},
    ],
)
@pytest.mark.parametrize("shape", [None, (48,), (1, 48), (1,), (5, 1)])
def test_gemm_runs_on_codes(build, run, fused, random, attrs, shape):
    weight = random.standard_normal((48, 128) if attrs["transB"] else (128, 48)).astype(np.float32)
    constants = {"w": weight} | ({} if shape is None else {"b": random.standard_normal(shape).astype(np.float32)})
    model = build([node("Gemm", ["x", *constants], ["y"], **attrs)], constants, x=(5, 128))
    result = QuantizeWeights(bits=4)(model)
    x = random.standard_normal((5, 128)).astype(np.float32)
    assert relative(run(result.model, x)[0], run(model, x)[0]) < 0.15
    assert "DequantizeLinear" not in fused(result.model)


def test_what_is_not_merged_is_decoded_at_load_and_said(product, run, fused, random, monkeypatch):
    monkeypatch.setattr(weight_only, "unmerged", lambda model, outputs, bench: set(outputs))
    model, _ = product(transB=1)
    result = QuantizeWeights(bits=4)(model)
    assert "does not merge it" in result.report.changes[-1].action
    assert fused(result.model) == fused(model)
    x = random.standard_normal((2, 128)).astype(np.float32)
    assert relative(run(result.model, x)[0], run(model, x)[0]) < 0.15
    warned = QuantizeWeights(bits=4, form="run")(model)
    assert "merges 0 of 1 products with their codes; Gemm_y decode" in warned.report.warnings[0]
    assert "in every run: set form load" in warned.report.warnings[0]


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize(("width", "symmetric"), [(64, False), (64, True), (40, False), (33, False)])
@pytest.mark.parametrize("opset", [11, 17])
def test_tables_stay_codes_and_rows_are_looked_up(build, run, random, bits, width, symmetric, opset):
    table = random.standard_normal((50, width)).astype(np.float32)
    nodes = [node("Gather", ["t", "x"], ["y"])]
    model = build(nodes, {"t": table}, x=None, dtype=TensorProto.INT64, gives=TensorProto.FLOAT, opset=opset)
    result = QuantizeWeights(bits=bits, block=32, symmetric=symmetric)(model)
    change = result.report.changes[-1]
    picked = np.array([[3, 49, 0], [7, 7, 1]])
    every = run(result.model, np.arange(50))[0]
    np.testing.assert_array_equal(run(result.model, picked)[0], every[picked])
    np.testing.assert_array_equal(run(result.model, np.array(4))[0], every[4])
    assert relative(every, table) == pytest.approx(change.error, rel=1e-3)
    assert change.bytes_after < 0.45 * change.bytes_before
    assert find_sites(result.model) == []  # scales are no weights to other passes
    assert ("looked up" in change.action) == (width % 4 == 0 or bits == 8)


def test_tied_tables_are_stored_once(build, run, random):
    table = random.standard_normal((60, 64)).astype(np.float32)
    nodes = [node("Gather", ["t", "x"], ["e"]), node("Gemm", ["e", "t"], ["y"], transB=1)]
    model = build(nodes, {"t": table}, x=("n",), dtype=TensorProto.INT64, gives=TensorProto.FLOAT)
    result = QuantizeWeights(bits=4)(model)
    assert len(result.report.changes) == 1
    # besides, what all tables share: the codes in every byte, and a few small numbers
    assert result.model.weight_bytes() <= result.report.changes[0].bytes_after + 1024
    x = np.array([1, 5, 59])
    assert relative(run(result.model, x)[0], run(model, x)[0]) < 0.15


def test_a_weight_that_several_layers_read_is_stored_once(build, run, fused, random):
    weight = random.standard_normal((64, 64)).astype(np.float32)
    model = build([node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["h", "w"], ["y"])], {"w": weight}, x=("n", 64))
    result = QuantizeWeights(bits=4)(model)
    assert result.model.weight_bytes() < 0.25 * weight.nbytes
    assert fused(result.model) == fused(model)
    x = random.standard_normal((3, 64)).astype(np.float32)
    assert relative(run(result.model, x)[0], run(model, x)[0]) < 0.25


@pytest.mark.parametrize("form", ["run", "load"])
def test_encoding_after_it_changes_no_result(product, run, random, form):
    model, _ = product(k=96, out=64)
    once = QuantizeWeights(bits=4, form=form)(Normalise()(model).model).model
    encoded = Encode()(once).model
    assert encoded.weight_bytes() <= once.weight_bytes()
    x = random.standard_normal((2, 96)).astype(np.float32)
    np.testing.assert_array_equal(run(encoded, x)[0], run(once, x)[0])
    if form == "load":
        dense = Decode()(encoded).model
        np.testing.assert_allclose(run(dense, x)[0], run(once, x)[0], rtol=1e-5, atol=1e-5)


def test_large_weights_are_computed_when_they_are_read(product, run, random):
    model, _ = product(k=1024, out=640)
    for options in ({"form": "run"}, {"form": "load"}, {"form": "run", "bits": 2, "method": "hqq"}):
        result = QuantizeWeights(**({"bits": 4} | options))(model)
        x = random.standard_normal((2, 1024)).astype(np.float32)
        assert relative(run(result.model, x)[0], run(model, x)[0]) < 0.5


@pytest.mark.parametrize("size", [1e-7, 1e7])
@pytest.mark.parametrize("form", ["run", "load"])
def test_scales_that_float16_does_not_hold_stay_float32(build, run, random, size, form):
    weight = (random.standard_normal((64, 48)) * size).astype(np.float32)
    model = build([node("MatMul", ["x", "w"], ["y"])], {"w": weight}, x=("n", 64))
    result = QuantizeWeights(bits=4, form=form)(model)
    assert result.report.changes[-1].bytes_after == 64 * 48 // 2 + 4 * 2 * 48 + 48
    x = random.standard_normal((3, 64)).astype(np.float32)
    assert relative(run(result.model, x)[0], run(model, x)[0]) < 0.15


@pytest.mark.parametrize("form", ["run", "load"])
def test_what_others_read_stays_and_is_not_stored_twice(build, random, form):
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Transpose", ["w"], ["t"]),
        node("MatMul", ["a", "t"], ["b"]),
        node("MatMul", ["b", "v"], ["y"]),
    ]
    weights = {name: random.standard_normal((64, 64)).astype(np.float32) for name in "wv"}
    model = build(nodes, weights, x=("n", 64), outputs=("y", "v"))
    report = QuantizeWeights(bits=4, form=form)(model).report
    assert {each.site: each.reason for each in report.skips} == {
        "MatMul_a": "Transpose 'Transpose_t' reads its weight, too, so it must stay as it is",
        "MatMul_y": "its weight is an output, too, so it must stay as it is",
    }
    assert all("int4" not in each.action for each in report.changes)


def test_skips_with_reasons(build, random):
    weights = {
        "h": random.standard_normal((64, 64)).astype(np.float16),
        "n": np.full((64, 64), np.nan, np.float32),
        "s": random.standard_normal((4, 4)).astype(np.float32),
    }
    nodes = [
        node("Cast", ["x"], ["xh"], to=TensorProto.FLOAT16),
        node("MatMul", ["xh", "h"], ["a"]),
        node("Cast", ["a"], ["b"], to=TensorProto.FLOAT),
        node("MatMul", ["b", "n"], ["c"]),
        node("Reshape", ["c", "four"], ["d"]),
        node("MatMul", ["d", "s"], ["y"]),
    ]
    model = build(nodes, weights | {"four": np.array([-1, 4])}, x=("n", 64))
    report = QuantizeWeights(bits=4)(model).report
    reasons = " ".join(each.reason for each in report.skips)
    assert "its weight is float16; only float32 is quantized" in reasons
    assert "holds NaN or infinities" in reasons
    assert "its 64 bytes would not get smaller" in reasons
    assert all("int4" not in each.action for each in report.changes)


def test_the_callers_model_stays_as_it_was(product):
    model, _ = product()
    before = model.to_proto().SerializeToString(deterministic=True)
    QuantizeWeights(bits=4)(model)
    assert model.to_proto().SerializeToString(deterministic=True) == before


def test_a_saved_file_is_small(product, tmp_path):
    model, _ = product(k=512, out=512)
    for bits, most in ((4, 5.2), (2, 3.2)):
        size = QuantizeWeights(bits=bits)(model).model.save(tmp_path / "small.onnx")
        assert size < 512 * 512 * most / 8 + 4096
    assert Model.load(tmp_path / "small.onnx").opset == 25
