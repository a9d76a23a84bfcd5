from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.clusters import Line, groups_of, lloyd, refined
from onnxpress.passes.kernels.points import Points, distinct_points, ordered_points

modest = settings(deadline=None, derandomize=True, max_examples=40)


def lost(points, cuts):
    """Σ mass·(value − mean)² of the clusters between cuts."""
    mass = np.ones(points.value.size) if points.mass is None else points.mass
    total = 0.0
    for first, last in pairwise(cuts):
        if last > first:
            value, held = points.value[first:last].astype(float), mass[first:last]
            total += float((held * (value - np.average(value, weights=held)) ** 2).sum())
    return total


@modest
@given(seed=st.integers(0, 10_000), count=st.integers(2, 600), tail=st.floats(1, 9), repeats=st.booleans())
def test_groups_are_no_more_than_asked_for_and_part_no_equal_points(seed, count, tail, repeats):
    rng = np.random.default_rng(seed)
    values = rng.standard_t(tail, 5000).astype(np.float32)
    if repeats:
        values[: rng.integers(1, 400)] = values[0]
    points = ordered_points(values)
    edges = groups_of(points, count)
    assert edges[0] == 0
    assert edges[-1] == points.value.size
    assert (np.diff(edges) > 0).all()
    assert edges.size - 1 <= count
    inner = edges[1:-1]
    assert (points.value[inner] > points.value[inner - 1]).all()


def test_what_lies_alone_is_a_group_of_its_own():
    crowd = np.sort(np.random.default_rng(0).standard_normal(9000))
    edges = groups_of(Points(np.concatenate([crowd, [1e6, 2e6]]), np.ones(9002)), 100)
    np.testing.assert_array_equal(edges[-3:], [9000, 9001, 9002])
    assert edges.size > 50


@modest
@given(seed=st.integers(0, 10_000), count=st.integers(2, 20), weighted=st.booleans())
def test_refined_cuts_are_no_worse_and_no_step_of_one_is_better(seed, count, weighted):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(500)
    points = distinct_points(values, weights=rng.random(500) if weighted else None)
    line = Line.of(points, keep_zero=False)
    cuts = np.concatenate([[0], np.sort(rng.choice(np.arange(1, 500), count - 1, replace=False)), [500]])
    found = refined(line, cuts, np.full(cuts.size, 40))
    least = lost(points, found)
    assert least <= lost(points, cuts) * (1 + 1e-12)
    assert least <= lost(points, lloyd(line, found)) * (1 + 1e-12)
    for index in range(1, count):
        for step in (-1, 1):
            moved = found.copy()
            moved[index] += step
            if moved[index - 1] <= moved[index] <= moved[index + 1]:
                assert least <= lost(points, moved) * (1 + 1e-9)


@pytest.mark.parametrize("masses", [None, np.ones(5)])
def test_the_cluster_of_a_zero_that_stays_has_its_centroid_there(masses):
    line = Line.of(Points(np.array([-2.0, -0.5, 0.0, 1.0, 4.0]), masses), keep_zero=True)
    np.testing.assert_array_equal(line.centroids(np.array([0, 1, 4, 5])), [-2, 0, 4])
    apart = Line.of(Points(np.array([1.0, 2.0, 4.0]), None), keep_zero=True)
    np.testing.assert_array_equal(apart.centroids(np.array([0, 2, 3])), [1.5, 4])
