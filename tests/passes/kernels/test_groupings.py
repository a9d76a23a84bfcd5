"""Block-diagonal weights between permutations."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.groupings import block_diagonal

modest = settings(deadline=None, derandomize=True, max_examples=30)


def layer(seed, out, channels, taps, rows=200):
    rng = np.random.default_rng(seed)
    k = channels * taps
    inputs = rng.standard_normal((rows, k)) @ (np.eye(k) + 0.3 * rng.standard_normal((k, k)))
    return rng.standard_normal((out, k)), inputs.T @ inputs


def hidden(seed, groups, rows, columns, taps):
    """A block-diagonal weight whose channels are shuffled."""
    rng = np.random.default_rng(seed)
    weight = np.zeros((groups * rows, groups * columns, taps))
    outputs, inputs = rng.permutation(groups * rows), rng.permutation(groups * columns)
    for group in range(groups):
        block = np.ix_(outputs[group * rows : (group + 1) * rows], inputs[group * columns : (group + 1) * columns])
        weight[block] = rng.uniform(0.5, 1, (rows, columns, taps))
    return weight.reshape(groups * rows, -1)


def relative(weight, other, metric):
    metric = np.eye(weight.shape[1]) if metric is None else metric
    lost = weight - other
    left, whole = (float(np.einsum("ok,kl,ol->", each, metric, each)) for each in (lost, weight))
    return np.sqrt(max(0.0, left) / whole)


@modest
@given(
    seed=st.integers(0, 10_000),
    groups=st.integers(1, 5),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    taps=st.sampled_from([1, 4]),
)
def test_finds_hidden_groups(seed, groups, rows, columns, taps):
    weight = hidden(seed, groups, rows, columns, taps)
    found = block_diagonal(weight, None, groups, taps=taps)
    np.testing.assert_allclose(found.dense(), weight, rtol=1e-12, atol=1e-12)
    assert found.error < 1e-6


@modest
@given(
    seed=st.integers(0, 10_000),
    groups=st.sampled_from([1, 2, 3]),
    taps=st.sampled_from([1, 2]),
    rows=st.sampled_from([1, 5, 200]),
)
def test_tells_the_error_and_one_group_is_exact(seed, groups, taps, rows):
    weight, metric = layer(seed, 6, 6, taps, rows)
    found = block_diagonal(weight, metric, groups, taps=taps)
    # 1 − what is kept: cancellation leaves half of float64's digits
    np.testing.assert_allclose(found.error, relative(weight, found.dense(), metric), rtol=1e-4, atol=1e-4)
    assert found.weights.shape == (groups, 6 // groups, 6 // groups * taps)
    assert sorted(found.outputs.reshape(-1)) == sorted(found.inputs.reshape(-1)) == list(range(6))
    if groups == 1:
        np.testing.assert_allclose(found.dense(), weight, rtol=1e-6, atol=1e-6)


def test_weights_are_the_best_within_their_groups():
    weight, metric = layer(0, 4, 6, 2)
    found = block_diagonal(weight, metric, 2, taps=2)
    slope = (found.dense() - weight) @ metric
    inside = found.dense() != 0
    assert np.abs(slope[inside]).max() < 1e-6 * np.abs(slope).max()


def test_is_near_the_best_of_all_groupings():
    weight, metric = layer(4, 4, 4, 1)

    def best(metric):
        errors = []
        for inputs in ([0, 1], [0, 2], [0, 3]):
            others = [each for each in range(4) if each not in inputs]
            for order in permutations(range(4)):
                wide = np.zeros((4, 4))
                for rows, columns in ((list(order[:2]), inputs), (list(order[2:]), others)):
                    own = (weight @ metric)[np.ix_(rows, columns)]
                    wide[np.ix_(rows, columns)] = np.linalg.solve(metric[np.ix_(columns, columns)], own.T).T
                errors.append(relative(weight, wide, metric))
        return min(errors)

    assert block_diagonal(weight, None, 2).error <= 1.1 * best(np.eye(4))
    assert block_diagonal(weight, metric, 2).error <= 1.2 * best(metric)


def test_zeros_have_no_error():
    assert block_diagonal(np.zeros((4, 4)), None, 2).error == 0
    found = block_diagonal(np.ones((4, 4)), np.zeros((4, 4)), 2)
    assert found.error == 0
    assert set(found.dense().reshape(-1)) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda w: block_diagonal(w, None, 3), "3 groups do not divide 4 outputs and 6 inputs"),
        (lambda w: block_diagonal(w, None, 0), "0 groups do not divide"),
        (lambda w: block_diagonal(w, None, 2, taps=4), "are no channels of 4 taps"),
        (lambda w: block_diagonal(w, np.eye(3), 2), "has no metric"),
        (lambda w: block_diagonal(w * np.nan, None, 2), "not finite"),
    ],
)
def test_refuses(call, reason):
    with pytest.raises(ValueError, match=reason):
        call(np.ones((4, 6)))
