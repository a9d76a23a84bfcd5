"""Zeroing weights while the others make up for them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.obs import Axes, alternate, surgeon
from onnxpress.passes.kernels.pruning import largest_mask, nm_mask


def correlated(seed, groups=1, rows=8, k=16):
    """A weight and the moments of inputs that depend on one another, of different size."""
    draw = np.random.default_rng(seed)
    mixed = draw.standard_normal((groups, 60, k)) @ draw.standard_normal((k, k)) * np.exp(draw.standard_normal(k))
    return draw.standard_normal((groups * rows, k)), mixed.transpose(0, 2, 1) @ mixed


def error(weight, other, moment):
    lost = (weight - other).reshape(len(moment), -1, weight.shape[1])
    return float(np.einsum("grk,grk->", lost @ moment, lost))


def damped(moment, damping):
    out = moment.copy()
    np.einsum("gkk->gk", out)[:] += damping * np.einsum("gkk->gk", moment).mean(axis=1, keepdims=True)
    return out


def best(weight, moment, mask):
    """The weights inside a mask with the least error, row by row."""
    out, share = np.zeros(weight.shape), len(weight) // len(moment)
    for row, kept in enumerate(mask):
        square = moment[row // share]
        out[row, kept] = np.linalg.solve(square[np.ix_(kept, kept)], square[kept] @ weight[row])
    return out


METHODS = {
    "surgeon": lambda w, m, select, s: surgeon(w, m, select, sparsity=s, width=4),
    "alternate": lambda w, m, select, s: alternate(w, Axes.of(m).damped(0.01), select, sparsity=s),
}


def both(function):
    return pytest.mark.parametrize("method", METHODS)(function)


@both
@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), groups=st.integers(1, 3), sparsity=st.sampled_from([0.25, 0.5, 0.75]))
def test_zeroes_the_part_asked_for_and_nothing_else(method, seed, groups, sparsity):
    weight, moment = correlated(seed, groups)
    sparse = METHODS[method](weight, moment, largest_mask, sparsity)
    assert np.count_nonzero(~sparse.mask) == round(sparsity * weight.size)
    assert not sparse.weight[~sparse.mask].any()


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), groups=st.integers(1, 2))
def test_alternating_beats_the_best_weights_on_the_mask_of_largest_saliency(seed, groups):
    weight, moment = correlated(seed, groups)
    diagonal = np.repeat(np.einsum("gkk->gk", moment), len(weight) // groups, axis=0)
    plain = best(weight, moment, largest_mask(weight**2 * diagonal, 0.5))
    sparse = alternate(weight, Axes.of(moment), largest_mask, sparsity=0.5)
    assert error(weight, best(weight, moment, sparse.mask), moment) <= error(weight, plain, moment)


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6))
def test_weights_of_alternating_are_near_to_the_best_for_their_mask(seed):
    weight, moment = correlated(seed)
    axes = Axes.of(moment).damped(0.05)
    square = moment * (1 + 0.05 * np.eye(moment.shape[1]))
    sparse = alternate(weight, axes, largest_mask, sparsity=0.5)
    least, whole = best(weight, square, sparse.mask), error(weight, 0 * weight, square)
    assert error(weight, sparse.weight, square) - error(weight, least, square) < 0.01 * whole


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), groups=st.integers(1, 2))
def test_surgeon_is_optimal_for_its_mask_given_the_order_of_columns(seed, groups):
    """One column after the other goes; each time those behind are solved anew, as the published algorithm does."""
    weight, moment = correlated(seed, groups)
    sparse = surgeon(weight, moment, largest_mask, sparsity=0.5, width=4, damping=0.01)
    square, share = damped(moment, 0.01), len(weight) // groups
    for row in range(len(weight)):
        own, now = square[row // share], weight[row].copy()
        for column in range(weight.shape[1]):
            if not sparse.mask[row, column]:
                behind = np.arange(column + 1, weight.shape[1])
                if len(behind):
                    now[behind] += np.linalg.solve(own[np.ix_(behind, behind)], own[behind, column] * now[column])
                now[column] = 0
        np.testing.assert_allclose(sparse.weight[row], now, rtol=1e-6, atol=1e-8)  # of two ways to solve


@both
def test_uncorrelated_inputs_lose_the_weights_of_least_saliency_and_keep_the_others_as_they_were(method):
    weight, _ = correlated(0)
    moment = np.diag(np.linspace(1, 5, 16))[np.newaxis]
    sparse = METHODS[method](weight, moment, largest_mask, 0.5)
    if method == "alternate":  # the mask of the other is chosen a few columns at a time
        np.testing.assert_array_equal(sparse.mask, largest_mask(weight**2 * np.diag(moment[0]), 0.5))
    np.testing.assert_allclose(
        sparse.weight[sparse.mask], weight[sparse.mask], rtol=0.02, atol=0
    )  # stops once the mask settles


@both
def test_a_twin_makes_up_for_what_goes(method):
    """Inputs come in equal pairs, so half of the weights can go: without error, but for damping and order."""
    draw = np.random.default_rng(0)
    weight, rows = draw.standard_normal((4, 8)), draw.standard_normal((50, 4))
    pairs = np.repeat(rows, 2, axis=1)
    moment = (pairs.T @ pairs)[np.newaxis]

    def one_of_two(scores, sparsity):
        return nm_mask(scores, keep=1, group=2, axis=1)

    sparse = METHODS[method](weight, moment, one_of_two, 0.5)
    assert error(weight, sparse.weight, moment) < 0.01 * error(weight, 0 * weight, moment)


@both
def test_inputs_that_are_never_seen_do_no_harm(method):
    weight, moment = correlated(1)
    moment[:, 3], moment[:, :, 3] = 0, 0
    sparse = METHODS[method](weight, moment, largest_mask, 0.5)
    assert np.isfinite(sparse.weight).all()
    silent = METHODS[method](weight, 0 * moment, largest_mask, 0.5)
    assert np.isfinite(silent.weight).all()


def test_nothing_goes_without_sparsity():
    weight, moment = correlated(2)
    for method in METHODS.values():
        sparse = method(weight, moment, largest_mask, 0.0)
        assert sparse.mask.all()
        np.testing.assert_allclose(sparse.weight, weight, rtol=1e-3, atol=1e-3)  # float32


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), groups=st.integers(1, 3), damping=st.sampled_from([0.0, 0.1, 1.0]))
def test_axes_solve_the_damped_system(seed, groups, damping):
    weight, moment = correlated(seed, groups)
    axes = Axes.of(moment, damping=0.01).damped(damping)
    square = damped(moment, 0.01)
    np.einsum("gkk->gk", square)[:] *= 1 + damping
    right = weight.reshape(groups, -1, 16)
    left = axes.solve(right) @ square - right
    assert np.abs(left).max() < 1e-2 * np.abs(right).max()  # float32, of a condition up to thousands


@both
@pytest.mark.parametrize("shape", [(16, 16), (1, 15, 15), (3, 16, 16)])
def test_refuses_shapes_that_do_not_fit(method, shape):
    weight, _ = correlated(0)
    with pytest.raises(ValueError, match=r"do not fit|are \[groups"):
        METHODS[method](weight, np.broadcast_to(np.eye(shape[-1]), shape), largest_mask, 0.5)


@both
@pytest.mark.parametrize("where", ["weight", "moment"])
def test_refuses_what_is_no_number(method, where):
    weight, moment = correlated(0)
    (weight if where == "weight" else moment)[..., 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        METHODS[method](weight, moment, largest_mask, 0.5)


def test_surgeon_refuses_a_moment_with_negative_directions():
    weight, moment = correlated(0)
    with pytest.raises(ValueError, match="negative directions"):
        surgeon(weight, moment - 1e9 * np.ones_like(moment), largest_mask, sparsity=0.5)
