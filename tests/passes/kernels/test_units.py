import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels import units
from onnxpress.passes.kernels.pruning import largest_mask
from onnxpress.passes.kernels.units import block_means, block_scores, spread_blocks, unit_threshold

modest = settings(deadline=None, derandomize=True, max_examples=60)
seeds = st.integers(0, 10_000)


def weight_of(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape)


@modest
@given(seed=seeds, rows=st.integers(1, 9), columns=st.integers(1, 9), height=st.integers(1, 4), width=st.integers(1, 4))
def test_block_scores_are_root_mean_squares_and_means_are_means_also_at_the_edge(seed, rows, columns, height, width):
    weight = weight_of(seed, (rows, columns))
    scores = block_scores(weight, block=(height, width))
    means = block_means(np.abs(weight), block=(height, width))
    for i in range(scores.shape[0]):
        for j in range(scores.shape[1]):
            part = weight[i * height : (i + 1) * height, j * width : (j + 1) * width]
            # float64 sums of at most 16 squares
            np.testing.assert_allclose(scores[i, j], np.sqrt(np.mean(part**2)), rtol=1e-12, atol=0)
            np.testing.assert_allclose(means[i, j], np.mean(np.abs(part)), rtol=1e-12, atol=0)


def test_whole_blocks_go():
    weight = weight_of(2, (8, 3, 2, 2))
    weight[:4] *= 0.01
    kept = spread_blocks(largest_mask(block_scores(weight, block=(4, 6)), 0.5), block=(4, 6), shape=weight.shape)
    np.testing.assert_array_equal(kept, np.broadcast_to(np.arange(8)[:, None, None, None] >= 4, kept.shape))


def test_tall_blocks_are_summed_piece_by_piece(monkeypatch):
    weight = weight_of(3, (50, 7))
    whole = block_scores(weight, block=(40, 2))
    monkeypatch.setattr(units, "PIECE", 20)
    # the order of the sums differs
    np.testing.assert_allclose(block_scores(weight, block=(40, 2)), whole, rtol=1e-12, atol=0)


@modest
@given(
    seed=seeds,
    counts=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), min_size=1, max_size=4),
    sparsity=st.floats(0, 1),
)
def test_threshold_of_units_comes_as_near_to_the_fraction_of_weights_as_any(seed, counts, sparsity):
    rng = np.random.default_rng(seed)
    scores = [rng.integers(0, 6, count).astype(np.float32) for count, _ in counts]
    sizes = [size for _, size in counts]
    found = unit_threshold(scores, sizes, sparsity)
    every, weights = np.concatenate(scores), np.repeat(sizes, [count for count, _ in counts])
    order = np.argsort(every, kind="stable")
    reached = np.concatenate([[0], np.cumsum(weights[order])])
    wanted = round(sparsity * weights.sum())
    assert abs(reached[found.count] - wanted) == np.abs(reached - wanted).min()
    assert np.count_nonzero(every < found.value) + found.ties == found.count


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda w: block_scores(w, block=(0, 4)), "block sides"),
        (lambda w: block_scores(w[0], block=(4, 4)), "two dimensions"),
        (lambda w: unit_threshold([w], [3], 1.5), "sparsity must lie"),
        (lambda w: unit_threshold([np.full(4, np.nan)], [3], 0.5), "cannot zero 6 weights"),
    ],
)
def test_refuses(call, reason):
    with pytest.raises(ValueError, match=reason):
        call(np.ones((4, 4)))
