from itertools import pairwise, product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.intervals import best_cuts, best_of

modest = settings(deadline=None, derandomize=True, max_examples=40)


def test_many_rows_are_cut_as_each_alone():
    rng = np.random.default_rng(0)
    held = [rng.random(size) + 0.1 for size in (9, 33, 20)]
    value = [np.sort(rng.standard_normal(mass.size)) for mass in held]
    moved = [mass * each for mass, each in zip(held, value, strict=True)]
    together = best_cuts(held, moved, 4)
    for mass, moment, cut in zip(held, moved, together, strict=True):
        np.testing.assert_array_equal(best_cuts([mass], [moment], 4)[0], cut)


def test_wide_tables_are_searched_as_narrow_ones():
    # of so many groups each level is halved, of few it is cut in eight
    value = np.repeat(np.sort(np.random.default_rng(1).standard_normal(700)), 4)
    wide = best_cuts([np.ones(2800)], [value], 5)[0]
    narrow = best_cuts([np.full(700, 4.0)], [4 * value[::4]], 5)[0]
    np.testing.assert_array_equal(wide, 4 * narrow)


@modest
@given(seed=st.integers(0, 10_000), cuts=st.integers(2, 4))
def test_chooses_the_places_that_are_best_together(seed, cuts):
    rng = np.random.default_rng(seed)
    value = np.sort(rng.standard_normal(12))
    places = rng.integers(0, 13, (cuts + 1, 3))
    places[0], places[-1] = 0, 12
    mass, moment = places.astype(float), np.concatenate([[0], np.cumsum(value)])[places]

    def gain(chosen):
        at = places[np.arange(cuts + 1), chosen]
        if (np.diff(at) < 0).any():
            return -np.inf
        return sum(value[a:b].sum() ** 2 / (b - a) for a, b in pairwise(at) if b > a)

    best = max(gain(np.array(each)) for each in product(range(3), repeat=cuts + 1))
    if np.isfinite(best):
        chosen, most = best_of(mass, moment)
        np.testing.assert_allclose([gain(chosen), most], best, rtol=1e-12, atol=1e-12)
