"""Which factor of a product loses units."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.rewriter.couplings.folds import choose_parts, coordinates
from onnxpress.rewriter.couplings.ledger import Fold


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_coordinates_are_those_of_the_array(sizes, data):
    part = data.draw(st.integers(0, len(sizes) - 1))
    expected = np.indices(sizes)[part].reshape(-1)
    np.testing.assert_array_equal(coordinates(sizes, part), expected)


def choose(folds, sizes, *, same=None, frozen=()):
    made = [Fold(whole, parts, tuple(sizes[p] if p is not None else 2 for p in parts), "") for whole, parts in folds]
    return choose_parts(made, list(same or range(len(sizes))), sizes, lambda place: place not in frozen)


def test_takes_the_outermost():
    assert choose([(0, (1, 2))], [12, 3, 4]) == [0]


def test_takes_the_next_where_the_outermost_is_frozen():
    assert choose([(0, (1, 2, 3))], [24, 3, 2, 4], frozen={1}) == [1]


def test_takes_the_largest_where_the_order_is_turned():
    # [8] -> [2, 4], turned to [4, 2] -> [8]: a channel shuffle
    assert choose([(0, (1, 2)), (3, (4, 5))], [8, 2, 4, 8, 4, 2], same=[0, 1, 2, 3, 2, 1]) == [1, 0]


def test_takes_the_same_class_in_all_folds():
    folds, sizes = [(0, (1, 2)), (3, (4, 5)), (6, (7, 8))], [12, 3, 4, 12, 3, 4, 12, 3, 4]
    assert choose(folds, sizes, same=[0, 1, 2, 3, 1, 2, 6, 1, 8]) == [0, 0, 0]


@pytest.mark.parametrize("frozen", [{0}, {1, 2}])
def test_takes_none_where_nothing_can_go(frozen):
    assert choose([(0, (1, 2))], [12, 3, 4], frozen=frozen) == [None]


def test_a_factor_that_stays_keeps_its_own_factors():
    # [12] -> [3, 4] along 3, so the 4 stays, and [4] -> [2, 2] has nothing to lose
    assert choose([(0, (1, 2)), (3, (4, 5))], [12, 3, 4, 4, 2, 2], same=[0, 1, 2, 2, 4, 5]) == [0, None]


def test_a_factor_that_is_no_axis_is_never_taken():
    assert choose([(0, (None, 1))], [8, 4]) == [1]
    assert choose([(0, (None, 1))], [8, 4], frozen={1}) == [None]
