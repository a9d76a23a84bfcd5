"""Outputs that are right behind an activation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.asymmetric import Activation, Bent, Correction, Largest

modest = settings(deadline=None, derandomize=True, max_examples=40)
seeds = st.integers(0, 10_000)
slopes = st.sampled_from([0.0, 0.1, 1.0])
ACTIVATIONS = {
    "relu": Bent(),
    "clip": Bent(-0.5, 0.7),
    "below": Bent(-np.inf, 0.2),
    "leaky": Bent(slope=0.1),
    "prelu": Bent(slope=np.array([0.0, 0.2, 0.5, 1.0, 0.3, 0.9], np.float32)),
    "maxout": Largest(2),
    "maxout of three": Largest(3),
}
every = pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=list(ACTIVATIONS))


def pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Outputs [n, 6] that are wanted, and others near them."""
    rng = np.random.default_rng(seed)
    wanted = rng.standard_normal((9, 6)).astype(np.float32)
    return wanted, wanted + rng.standard_normal((9, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (Bent(), [0, 0, 0, 0.5, 2]),
        (Bent(-1, 1), [-1, -0.5, 0, 0.5, 1]),
        (Bent(slope=0.1), [-0.2, -0.05, 0, 0.5, 2]),
        (Bent(-np.inf, 1), [-2, -0.5, 0, 0.5, 1]),
    ],
)
def test_bends(activation, expected):
    given = np.array([[-2, -0.5, 0, 0.5, 2]], np.float32)
    np.testing.assert_allclose(activation.of(given), [expected], rtol=1e-6, atol=1e-7)


def test_a_slope_belongs_to_its_output():
    activation = Bent(slope=np.array([0.0, 0.5], np.float32))
    np.testing.assert_array_equal(activation.of(np.float32([[-1, -1], [1, 1]])), [[0, -0.5], [1, 1]])


def test_the_largest_of_pieces():
    given = np.array([[1, 5, 3, 2, 4, 0]], np.float32)
    np.testing.assert_array_equal(Largest(2).of(given), [[2, 5, 3]])
    np.testing.assert_array_equal(Largest(3).of(given), [[4, 5]])


@every
@given(seed=seeds)
@modest
def test_what_is_wished_is_nearer_behind_the_activation(activation: Activation, seed):
    wanted, given = pair(seed)
    wished = activation.wished(wanted, given)
    aim = activation.of(wanted)
    before, after = (np.abs(activation.of(each) - aim) for each in (given, wished))
    assert (after <= before + 1e-6).all()
    assert after.sum() < before.sum()


@every
@given(seed=seeds)
@modest
def test_nothing_more_is_wished_where_all_is_right(activation: Activation, seed):
    wanted, _ = pair(seed)
    np.testing.assert_allclose(activation.wished(wanted, wanted), wanted, rtol=0, atol=1e-6)


@given(seed=seeds)
@modest
def test_a_relu_does_not_care_how_far_below_zero(seed):
    wanted, given = pair(seed)
    wanted, given = -np.abs(wanted), -np.abs(given)
    np.testing.assert_array_equal(Bent().wished(wanted, given), given)


@given(seed=seeds)
@modest
def test_without_a_bend_the_outputs_themselves_are_wished(seed):
    wanted, given = pair(seed)
    np.testing.assert_allclose(Bent(slope=1.0).wished(wanted, given), wanted, rtol=0, atol=1e-6)


def test_what_sleeps_is_woken():
    wanted, given = np.float32([[1.0]]), np.float32([[-1.0]])
    assert Bent().wished(wanted, given) > given


@given(seed=seeds, groups=st.integers(1, 3), biased=st.booleans())
@modest
def test_a_correction_is_what_least_squares_gains_by_other_outputs(seed, groups, biased):
    rng = np.random.default_rng(seed)
    n, k, rows = 40, 5, 3
    inputs = rng.standard_normal((groups, n, k)) + 0.5
    outputs, others = rng.standard_normal((2, n, groups * rows))
    centre = inputs.mean(axis=1) if biased else None
    centred = inputs - (centre[:, np.newaxis] if biased else 0)
    metric = np.einsum("gnk,gnl->gkl", centred, centred)
    fitted = [
        np.concatenate(
            [
                np.linalg.lstsq(part, each - (each.mean(axis=0) if biased else 0), rcond=None)[0].T
                for part, each in zip(centred, np.split(whole, groups, axis=1), strict=True)
            ]
        )
        for whole in (outputs, others)
    ]
    parts = np.split(inputs, [7, 30], axis=1), np.split(others - outputs, [7, 30])
    found = Correction(metric, centre).of(*parts)
    np.testing.assert_allclose(found, fitted[1] - fitted[0], rtol=1e-8, atol=1e-8)


def test_an_indefinite_metric_is_refused():
    with pytest.raises(ValueError, match="not positive"):
        Correction(-np.eye(3)[np.newaxis], None)
