import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.quantize.lstm import CodedWeight, Setting
from onnxpress.rewriter.sites import find_sites
from onnxpress.rewriter.weights import Produced


def site_of(build, weight):
    """The site of W [directions, 4·hidden, input] of an LSTM."""
    directions, gates, _ = weight.shape
    hidden = gates // 4
    weights = {"W": weight, "R": np.ones((directions, gates, hidden), np.float32)}
    kind = "bidirectional" if directions == 2 else "forward"
    lstm = helper.make_node("LSTM", ["x", "W", "R"], ["y"], hidden_size=hidden, direction=kind)
    return find_sites(build([lstm], weights, x=("s", "b", weight.shape[2])))[0]


@pytest.mark.parametrize("narrow", [True, False])
@pytest.mark.parametrize("per_channel", [True, False])
def test_codes_are_transposed_and_decode_to_the_weight(build, random, per_channel, narrow):
    sizes = np.geomspace(0.01, 10, 16, dtype=np.float32)[None, :, None] * np.array([[[1]], [[3]]], np.float32)
    weight = random.standard_normal((2, 16, 5), np.float32) * sizes
    coded = CodedWeight.of(site_of(build, weight), Setting(per_channel=per_channel, narrow=narrow))
    codes = coded.codes.load()
    assert (codes.shape, codes.dtype) == ((2, 5, 16), np.int8)
    assert coded.scale.shape == ((2, 16) if per_channel else (2,))
    assert np.abs(codes).max() == (64 if narrow else 127)
    scale = coded.scale.reshape(2, -1, 1)
    decoded = codes.transpose(0, 2, 1) * scale
    assert (np.abs(decoded - weight) <= scale * (0.5 + 1e-4)).all()  # half a step, and the rounding of the division
    error = np.linalg.norm(decoded - weight) / np.linalg.norm(weight)
    np.testing.assert_allclose(coded.error, error, rtol=1e-4)
    assert coded.nbytes == codes.size + 5 * coded.scale.size


def test_codes_of_a_large_weight_are_computed_when_they_are_read(build, random):
    coded = CodedWeight.of(site_of(build, random.standard_normal((1, 1024, 256), np.float32)), Setting())
    assert isinstance(coded.codes, Produced)
    assert coded.codes.load().shape == (1, 256, 1024)
