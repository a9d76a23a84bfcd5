import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.nearest import assign

modest = settings(deadline=None, derandomize=True, max_examples=60)
seeds = st.integers(0, 10_000)


@modest
@given(
    seed=seeds,
    clusters=st.integers(1, 300),
    dtype=st.sampled_from([np.float16, ml_dtypes.bfloat16, np.float32, np.float64]),
    power=st.sampled_from([1, 9]),  # with the ninth power most borders lie in one bin of the table
)
def test_every_value_goes_to_its_nearest_centroid(seed, clusters, dtype, power):
    rng = np.random.default_rng(seed)
    kind = np.float64 if dtype is np.float64 else np.float32
    centroids = np.unique((rng.standard_normal(clusters) ** power).astype(kind))
    values = (rng.uniform(-3, 3, 400) ** power).astype(dtype)
    distance = np.abs(values.astype(np.float64)[:, None] - centroids.astype(np.float64))
    chosen = np.take_along_axis(distance, assign(values, centroids).astype(int)[:, None], 1)[:, 0]
    np.testing.assert_array_equal(chosen, distance.min(1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_neighbouring_floats_are_told_apart(dtype):
    values = np.array([np.nextafter(dtype(1), dtype(0)), 1, np.nextafter(dtype(1), dtype(2))], dtype)
    np.testing.assert_array_equal(assign(values, values), [0, 1, 2])
    tiny = np.array([-np.finfo(dtype).smallest_subnormal, 0, np.finfo(dtype).smallest_subnormal], dtype)
    np.testing.assert_array_equal(assign(tiny, tiny), [0, 1, 2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [0.0, 1.0, np.inf])
def test_many_centroids_anywhere_in_the_range_of_the_type_are_told_apart(dtype, scale):
    # subnormal neighbours, floats next to one, and the widest range there is
    limits = np.finfo(dtype)
    centroids = {
        0.0: np.arange(40, dtype=dtype) * limits.smallest_subnormal,
        1.0: 1 + np.arange(40, dtype=dtype) * limits.eps,
        np.inf: np.linspace(-1, 1, 40).astype(dtype) * limits.max,
    }[scale]
    values = np.tile(centroids, 3)
    np.testing.assert_array_equal(assign(values, centroids), np.tile(np.arange(40), 3))
