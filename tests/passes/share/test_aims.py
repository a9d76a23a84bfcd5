"""Codes fitted to the outputs of a layer, apart from any model."""

import numpy as np
import pytest

from onnxpress.passes.equations import Pair
from onnxpress.passes.kernels.least_squares import error
from onnxpress.passes.kernels.normal import Normal
from onnxpress.passes.kernels.vectors import cluster
from onnxpress.passes.selection import RefusalError
from onnxpress.passes.share.aims import learn, rounded


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.fixture
def rows():
    return normal(0, 24, 32)


def seen(rows, seed, *, offset=0.0):
    """What a layer reads that depends on few causes, and gives."""
    x = normal(seed, 1, 400, 8) @ normal(9, 8, 32) + 0.1 * normal(seed + 1, 1, 400, 32) + 0.5
    return Normal.of(x, x @ rows.T + offset)


def clustered(rows):
    return lambda metric: cluster(rows, length=4, count=8, metric=metric)


@pytest.mark.parametrize("bias", [True, False])
def test_is_better_on_samples_held_out(rows, bias):
    pair = Pair(seen(rows, 1), seen(rows, 3))
    learnt = learn(pair, rows, clustered(rows), dtype=np.dtype(np.float32), bias=bias)
    assert learnt.after < 0.8 * learnt.before
    assert learnt.account == f"output error {learnt.before:.2%} -> {learnt.after:.2%} on samples held out"
    assert (learnt.shift is not None) == bias
    whole = error(pair.held_out, learnt.code.decode(), learnt.shift)
    assert whole < 0.8 * learnt.before
    assert (learnt.code.books == learnt.code.books.astype(np.float32)).all()


def test_the_bias_takes_what_all_outputs_are_off_by(rows):
    pair = Pair(seen(rows, 1, offset=100.0), seen(rows, 3, offset=100.0))
    learnt = learn(pair, rows, clustered(rows), dtype=np.dtype(np.float32), bias=True)
    np.testing.assert_allclose(learnt.shift, 100, atol=10)  # apart from what the weights are off


def test_what_teaches_noise_is_not_taken(rows):
    x = normal(1, 1, 40, 32)
    noisy = Normal.of(x, x @ rows.T + 20 * normal(2, 1, 40, 24))
    pair = Pair(noisy, seen(rows, 3))
    learnt = learn(pair, rows, clustered(rows), dtype=np.dtype(np.float32), bias=False)
    assert learnt.after > learnt.before
    assert learnt.account == f"output error {learnt.before:.2%} on samples held out, not corrected"
    assert learnt.shift is None
    # but for codebooks rounded to float32
    assert error(pair.held_out, learnt.code.decode()) == pytest.approx(learnt.before, rel=1e-5)


def test_codebooks_must_fit_the_type(rows):
    with pytest.raises(RefusalError, match="the new codebook does not fit into float16"):
        rounded(cluster(1e6 * rows, length=4, count=8), np.dtype(np.float16))
