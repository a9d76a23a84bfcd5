"""Weights that decode themselves: the same results from smaller files."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxpress import models
from onnxpress.passes.encode import encode as module
from onnxpress.passes.encode.decode import decode
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.encode.folding import undecoded_nodes
from onnxpress.passes.pipeline import Pipeline
from onnxpress.rewriter.invariants import Interface, InvariantError, check
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites

LENET = Path(models.__file__).with_name("lenet5.onnx")


def operators_left(path, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimised.onnx"), 4
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]


def reasons(report):
    return {skip.site: skip.reason for skip in report.skips}


@pytest.mark.parametrize("opset", [11, 13, 17, 21, 24])
def test_onnxruntime_runs_the_dense_graph_with_the_same_result(tmp_path, make_model, make_weight, opset):
    weights = {
        "codes": make_weight((64, 64), distinct=16),
        "gaps": make_weight((64, 64), density=0.1, distinct=9, seed=2),
        "ones": np.ones(64, np.float32),
    }
    model = make_model(weights, opset=opset, ir_version=6 if opset < 21 else 10)
    model.save(tmp_path / "dense.onnx")
    result = Encode()(model)
    size = result.model.save(tmp_path / "small.onnx")
    assert {change.site for change in result.report.changes} == {"node0", "node1", "ones"}
    assert size < (tmp_path / "dense.onnx").stat().st_size / 5
    left = operators_left(tmp_path / "small.onnx", tmp_path)
    assert left == operators_left(tmp_path / "dense.onnx", tmp_path) == ["MatMul", "Gemm"]
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    one, other = (
        onnxruntime.InferenceSession(str(tmp_path / name), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for name in ("dense.onnx", "small.onnx")
    )
    np.testing.assert_array_equal(one, other)  # the same weights in the same kernels


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_encode_then_decode_gives_the_model_back(tmp_path, make_model, make_weight, constants_of, dtype):
    weights = {f"w{i}": make_weight((50, 50), density=0.2 * i, distinct=i * i, dtype=dtype) for i in range(1, 5)}
    weights["bias"] = make_weight((50,), density=0.1, dtype=dtype)
    model = make_model(weights)
    encoded = Encode(least_saving=0)(model)
    assert len(encoded.report.changes) >= 4
    encoded.model.save(tmp_path / "small.onnx")
    assert constants_of(decode(Model.load(tmp_path / "small.onnx")).model) == constants_of(model)


def test_huffman_codes_are_folded_and_decode_to_the_same_weights(tmp_path, make_model, make_weight, constants_of):
    weights = {f"w{i}": make_weight((200, 200), density=0.1 + 0.2 * i, distinct=17 + 9 * i, seed=i) for i in range(4)}
    model = make_model(weights)
    result = Encode()(model)
    assert all("Huffman" in change.action for change in result.report.changes)
    assert len(result.report.changes) == 4
    result.model.save(tmp_path / "small.onnx")
    assert undecoded_nodes(tmp_path / "small.onnx") == []
    assert constants_of(decode(Model.load(tmp_path / "small.onnx")).model) == constants_of(model)


def test_the_callers_model_stays_as_it_was(make_model, make_weight):
    model = make_model({"w": make_weight((64, 64), distinct=4)})
    before = model.to_proto().SerializeToString(deterministic=True)
    Encode()(model)
    assert model.to_proto().SerializeToString(deterministic=True) == before


def test_encoding_again_changes_nothing(make_model, make_weight):
    once = Encode()(make_model({"w": make_weight((64, 64), distinct=4), "v": make_weight((64, 64), density=0.1)}))
    twice = Encode()(once.model)
    assert twice.report.changes == []
    assert reasons(twice.report)["w"] == reasons(twice.report)["v"] == "is encoded already"
    assert twice.model.to_proto() == once.model.to_proto()


def test_holds_between_passes_of_a_pipeline(make_model, make_weight):
    result = Pipeline([Encode(), Encode()])(make_model({"w": make_weight((64, 64), distinct=4)}))
    assert [len(report.changes) for report in result.reports[1:]] == [1, 0]
    check(result.model, Interface.of(result.model))


def test_predicts_the_size_of_the_file(tmp_path, make_model, make_weight):
    weights = {f"w{i}": make_weight((96, 96), density=0.1 * i, distinct=40 - i, seed=i) for i in range(1, 11)}
    model = make_model(weights)
    before = model.save(tmp_path / "dense.onnx")
    result = Encode()(model)
    saved = before - result.model.save(tmp_path / "small.onnx")
    predicted = sum(change.bytes_before - change.bytes_after for change in result.report.changes)
    shared = sum(len(f.SerializeToString()) for f in result.model.functions)
    # what the weights share besides functions takes a few hundred bytes, names are of unknown length
    assert saved == pytest.approx(predicted - shared, rel=0.005)


def test_weights_of_branches_are_decoded_in_the_main_graph(tmp_path, conditional_model, make_weight, constants_of):
    proto = conditional_model(make_weight((64, 64), distinct=4), make_weight((64, 64), distinct=16, seed=1))
    result = Encode()(Model.from_proto(proto))
    assert len(result.report.changes) == 2
    result.model.save(tmp_path / "small.onnx")
    assert undecoded_nodes(tmp_path / "small.onnx") == []
    onnx.save(proto, tmp_path / "dense.onnx")
    sessions = [onnxruntime.InferenceSession(str(tmp_path / f"{name}.onnx")) for name in ("dense", "small")]
    x = make_weight((2, 64), seed=2)
    for condition in (True, False):
        one, other = (s.run(None, {"x": x, "c": np.array(condition)})[0] for s in sessions)
        np.testing.assert_array_equal(one, other)


def test_int8_weight_before_dequantize_still_becomes_qlinearconv(tmp_path):
    random = np.random.default_rng(0)
    pool = random.integers(-127, 128, 15).astype(np.int8)
    initializers = {
        "weight": random.choice(pool, (32, 32, 3, 3)),
        "scale": np.full(32, 0.01, np.float32),
        "zero": np.zeros(32, np.int8),
        "xs": np.array(0.02, np.float32),
        "xz": np.array(3, np.uint8),
    }
    node = helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        node("DequantizeLinear", ["weight", "scale", "zero"], ["wd"], axis=0),
        node("Conv", ["xd", "wd"], ["c"], pads=[1, 1, 1, 1]),
        node("QuantizeLinear", ["c", "xs", "xz"], ["cq"]),
        node("DequantizeLinear", ["cq", "xs", "xz"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 32, 8, 8]) for n in "xy"]
    tensors = [numpy_helper.from_array(v, k) for k, v in initializers.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    result = Encode()(Model.from_proto(proto))
    assert next(c.action for c in result.report.changes) == "codes of 4 bits"
    result.model.save(tmp_path / "small.onnx")
    onnx.save(proto, tmp_path / "dense.onnx")
    left = operators_left(tmp_path / "small.onnx", tmp_path)
    assert left == operators_left(tmp_path / "dense.onnx", tmp_path)
    assert "QLinearConv" in left
    x = random.standard_normal((1, 32, 8, 8)).astype(np.float32)
    dense = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]
    small = onnxruntime.InferenceSession(str(tmp_path / "small.onnx")).run(None, {"x": x})[0]
    np.testing.assert_array_equal(dense, small)


def test_two_tensors_of_one_name_in_two_branches_do_not_clash(tmp_path, make_weight):
    value = helper.make_tensor_value_info
    branches = [
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], [f"out{i}"])],
            f"branch{i}",
            [],
            [value(f"out{i}", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(make_weight((64, 64), distinct=4, seed=i), "w")],
        )
        for i in range(2)
    ]
    node = helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])
    inputs = [value("x", TensorProto.FLOAT, ["n", 64]), value("c", TensorProto.BOOL, [])]
    graph = helper.make_graph([node], "graph", inputs, [value("y", TensorProto.FLOAT, None)])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    result = Encode()(Model.from_proto(proto))
    assert len(result.report.changes) == 2
    small = onnxruntime.InferenceSession(result.model.to_proto().SerializeToString())
    dense = onnxruntime.InferenceSession(proto.SerializeToString())
    x = make_weight((2, 64), seed=2)
    for condition in (True, False):
        feed = {"x": x, "c": np.array(condition)}
        np.testing.assert_array_equal(dense.run(None, feed)[0], small.run(None, feed)[0])


def test_a_wrong_decoding_is_noticed(make_model, make_weight, monkeypatch):
    honest = module.take_apart
    monkeypatch.setattr(module, "take_apart", lambda weight, plan: honest(np.negative(weight), plan))
    with pytest.raises(InvariantError, match="'w' decodes to something else"):
        Encode()(make_model({"w": make_weight((64, 64), distinct=4)}))


def pruned_and_shared(sparsity):
    """LeNet-5 of which few of the weights of large layers are left, with 15 values in each layer."""
    model = Model.load(LENET)
    for site in find_sites(model):
        weight = site.array()
        kept = np.abs(weight) > np.quantile(np.abs(weight), sparsity if weight.size > 1000 else 0.4)
        centres = np.quantile(weight[kept], np.linspace(0, 1, 15))
        shared = centres[np.searchsorted((centres[1:] + centres[:-1]) / 2, weight)]
        model.replace_weight(site.weight, np.where(kept, shared, 0).astype(np.float32))
    return model


def test_lenet_pruned_and_shared_is_twenty_times_smaller_in_one_file(tmp_path):
    model = pruned_and_shared(0.9)
    result = Encode()(model)
    assert result.model.save(tmp_path / "small.onnx") < LENET.stat().st_size / 20
    assert undecoded_nodes(tmp_path / "small.onnx") == []


def test_takes_only_the_layouts_it_may(make_model, make_weight):
    model = make_model({"w": make_weight((128, 128), density=0.6, distinct=16)})
    actions = [
        Encode(layouts=names, huffman=False)(model).report.changes
        for names in (("plain", "mask"), ("plain",), ("gaps8",))
    ]
    assert [each.action for changes in actions for each in changes] == [
        "bit mask, codes of 4 bits",
        "codes of 5 bits",
        "gaps of 8 bits, codes of 5 bits",
    ]


def test_a_sparse_initializer_is_measured_as_it_is_stored(make_model, make_weight):
    proto = make_model({"w": make_weight((64, 64)), "v": make_weight((64, 64))}).to_proto()
    weight = make_weight((64, 64), density=0.02, seed=3)
    places = np.flatnonzero(weight)
    values = numpy_helper.from_array(weight.reshape(-1)[places], "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(places, "places"), weight.shape)
    proto.graph.initializer.remove(next(t for t in proto.graph.initializer if t.name == "w"))
    proto.graph.sparse_initializer.append(sparse)
    result = Encode(layouts=("gaps8",))(Model.from_proto(proto))
    (change,) = result.report.changes
    assert change.bytes_after < change.bytes_before == sparse.ByteSize()
    back = decode(result.model).model
    np.testing.assert_array_equal(back.array(next(c for c in back.constants() if c.name == "w")), weight)


def test_lenet_pruned_and_shared_needs_huffman_codes_for_thirty_five_times(tmp_path):
    model = pruned_and_shared(0.92)
    assert Encode()(model).model.save(tmp_path / "small.onnx") < LENET.stat().st_size / 35
    assert undecoded_nodes(tmp_path / "small.onnx") == []
    assert Encode(huffman=False)(model).model.save(tmp_path / "large.onnx") > LENET.stat().st_size / 35
