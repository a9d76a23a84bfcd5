"""Sparse initializers: bit for bit, chosen only where they are smallest, read by ONNX Runtime and made dense again."""

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxpress.passes.encode import sparse as module
from onnxpress.passes.encode.costs import cost
from onnxpress.passes.encode.decode import decode
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.encode.plans import DECODED, Facts, Plan
from onnxpress.passes.encode.sparse import read_by_runtime, sparse_form
from onnxpress.passes.kernels.packing import survey
from onnxpress.rewriter.invariants import InvariantError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.opset import raise_opset
from onnxpress.rewriter.shapes import infer_shapes
from onnxpress.rewriter.weights import SparseForm, values_of

NAMES = ["float16", "bfloat16", "float32", "float64", "bool"]
NAMES += [f"{sign}int{width}" for sign in ("", "u") for width in (8, 16, 32, 64)]
DTYPES = {name: np.dtype(getattr(ml_dtypes, name, name)) for name in NAMES}


def few(shape, *, nonzeros, dtype="float32", seed=0, distinct=None):
    """A weight with so many elements that are not zero, at places drawn at random."""
    random, weight = np.random.default_rng(seed), np.zeros(shape, dtype)
    values = random.standard_normal(distinct or nonzeros).astype(dtype)
    places = random.choice(weight.size, nonzeros, replace=False)
    weight.reshape(-1)[places] = values if distinct is None else random.choice(values, nonzeros)
    return weight


def holding(array, opset=17):
    """A model that multiplies x by a constant of any dtype."""
    node, value = helper.make_node, helper.make_tensor_value_info
    nodes = [node("Cast", ["w"], ["f"], to=TensorProto.FLOAT), node("Mul", ["x", "f"], ["y"])]
    ends = value("x", TensorProto.FLOAT, [1]), value("y", TensorProto.FLOAT, array.shape or [1])
    graph = helper.make_graph(nodes, "g", [ends[0]], [ends[1]], [numpy_helper.from_array(array, "w")])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return Model.from_proto(proto)


def constant(model, name):
    return next(each for each in model.constants() if each.name == name)


def bits(array):
    return array.dtype, array.shape, array.tobytes()


def reasons(report):
    return {skip.site: skip.reason for skip in report.skips}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    dtype=st.sampled_from(list(DTYPES.values())),
    shape=st.sampled_from([(1,), (7,), (3, 5), (2, 3, 4, 5), (129, 131)]),
    density=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
def test_onnxruntime_reads_every_bit_back(make_model, dtype, shape, density, seed):
    random = np.random.default_rng(seed)
    raw = random.integers(0, 2 if dtype.name == "bool" else 256, (*shape, dtype.itemsize), np.uint8)
    raw[random.random(shape) >= density] = 0  # any bits: negative zeros, NaNs and their payloads among them
    array = raw.view(dtype).reshape(shape)
    weight = make_model({"w": np.ones((4, 4), np.float32)}).add_weight("v", sparse_form(array))
    assert bits(values_of(weight).load()) == bits(array)
    (read,) = read_by_runtime([weight], 1)
    assert bits(read) == bits(array)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_a_model_with_a_sparse_constant_of_any_dtype_is_valid_and_computes_the_same(tmp_path, dtype):
    array = np.zeros((60, 70), dtype)
    array[::20, ::30] = 1
    model = holding(array)
    result = Encode(layouts=("sparse",), measure=False)(model)
    assert [c.action for c in result.report.changes] == ["sparse initializer"]
    result.model.save(tmp_path / "small.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "small.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "small.onnx"))
    np.testing.assert_array_equal(session.run(None, {"x": np.ones(1, np.float32)})[0], array.astype(np.float32))
    back = decode(Model.load(tmp_path / "small.onnx")).model
    assert bits(back.array(constant(back, "w"))) == bits(array)


@pytest.mark.parametrize("shape", [(), (0,), (4, 0, 3)])
def test_scalars_and_empty_tensors_stay(shape):
    report = Encode(layouts=("sparse",), least_saving=0, measure=False)(holding(np.zeros(shape, np.float32))).report
    assert report.changes == []


