import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxpress.passes.kernels.arrays import PIECE
from onnxpress.passes.kernels.narrow import loss, narrow, narrowed
from onnxpress.passes.narrow.formats import BFLOAT16, FLOAT16, FORMATS

arrays = hnp.arrays(
    np.float32,
    hnp.array_shapes(max_dims=3, max_side=6),
    elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False),
)


@pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)
@given(array=arrays)
def test_numbers_with_all_their_digits_keep_them_within_the_rounding(kind, array):
    rounded = narrow(array, kind).astype(np.float64)
    whole = (np.abs(array) >= kind.normal) & (np.abs(array) <= kind.largest)
    wide = array.astype(np.float64)[whole]
    assert (np.abs(rounded[whole] - wide) <= kind.rounding * np.abs(wide)).all()


@pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)
@given(array=arrays)
def test_rounding_twice_is_rounding_once(kind, array):
    once = narrow(array, kind)
    assert np.array_equal(narrow(once.astype(np.float32), kind), once)


@pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)
@given(array=arrays)
def test_clipped_numbers_stay_finite(kind, array):
    assert np.isfinite(narrow(array, kind, clip=True).astype(np.float32)).all()


@given(array=arrays)
def test_the_loss_counts_what_is_lost(array):
    found, rounded = loss(array, FLOAT16), narrow(array, FLOAT16).astype(np.float64)
    assert found.size == array.size
    assert found.beyond == np.count_nonzero(np.isinf(rounded))
    assert found.vanished == np.count_nonzero((rounded == 0) & (array != 0))
    kept = np.isfinite(rounded)
    norm = np.linalg.norm(array[kept].astype(np.float64))
    error = np.linalg.norm(array[kept] - rounded[kept])
    assert found.error == pytest.approx(error / norm if norm else 0.0, rel=1e-9, abs=1e-12)  # sums in another order


def test_nan_and_infinities_stay_what_they_are():
    array = np.array([np.nan, np.inf, -np.inf, 1e6], np.float32)
    for clip in (False, True):
        given_back = narrow(array, FLOAT16, clip=clip)
        assert np.isnan(given_back[0])
        assert given_back[1:3].tolist() == [np.inf, -np.inf]
    assert given_back[3] == 65504
    assert loss(array, FLOAT16).beyond == 1


def test_pieces_are_the_whole_in_order():
    array = np.random.default_rng(0).standard_normal((3, PIECE // 2)).astype(np.float32).T
    pieces = list(narrowed(array, BFLOAT16))
    assert len(pieces) == 2
    assert pieces[0].dtype == ml_dtypes.bfloat16
    assert np.array_equal(np.concatenate(pieces), narrow(array, BFLOAT16).reshape(-1))


def test_empty_arrays_and_single_numbers_have_a_loss():
    assert loss(np.zeros((0, 3), np.float32), FLOAT16).error == 0.0
    assert loss(np.float32(0.1).reshape(()), FLOAT16).error == pytest.approx(2.4e-4, rel=0.1)
