import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels import arrays as arrays_module
from onnxpress.passes.kernels import pruning
from onnxpress.passes.kernels.pruning import (
    apply_mask,
    magnitude_threshold,
    nm_mask,
    threshold_mask,
    zero_below,
)

modest = settings(deadline=None, derandomize=True, max_examples=60)
dtypes = st.sampled_from([np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
seeds = st.integers(0, 10_000)
sparsities = st.floats(0, 1)


def weight_of(seed, shape, dtype=np.float32, *, levels=None):
    rng = np.random.default_rng(seed)
    plain = rng.standard_normal(shape) if levels is None else rng.integers(-levels, levels + 1, shape)
    return plain.astype(dtype)


def zero_smallest(weight, sparsity):
    threshold = magnitude_threshold([weight], sparsity)
    return zero_below(weight, threshold.value, ties=threshold.ties)


def largest(scores, sparsity):
    threshold = magnitude_threshold([scores], sparsity)
    return threshold_mask(scores, threshold.value, ties=threshold.ties)


@modest
@given(seed=seeds, count=st.integers(0, 300), dtype=dtypes, sparsity=sparsities, levels=st.sampled_from([None, 2, 20]))
def test_zeroes_exactly_the_asked_count_whatever_the_ties(seed, count, dtype, sparsity, levels):
    weight = weight_of(seed, count, dtype, levels=levels)
    before = int((weight == 0).sum())
    pruned = zero_smallest(weight, sparsity)
    assert pruned.already == before
    assert pruned.zeros == int((pruned.weight == 0).sum()) == max(before, round(sparsity * count))
    assert pruned.weight.dtype == weight.dtype


@modest
@given(seed=seeds, sizes=st.lists(st.integers(0, 200), min_size=1, max_size=4), sparsity=sparsities)
def test_global_threshold_is_the_order_statistic_of_all_weights(seed, sizes, sparsity):
    kinds = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
    many = [weight_of(seed + i, size, kinds[(seed + i) % 4]) for i, size in enumerate(sizes)]
    together = np.sort(np.abs(np.concatenate([each.astype(np.float64) for each in many])))
    threshold = magnitude_threshold(many, sparsity)
    if threshold.count:
        assert threshold.value == together[threshold.count - 1]
        assert int((together < threshold.value).sum()) + threshold.ties == threshold.count


def test_global_pruning_spends_ties_in_order():
    many = [np.ones(3, np.float32), np.ones(4, np.float32)]
    threshold = magnitude_threshold(many, 5 / 7)
    first = zero_below(many[0], threshold.value, ties=threshold.ties)
    second = zero_below(many[1], threshold.value, ties=threshold.ties - first.tied)
    np.testing.assert_array_equal(np.concatenate([first.weight, second.weight]), [0, 0, 0, 0, 0, 1, 1])


def test_selection_spans_pieces(monkeypatch):
    monkeypatch.setattr(arrays_module.pieces, "__kwdefaults__", {"size": 7})
    weight = weight_of(3, (10, 11))
    assert zero_smallest(weight, 0.5).zeros == 55
    assert int((~largest(weight, 0.3)).sum()) == 33


@modest
@given(seed=seeds, sparsity=sparsities)
def test_pruning_twice_changes_nothing(seed, sparsity):
    once = zero_smallest(weight_of(seed, (7, 9)), sparsity)
    twice = zero_smallest(once.weight, sparsity)
    np.testing.assert_array_equal(once.weight, twice.weight)
    assert twice.already == twice.zeros == once.zeros


@modest
@given(seed=seeds, dtype=dtypes, threshold=st.floats(0, 3))
def test_zero_below_keeps_the_bits_of_everything_else(seed, dtype, threshold):
    weight = weight_of(seed, (5, 8), dtype)
    weight[0, 0], weight[1, 1] = -0.0, np.nan
    copy = weight.copy()
    pruned = zero_below(weight, threshold).weight
    gone = (np.abs(copy.astype(np.float64)) < threshold) & (copy != 0)
    unsigned = f"u{weight.dtype.itemsize}"
    np.testing.assert_array_equal(pruned[~gone].view(unsigned), copy[~gone].view(unsigned))
    np.testing.assert_array_equal(weight.view(unsigned), copy.view(unsigned))
    assert (pruned[gone] == 0).all()


def test_reads_a_read_only_memory_map_in_any_order(tmp_path):
    np.save(tmp_path / "w.npy", weight_of(0, (40, 50)))
    mapped = np.load(tmp_path / "w.npy", mmap_mode="r")
    straight, turned = zero_smallest(mapped, 0.5), zero_smallest(mapped.T, 0.5)
    np.testing.assert_array_equal(straight.weight, turned.weight.T)


def test_threshold_mask_agrees_with_zero_below():
    weight = weight_of(1, (6, 6), levels=3)
    kept = threshold_mask(weight, 2.0, ties=4)
    np.testing.assert_array_equal(apply_mask(weight, kept).weight, zero_below(weight, 2.0, ties=4).weight)


@modest
@given(
    seed=seeds,
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    group=st.integers(1, 6),
    levels=st.sampled_from([None, 1]),
)
def test_no_group_holds_more_than_it_may_and_the_largest_stay(seed, shape, group, levels):
    scores = np.abs(weight_of(seed, shape, levels=levels))
    keep, axis = seed % group + 1, seed % len(shape)
    kept = np.moveaxis(nm_mask(scores, keep=keep, group=group, axis=axis), axis, -1)
    ordered = np.moveaxis(scores, axis, -1)
    for start in range(0, shape[axis], group):
        part, chosen = ordered[..., start : start + group], kept[..., start : start + group]
        assert (chosen.sum(-1) == min(keep, part.shape[-1])).all()
        weakest = np.where(chosen, part, np.inf).min(-1, keepdims=True)
        assert (part[~chosen] <= np.broadcast_to(weakest, part.shape)[~chosen]).all()


@modest
@given(seed=seeds, group=st.integers(1, 17), levels=st.sampled_from([None, 3]))
def test_groups_keep_the_same_however_large_they_are_sorted(seed, group, levels):
    scores = np.abs(weight_of(seed, (5, 41), levels=levels))
    found = nm_mask(scores, keep=seed % group + 1, group=group, axis=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning, "_SMALL", 0)  # all are sorted
        np.testing.assert_array_equal(nm_mask(scores, keep=seed % group + 1, group=group, axis=1), found)


def test_in_groups_what_is_no_number_stays():
    scores = np.array([1.0, np.nan, 3.0, 2.0, 1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(nm_mask(scores, keep=2, group=4, axis=0), [0, 1, 1, 0, 0, 0, 1, 1])


def test_groups_are_cut_alike_in_small_tiles(monkeypatch):
    scores = weight_of(5, (6, 22, 3))
    whole = nm_mask(scores, keep=2, group=4, axis=1)
    monkeypatch.setattr(pruning, "PIECE", 16)
    np.testing.assert_array_equal(nm_mask(scores, keep=2, group=4, axis=1), whole)


def test_among_equal_scores_the_first_go():
    np.testing.assert_array_equal(nm_mask(np.ones(4), keep=1, group=4, axis=0), [False, False, False, True])
    np.testing.assert_array_equal(largest(np.ones(4), 0.5), [False, False, True, True])


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda w: zero_smallest(w, 1.5), "sparsity must lie"),
        (lambda w: magnitude_threshold(iter([w]), 0.5), "more than once"),
        (lambda w: zero_smallest(np.full(4, np.nan), 0.5), "fewer than that are numbers"),
        (lambda w: zero_below(w, -1.0), "threshold must be"),
        (lambda w: zero_below(w, float("nan")), "threshold must be"),
        (lambda w: nm_mask(w, keep=5, group=4, axis=0), "keep must lie"),
        (lambda w: nm_mask(w, keep=0, group=4, axis=0), "keep must lie"),
        (lambda w: nm_mask(w, keep=2, group=4, axis=2), "axis 2 does not exist"),
        (lambda w: apply_mask(w, np.ones(3, bool)), "does not fit"),
    ],
)
def test_refuses(call, reason):
    with pytest.raises(ValueError, match=reason):
        call(np.ones((4, 4)))
