"""A result is compared with its original, and nothing is passed over in silence."""

import math

import numpy as np
import onnx
import pytest

from onnxpress.calibration.session import CPU
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
