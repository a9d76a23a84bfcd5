import numpy as np
import onnxruntime
import pytest

from onnxpress.passes.encode import decode as module
from onnxpress.passes.encode.decode import Decode, decode
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.pipeline import Pipeline
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.weights import Produced, values_of


@pytest.fixture
def dense(make_model, make_weight):
    return make_model({"w": make_weight((64, 64), distinct=4), "v": make_weight((64, 64), density=0.1, seed=1)})


def test_leaves_no_trace_of_the_encoding(dense, constants_of):
    result = decode(Encode()(dense).model)
    assert constants_of(result.model) == constants_of(dense)
    assert [node.op for node in result.model.graph.nodes] == ["MatMul", "MatMul"]
    assert result.model.functions == []
    assert [each.domain for each in result.model.header.opset_import] == [""]
    assert {change.site for change in result.report.changes} == {"w", "v", "graph"}


def test_large_weights_are_decoded_when_read(tmp_path, make_model, make_weight, constants_of, monkeypatch):
    monkeypatch.setattr(module, "LAZY", 1000)
    model = make_model({"w": make_weight((64, 64), distinct=4), "ones": np.ones(64, np.float32)})
    Encode(least_saving=0)(model).model.save(tmp_path / "small.onnx")
    back = decode(Model.load(tmp_path / "small.onnx")).model
    assert {c.name: isinstance(values_of(c), Produced) for c in back.constants()} == {"w": True, "ones": False}
    back.save(tmp_path / "dense.onnx")
    assert constants_of(Model.load(tmp_path / "dense.onnx")) == constants_of(model)


def test_batches_hold_a_bounded_number_of_bytes(make_model, make_weight, constants_of, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 40_000)
    sizes, honest = [], module.evaluate

    def counted(*args, **options):
        arrays = honest(*args, **options)
        sizes.append(sum(a.nbytes for a in arrays))
        return arrays

    monkeypatch.setattr(module, "evaluate", counted)
    model = make_model({f"w{i}": make_weight((64, 64), distinct=4, seed=i) for i in range(5)})
    assert constants_of(decode(Encode()(model).model).model) == constants_of(model)
    assert sizes == [2 * 64 * 64 * 4, 2 * 64 * 64 * 4, 64 * 64 * 4]


def test_runs_in_a_pipeline(dense):
    result = Pipeline([Encode(), Decode()])(dense)
    x = np.ones((2, 64), np.float32)
    one, other = (
        onnxruntime.InferenceSession(m.to_proto().SerializeToString()).run(None, {"x": x})[0]
        for m in (dense, result.model)
    )
    np.testing.assert_array_equal(one, other)


def test_nothing_to_decode_is_said(dense):
    report = decode(dense).report
    assert report.changes == []
    assert [skip.reason for skip in report.skips] == ["no weight is encoded"]


def test_refuses_a_model_without_its_functions(dense):
    model = Encode()(dense).model
    model.functions.clear()
    with pytest.raises(ModelError, match="not in the model: Codes, Digits"):
        decode(model)


def test_refuses_a_decoding_of_what_is_not_constant(dense):
    model = Encode()(dense).model
    node = next(n for n in model.graph.nodes if n.op == "Codes")
    node.inputs[0] = model.graph.inputs[0]
    with pytest.raises(ModelError, match="'x' is read by a decoding node"):
        decode(model)


def test_refuses_codes_that_onnxruntime_cannot_decode(dense):
    model = Encode()(dense).model
    node = next(n for n in model.graph.nodes if n.op == "Codes")
    model.replace_weight(node.inputs[3], np.array([-5, 3]))
    with pytest.raises(ModelError, match="ONNX Runtime cannot compute"):
        decode(model)
