"""Zeros for which the other weights make up: never worse than zeroing alone, exact where nothing is lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.obs import Axes, alternate, outputs_error, surgeon
from onnxpress.passes.kernels.pruning import largest_mask

seeds = st.integers(0, 10_000)


def select(scores, sparsity):
    return largest_mask(scores, sparsity)


def problem(seed, *, groups=1, rows=24, columns=12, inputs=40):
    """A weight [groups·rows, columns] and the moment of correlated inputs."""
    random = np.random.default_rng(seed)
    mixing = np.eye(columns) + 0.4 * random.standard_normal((groups, columns, columns))
    x = random.standard_normal((groups, inputs, columns)) @ mixing
    return random.standard_normal((groups * rows, columns)), x.transpose(0, 2, 1) @ x


def zeroed(weight, sparsity):
    """What magnitude alone gives: the mask of the largest, the weights as they were."""
    return np.where(select(np.square(weight), sparsity), weight, 0)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(seed=seeds, groups=st.sampled_from([1, 2]), sparsity=st.sampled_from([0.25, 0.5, 0.75]))
def test_mask_and_weights_found_together_lose_less_than_magnitude(seed, groups, sparsity):
    weight, moment = problem(seed, groups=groups)
    found = alternate(weight, Axes.of(moment), select, sparsity=sparsity)
    assert np.count_nonzero(found.mask) == weight.size - round(sparsity * weight.size)
    assert not found.weight[~found.mask].any()
    plain = outputs_error(weight, zeroed(weight, sparsity), moment)
    assert outputs_error(weight, found.weight, moment) < plain


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.75])
def test_surgeon_loses_less_than_magnitude_as_a_rule(sparsity):
    ratios = []
    for seed in range(20):
        weight, moment = problem(seed)
        found = surgeon(weight, moment, select, sparsity=sparsity)
        assert np.count_nonzero(found.mask) == weight.size - round(sparsity * weight.size)
        assert not found.weight[~found.mask].any()
        plain = outputs_error(weight, zeroed(weight, sparsity), moment)
        ratios.append(outputs_error(weight, found.weight, moment) / plain)
    assert np.mean(ratios) < 0.97  # column by column, so not in each case


@settings(deadline=None, derandomize=True, max_examples=20)
@given(seed=seeds)
def test_nothing_changes_where_nothing_goes(seed):
    weight, moment = problem(seed)
    for found in (
        surgeon(weight, moment, select, sparsity=0.0),
        alternate(weight, Axes.of(moment), select, sparsity=0.0),
    ):
        assert found.mask.all()
        np.testing.assert_allclose(found.weight, weight, rtol=1e-3, atol=1e-3)  # float32 inside


def test_surgeon_removes_an_input_that_another_one_repeats_without_loss():
    random = np.random.default_rng(0)
    x = random.standard_normal((50, 3))
    moment = np.concatenate([x, x[:, :1]], axis=1)
    moment = (moment.T @ moment)[np.newaxis]

    def first_goes(scores, sparsity):
        return np.arange(scores.shape[1]) > np.zeros((len(scores), 1))

    weight = random.standard_normal((2, 4))
    found = surgeon(weight, moment, first_goes, sparsity=0.25, damping=1e-9)
    np.testing.assert_allclose(found.weight[:, 3], weight[:, 0] + weight[:, 3], rtol=1e-4, atol=1e-4)
    assert outputs_error(weight, found.weight, moment) < 1e-3


def test_a_stretch_of_columns_loses_its_own_share():
    weight, moment = problem(3, columns=16)
    found = surgeon(weight, moment, select, sparsity=0.5, width=4)
    assert [np.count_nonzero(found.mask[:, at : at + 4]) for at in range(0, 16, 4)] == [48] * 4


def test_inputs_that_are_never_seen_do_no_harm():
    weight, moment = problem(4)
    moment[:, 5] = 0
    moment[:, :, 5] = 0
    for found in (
        surgeon(weight, moment, select, sparsity=0.5),
        alternate(weight, Axes.of(moment), select, sparsity=0.5),
    ):
        assert np.isfinite(found.weight).all()


def test_axes_solve_what_the_moment_multiplies():
    weight, moment = problem(5, groups=2)
    axes = Axes.of(moment, damping=0.0)
    right = weight.reshape(2, 24, 12) @ moment
    np.testing.assert_allclose(axes.solve(right).reshape(weight.shape), weight, rtol=0.01, atol=0.01)  # float32 inside


def test_the_error_of_outputs_is_that_of_the_rows():
    weight, _ = problem(6)
    x = np.random.default_rng(7).standard_normal((30, 12))
    lost = zeroed(weight, 0.5)
    expected = np.linalg.norm(x @ (weight - lost).T) / np.linalg.norm(x @ weight.T)
    assert outputs_error(weight, lost, (x.T @ x)[np.newaxis]) == pytest.approx(expected, rel=1e-9)
    assert outputs_error(0 * weight, 0 * weight, (x.T @ x)[np.newaxis]) == 0.0


@pytest.mark.parametrize(
    ("moment", "reason"),
    [
        (np.eye(5)[np.newaxis], "do not fit"),
        (np.full((1, 12, 12), np.nan), "not finite"),
        (-1e9 * np.eye(12)[np.newaxis] + np.diag([2e9] + 11 * [0])[np.newaxis], "negative directions"),
    ],
)
def test_refuses_what_is_no_moment(moment, reason):
    weight, _ = problem(8)
    with pytest.raises(ValueError, match=reason):
        surgeon(weight, moment, select, sparsity=0.5)
