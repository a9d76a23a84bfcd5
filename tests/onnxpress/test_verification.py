"""A result is compared with its original, and nothing is passed over in silence."""

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxpress.calibration.providers import CPU
from onnxpress.rewriter.errors import ConfigError, FeedError, ModelError, ProviderError
from onnxpress.rewriter.model import Model
from onnxpress.verification import verify


@pytest.fixture
def halved(model, halve, tmp_path):
    path = tmp_path / "halved.onnx"
    halve(Model.load(model)).model.save(path)
    return path


def test_a_model_equals_itself(model, samples):
    found = verify(model, model, data=samples, metric="top1")
    (parity,) = found.providers
    assert parity.provider == CPU
    assert parity.outputs[0].name == "y"
    assert (found.sqnr, found.drop) == (math.inf, 0.0)
    assert (parity.metric_before, parity.metric_after) == (1.0, 1.0)
    assert parity.nodes_before == parity.nodes_after
    assert sum(parity.nodes_after[CPU].values()) >= 2


def test_sums_errors_over_all_batches(model, halved, samples):
    (parity,) = verify(model, halved, data=samples).providers
    # The first weight alone is a float site of the raw file; halving it halves the output: 10·log10(1 / 0.25).
    assert parity.outputs[0].sqnr == pytest.approx(6.02, abs=0.01)
    assert parity.outputs[0].cosine == pytest.approx(1.0, abs=1e-6)
    assert parity.outputs[0].agreement == 1.0
    assert parity.batches == 2


def test_compares_as_many_batches_as_asked(model, halved, samples):
    assert verify(model, halved, data=samples, limit=1).providers[0].batches == 1


def test_without_samples_inputs_are_made_up_and_that_is_said(model):
    found = verify(model, model)
    assert "made up" in found.warnings[0]


def test_other_outputs_are_another_model(model, samples, tmp_path):
    proto = onnx.load(model)
    proto.graph.node[-1].output[0] = proto.graph.output[0].name = "z"
    onnx.save(proto, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match=r"small\.onnx has the outputs y, other\.onnx has z"):
        verify(model, tmp_path / "other.onnx", data=samples)


def test_a_missing_provider_is_an_error(model, samples):
    with pytest.raises(ProviderError, match="TensorrtExecutionProvider"):
        verify(model, model, data=samples, providers=["tensorrt"])


def test_an_unknown_provider_or_metric_is_an_error(model, samples):
    with pytest.raises(ConfigError, match="provider 'gpu' is unknown"):
        verify(model, model, data=samples, providers=["gpu"])
    with pytest.raises(ConfigError, match="metric 'top5' is unknown"):
        verify(model, model, data=samples, metric="top5")


def test_samples_that_do_not_fit_are_an_error(model):
    with pytest.raises(FeedError, match="input"):
        verify(model, model, data={"image": np.zeros((4, 8), np.float32), "mask": np.zeros((4, 8), np.float32)})


@pytest.mark.cuda
def test_runs_on_cuda_and_says_what_ran_there(model, samples):
    found = verify(model, model, data=samples, providers=["cpu", "cuda"])
    assert [each.provider for each in found.providers] == [CPU, "CUDAExecutionProvider"]
    assert "CUDAExecutionProvider" in found.providers[1].nodes_after


def built(nodes, *outputs, kind=TensorProto.FLOAT, weight=2.0):
    """x [n, 8] -> what the nodes make of it and of w, a scalar."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", kind, ["n", 8])],
        [helper.make_tensor_value_info(name, element, None) for name, element in outputs],
        [helper.make_tensor("w", kind, [], [weight])],
    )
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])


def scaled(*, kind=TensorProto.FLOAT, weight=2.0):
    return built([helper.make_node("Mul", ["x", "w"], ["y"])], ("y", kind), kind=kind, weight=weight)


def beyond(*, weight):
    """Which values are above w, and where: as many columns as there are."""
    nodes = [
        helper.make_node("Greater", ["x", "w"], ["y"]),
        helper.make_node("NonZero", ["y"], ["z"]),
    ]
    return built(nodes, ("y", TensorProto.BOOL), ("z", TensorProto.INT64), weight=weight)


def compared(tmp_path, one, other, x):
    for name, proto in (("one", one), ("other", other)):
        onnx.save(proto, tmp_path / f"{name}.onnx")
    return verify(tmp_path / "one.onnx", tmp_path / "other.onnx", data={"x": x})


def test_a_result_with_narrower_inputs_gets_narrower_samples(tmp_path):
    x = np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8)
    found = compared(tmp_path, scaled(), scaled(kind=TensorProto.FLOAT16), x)
    assert 60 < found.sqnr < 90


def test_inputs_of_another_kind_are_another_model(tmp_path):
    with pytest.raises(ModelError, match=r"'x' is tensor\(float\) in one\.onnx, tensor\(int32\) in other\.onnx"):
        compared(tmp_path, scaled(), scaled(kind=TensorProto.INT32, weight=2), np.zeros((4, 8), np.float32))


def test_an_output_of_another_shape_cannot_be_judged(tmp_path):
    x = np.stack([np.full((4, 8), 0.25, np.float32), np.full((4, 8), 2.0, np.float32)]).reshape(8, 8)
    found = compared(tmp_path, beyond(weight=0.0), beyond(weight=1.0), x)
    boolean, positions = found.providers[0].outputs
    assert (boolean.reshaped, boolean.equal) == (0, 0.5)
    assert positions.reshaped >= 1
    assert math.isnan(found.sqnr)
    assert "output 'z' has another shape on" in found.warnings[0]


def test_outputs_of_other_ranks_are_another_model(tmp_path):
    nodes = [helper.make_node("Mul", ["x", "w"], ["h"]), helper.make_node("ReduceMax", ["h"], ["y"], keepdims=0)]
    with pytest.raises(ModelError, match="output 'y' came out in 2 and in 0 dimensions"):
        compared(tmp_path, scaled(), built(nodes, ("y", TensorProto.FLOAT)), np.ones((4, 8), np.float32))


def above(weight, *, also=()):
    nodes = [
        helper.make_node("Greater", ["x", "w"], ["b"]),
        helper.make_node("Cast", ["b"], ["y"], to=TensorProto.INT64),
    ]
    floats = [helper.make_node("Mul", ["x", "x"], [name]) for name in also]
    return built(
        [*nodes, *floats], ("y", TensorProto.INT64), *((name, TensorProto.FLOAT) for name in also), weight=weight
    )


def test_integers_are_counted_where_they_are_equal(tmp_path):
    x = np.linspace(0, 1, 32, dtype=np.float32).reshape(4, 8)
    found = compared(tmp_path, above(0.3), above(0.55), x)
    assert found.providers[0].outputs[0].equal == pytest.approx(0.75)
    assert math.isnan(found.sqnr)
    assert found.warnings == (
        "all outputs are integers, which SQNR cannot judge; equal entries: 75.00% of 'y': judge by a metric (--metric)",
    )
    same = compared(tmp_path, above(0.3), above(0.3), x)
    assert (same.sqnr, same.providers[0].judged) == (math.inf, False)


def test_integers_beside_floats_are_left_out_of_the_sqnr(tmp_path):
    x = np.linspace(0, 1, 32, dtype=np.float32).reshape(4, 8)
    found = compared(tmp_path, above(0.3, also=["z"]), above(0.55, also=["z"]), x)
    assert (found.sqnr, found.warnings) == (math.inf, ())