def test_floats_of_8_bits_are_refused():
    report = Encode(measure=False)(holding(np.zeros((60, 70), ml_dtypes.float8_e4m3fn), opset=19)).report
    assert reasons(report)["w"] == "ONNX has no Gather of float8_e4m3fn, so nothing decodes it"


def test_negative_zeros_and_nans_with_payloads_are_elements(tmp_path, make_model):
    array = np.zeros((64, 64), np.float32)
    array.view(np.uint32)[3, [1, 2, 3, 4]] = [0x80000000, 0x7FC12345, 0xFFA00001, 0x00000001]
    result = Encode()(make_model({"w": array}))
    assert [c.action for c in result.report.changes] == ["sparse initializer"]
    assert values_of(constant(result.model, "w")).tensor.values.dims == [4]
    result.model.save(tmp_path / "small.onnx")
    back = decode(Model.load(tmp_path / "small.onnx")).model
    assert bits(back.array(constant(back, "w"))) == bits(array)
    assert back.sparse_weights() == []


def test_is_chosen_only_where_it_is_smallest(tmp_path, make_model):
    actions, sizes = {}, {}
    for nonzeros in (0, 5, 30, 300, 3000):
        model = make_model({"w": few((128, 128), nonzeros=nonzeros)})
        layouts = {"all": Encode().layouts, "sparse": ("sparse",), "others": DECODED}
        results = {name: Encode(layouts=each, measure=False)(model) for name, each in layouts.items()}
        actions[nonzeros] = [c.action for c in results["all"].report.changes]
        sizes[nonzeros] = {name: each.model.save(tmp_path / f"{name}.onnx") for name, each in results.items()}
    assert [nonzeros for nonzeros, each in actions.items() if each == ["sparse initializer"]] == [
        0,
        5,
        30,
        300,
    ]  # all distinct
    for each in sizes.values():
        assert each["all"] <= min(each["sparse"], each["others"]) + 16  # names are of unknown length


@pytest.mark.parametrize("nonzeros", [0, 1, 40, 5000])
def test_predicts_its_bytes(nonzeros):
    array = few((300, 300), nonzeros=nonzeros)
    facts = Facts(array.shape, array.dtype, survey(array), (), array.nbytes)
    form = sparse_form(array)
    form.tensor.values.name = "layers.0"
    assert cost(facts, Plan("sparse"))[0] == pytest.approx(form.tensor.ByteSize(), abs=24)
    assert cost(facts, Plan("sparse"))[1] == set()


def test_onnxruntime_computes_the_same_without_a_decoding_node(tmp_path, make_model):
    model = make_model({"w": few((64, 64), nonzeros=20), "b": few((64,), nonzeros=1, seed=1)})
    result = Encode()(model)
    assert [c.action for c in result.report.changes] == ["sparse initializer"] * 2
    model.save(tmp_path / "dense.onnx")
    result.model.save(tmp_path / "small.onnx")
    assert [node.op for node in result.model.graph.nodes] == ["MatMul", "Add"]
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    sessions = [onnxruntime.InferenceSession(str(tmp_path / f"{name}.onnx")) for name in ("dense", "small")]
    np.testing.assert_array_equal(*(session.run(None, {"x": x})[0] for session in sessions))
    assert len(result.report.notes) == 1  # nothing is decoded in runs that do not fold


def test_survives_external_data_beside_other_weights(tmp_path, make_model):
    weights = {"w": few((64, 64), nonzeros=20), "v": np.random.default_rng(1).standard_normal((64, 64)).astype("f4")}
    result = Encode()(make_model(weights))
    result.model.save(tmp_path / "small.onnx", external_data=True)
    back = decode(Model.load(tmp_path / "small.onnx")).model
    for name, weight in weights.items():
        assert bits(back.array(constant(back, name))) == bits(weight)
    session = onnxruntime.InferenceSession(str(tmp_path / "small.onnx"))
    found = session.run(None, {"x": np.eye(64, dtype=np.float32)})[0]
    np.testing.assert_allclose(found, weights["w"] @ weights["v"], rtol=1e-5, atol=1e-6)  # sums in another order


