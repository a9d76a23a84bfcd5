"""What a weight is worth to the outputs of its layer."""

import numpy as np
import pytest

from onnxpress.passes.kernels.saliency import magnitude, obd, wanda


@pytest.fixture
def layer():
    """A weight [6, 4] of two groups, and inputs [2, 30, 4]."""
    random = np.random.default_rng(0)
    return random.standard_normal((6, 4)), random.standard_normal((2, 30, 4)) * [1, 3, 0.1, 1]


def moment_of(inputs):
    return inputs.transpose(0, 2, 1) @ inputs


def test_magnitude_is_the_square(layer):
    np.testing.assert_array_equal(magnitude(layer[0]), layer[0] ** 2)


def test_obd_is_what_the_loss_of_one_weight_costs(layer):
    weight, inputs = layer
    scores = obd(weight, moment_of(inputs))
    for row, column in ((0, 1), (4, 2), (5, 0)):
        lost = inputs[row // 3, :, column] * weight[row, column]
        assert scores[row, column] == pytest.approx(lost @ lost, rel=1e-9)


def test_wanda_ranks_within_each_output(layer):
    weight, inputs = layer
    scores = wanda(weight, moment_of(inputs))
    np.testing.assert_allclose(np.sort(scores, axis=1), np.tile([0.25, 0.5, 0.75, 1.0], (6, 1)))
    norms = np.repeat(np.linalg.norm(inputs, axis=1), 3, axis=0)
    np.testing.assert_array_equal(np.argsort(scores, axis=1), np.argsort(abs(weight) * norms, axis=1))


def test_refuses_moments_of_another_layer(layer):
    with pytest.raises(ValueError, match="do not fit"):
        obd(layer[0], np.eye(5)[np.newaxis])
