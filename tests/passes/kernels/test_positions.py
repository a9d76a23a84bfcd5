import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.lattices import lattices
from onnxpress.passes.kernels.positions import (
    Taps,
    best_lattice,
    capped,
    column_path,
    shared_path,
    smallest_lattice,
)

modest = settings(deadline=None, derandomize=True, max_examples=30)
seeds = st.integers(0, 10_000)
DAMPING = 0.01


def taps_of(seed, *, moment=True, shape=None):
    rng = np.random.default_rng(seed)
    groups, rows, channels, positions = shape or (rng.integers(1, 4), rng.integers(1, 4), rng.integers(1, 4), 6)
    weight = rng.standard_normal((groups, rows, channels, positions))
    k = channels * positions
    mix = rng.standard_normal((groups, k, k))
    rows_seen = rng.standard_normal((groups, 200, k)) @ mix
    return Taps(weight, rows_seen.transpose(0, 2, 1) @ rows_seen / 200 if moment else None)


def least_error(taps, kept):
    """Relative error of the outputs of the damped least squares on kept columns, written down anew."""
    rows = taps.weight.shape[1]
    lost = energy = 0.0
    for weight, moment, mask in zip(taps.weight, taps.moment, kept, strict=True):
        matrix, inside = weight.reshape(rows, -1), mask.reshape(-1)
        damped = moment + DAMPING * np.trace(moment) / len(moment) * np.eye(len(moment))
        energy += np.trace(matrix @ moment @ matrix.T)
        cross = matrix @ damped[:, inside]
        fitted = np.linalg.solve(damped[np.ix_(inside, inside)], cross.T)
        lost += np.trace(matrix @ damped @ matrix.T) - np.trace(cross @ fitted)
    return np.sqrt(max(0, lost) / energy)


@modest
@given(seed=seeds)
def test_errors_of_shared_positions_are_those_of_least_squares(seed):
    taps = taps_of(seed)
    path = shared_path(taps)
    assert sorted(path.order.tolist()) == sorted(set(path.order.tolist()))
    assert len(path.order) == taps.positions - 1
    for count in range(taps.positions):
        kept = taps.kept(path.order[:count], per_channel=False)
        # differences of sums of about 1e3
        np.testing.assert_allclose(path.errors[count], least_error(taps, kept), rtol=1e-6, atol=1e-6)


@modest
@given(seed=seeds)
def test_each_step_drops_the_position_that_costs_least(seed):
    taps = taps_of(seed)
    path = shared_path(taps)
    gone: list[int] = []
    for count, chosen in enumerate(path.order.tolist()):
        left = [each for each in range(taps.positions) if each not in gone]
        errors = [least_error(taps, taps.kept(np.array([*gone, each]), per_channel=False)) for each in left]
        assert path.errors[count + 1] <= min(errors) * (1 + 1e-6) + 1e-9
        gone.append(chosen)


@modest
@given(seed=seeds)
def test_errors_of_single_columns_are_those_of_least_squares(seed):
    taps = taps_of(seed, shape=(1, 3, 3, 6))
    path = column_path(taps, most=12)
    for count in (1, 5, 12):
        kept = taps.kept(path.order[:count], per_channel=True)
        np.testing.assert_allclose(path.errors[count], least_error(taps, kept), rtol=1e-6, atol=1e-6)


@modest
@given(seed=seeds, moment=st.booleans(), most=st.integers(1, 12))
def test_columns_of_all_groups_go_by_what_the_next_costs(seed, moment, most):
    taps = taps_of(seed, moment=moment, shape=(4, 2, 1, 6))
    path = column_path(taps, most=most)
    assert len(path.order) == most == len(set(path.order.tolist()))
    assert (np.diff(path.errors) >= 0).all()


@modest
@given(seed=seeds)
def test_without_moments_the_smallest_go_and_the_error_is_that_of_the_weight(seed):
    taps = taps_of(seed, moment=False)
    for path, per_channel in ((shared_path(taps), False), (column_path(taps, most=5), True)):
        kept = taps.kept(path.order[:3], per_channel=per_channel)
        pruned = taps.weight * kept[:, np.newaxis]
        error = np.linalg.norm(taps.weight - pruned) / np.linalg.norm(taps.weight)
        np.testing.assert_allclose(path.errors[3], error, rtol=1e-9, atol=0)
        assert (np.diff(path.errors) >= 0).all()
    energies = np.square(taps.weight).sum(axis=(0, 1, 2))
    np.testing.assert_array_equal(shared_path(taps).order, np.argsort(energies)[:-1])


@pytest.mark.parametrize("moment", [True, False])
def test_what_is_zero_already_goes_first_and_costs_nothing(moment):
    taps = taps_of(7, moment=moment)
    taps.weight[..., [1, 4]] = 0
    path = shared_path(taps)
    assert sorted(path.order[:2].tolist()) == [1, 4]
    assert path.within(0.0) == 2
    columns = column_path(taps, most=taps.weight[0, 0].size)
    assert columns.within(1e-9) >= 2 * taps.weight.shape[2]


def test_within_counts_what_the_error_allows():
    path = shared_path(taps_of(1))
    for count, error in enumerate(path.errors):
        assert path.within(error) == count
        assert path.within(error * 1.01 + 1e-6) == count


@modest
@given(seed=seeds, positions=st.integers(1, 9), channels=st.integers(1, 5))
def test_each_channel_keeps_as_many_positions_and_loses_those_that_come_first(seed, positions, channels):
    order = np.random.default_rng(seed).permutation(positions * channels)
    keep = 1 + seed % positions
    dropped = set(capped(order, positions, keep, channels).tolist())
    rank = np.argsort(order).reshape(channels, positions)
    for channel in range(channels):
        gone = {unit % positions for unit in dropped if unit // positions == channel}
        assert len(gone) == positions - keep
        assert gone == set(np.argsort(rank[channel])[: positions - keep].tolist())


@modest
@given(seed=seeds, moment=st.booleans(), keep=st.integers(1, 6))
def test_the_best_lattice_loses_least_of_its_size(seed, moment, keep):
    taps = taps_of(seed, moment=moment)
    found, error = best_lattice(taps, (2, 3), keep=keep)
    alike = [each for each in lattices((2, 3)) if each.size == found.size]
    assert found.size == max(each.size for each in lattices((2, 3)) if each.size <= keep)
    for each in alike:
        mask = each.mask((2, 3)).reshape(-1)
        if moment:
            other = least_error(taps, np.broadcast_to(mask, (len(taps.weight), taps.weight.shape[2], 6)))
        else:
            other = np.linalg.norm(taps.weight[..., ~mask]) / np.linalg.norm(taps.weight)
        assert error <= other * (1 + 1e-6) + 1e-6


@modest
@given(seed=seeds, moment=st.booleans(), limit=st.floats(0, 1))
def test_the_smallest_lattice_within_a_limit(seed, moment, limit):
    taps = taps_of(seed, moment=moment)
    found, error = smallest_lattice(taps, (2, 3), limit=limit)
    assert error <= limit or found.size == 6
    for size in range(1, found.size):
        if any(each.size == size for each in lattices((2, 3))):
            chosen, other = best_lattice(taps, (2, 3), keep=size)
            assert other > limit or chosen.size != size


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: Taps(np.ones((1, 2, 3, 4)), np.ones((1, 5, 5))), "do not fit"),
        (lambda: Taps(np.full((1, 2, 3, 4), np.nan)), "not finite"),
        (lambda: Taps(np.ones((1, 1, 1, 2)), np.full((1, 2, 2), np.inf)), "not finite"),
    ],
)
def test_refuses(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()