def test_large_integers_that_nothing_decodes_become_sparse_or_say_why(make_model):
    def model_of(indices):
        value = helper.make_tensor_value_info
        node = helper.make_node("Gather", ["x", "at"], ["y"], name="gather")
        ends = value("x", TensorProto.FLOAT, [9]), value("y", TensorProto.FLOAT, [500])
        graph = helper.make_graph([node], "g", [ends[0]], [ends[1]], [numpy_helper.from_array(indices, "at")])
        return Model.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))

    sparse = Encode()(model_of(np.arange(500) // 499))
    assert [c.action for c in sparse.report.changes] == ["sparse initializer"]
    dense = Encode()(model_of(np.arange(500) % 9)).report
    assert dense.changes == []
    assert reasons(dense)["at"].startswith("int64 is not decoded")
    assert reasons(Encode(layouts=("plain",))(model_of(np.arange(500) // 499)).report) == reasons(dense)


def test_needs_no_opset_but_a_version_of_the_format(make_model):
    result = Encode()(make_model({"w": few((64, 64), nonzeros=20)}, opset=9, ir_version=4))
    assert [c.action for c in result.report.changes] == ["sparse initializer"]
    assert result.model.header.ir_version == 6
    assert result.model.opset == 9


def test_encoding_again_changes_nothing(make_model):
    once = Encode(least_saving=0)(make_model({"w": few((64, 64), nonzeros=20)}))
    twice = Encode(least_saving=0)(once.model)
    assert twice.report.changes == []
    assert twice.model.to_proto() == once.model.to_proto()
    assert reasons(twice.report)["node0"] == "is a sparse initializer already"


def test_stays_in_the_branch_that_holds_it(conditional_model):
    proto = conditional_model(few((64, 64), nonzeros=9), few((64, 64), nonzeros=9, seed=1))
    model = Encode()(Model.from_proto(proto)).model
    assert len(model.sparse_weights()) == 2
    dense, small = (onnxruntime.InferenceSession(each.SerializeToString()) for each in (proto, model.to_proto()))
    for condition in (True, False):
        feed = {"x": np.eye(64, dtype=np.float32), "c": np.array(condition)}
        np.testing.assert_array_equal(dense.run(None, feed)[0], small.run(None, feed)[0])
    assert decode(model).model.sparse_weights() == []


def test_takes_the_name_of_its_constant_when_that_changes(make_model):
    model = Encode()(make_model({"w": few((64, 64), nonzeros=20)})).model
    constant(model, "w").name = "renamed"
    assert [each.values.name for each in model.to_proto().graph.sparse_initializer] == ["renamed"]


def test_shapes_behind_it_are_known(make_model):
    model = Encode()(make_model({"w": few((64, 64), nonzeros=20)})).model
    assert infer_shapes(model).shape(model.graph.outputs[0])[-1] == 64


def test_a_newer_opset_makes_it_dense(make_model):
    weight = few((64, 64), nonzeros=20)
    model = Encode()(make_model({"w": weight}, opset=11)).model
    assert raise_opset(model, 17)
    assert model.sparse_weights() == []
    np.testing.assert_array_equal(model.array(constant(model, "w")), weight)


def test_counts_as_what_it_takes(make_model):
    model = Encode()(make_model({"w": few((64, 64), nonzeros=20)})).model
    assert isinstance(values_of(constant(model, "w")), SparseForm)
    assert model.weight_bytes() < 250


def test_a_wrong_form_is_noticed(make_model, monkeypatch):
    monkeypatch.setattr(module, "sparse_form", lambda weight: sparse_form(np.negative(weight)))
    with pytest.raises(InvariantError, match="'w' decodes to something else"):
        Encode()(make_model({"w": few((64, 64), nonzeros=20)}))
