"""Which axes of two shapes of the same elements correspond."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.rewriter.couplings.rules.alignment import Block, align, steps


@pytest.mark.parametrize(
    ("old", "new", "blocks"),
    [
        (("b", "t", 12), ("b", "t", 3, 4), [((0,), (0,)), ((1,), (1,)), ((2,), (2, 3))]),
        (("b", 6, "h", "w"), ("b", 6, "hw"), [((0,), (0,)), ((1,), (1,)), ((2, 3), (2,), False)]),
        (("n", 5, 4, 4), ("n", 80), [((0,), (0,)), ((1, 2, 3), (1,))]),
        (("b", "t", 12), ("x", 3, 4), [((0, 1), (0,), False), ((2,), (1, 2))]),
        ((8, 3), (2, 12), [((0, 1), (0, 1))]),
        ((7, 1, 2), (1, 7, 2, 1), [((0,), (1,)), ((2,), (2,))]),
        (("b", 4, "t"), ("bt", 4), [((0, 1, 2), (0, 1), False)]),
        ((2, 6), (2, 2, 3), [((0,), (0,)), ((1,), (1, 2))]),
    ],
)
def test_aligns_axes_in_blocks_of_equal_product(old, new, blocks):
    expected = [Block(o, n, exact=not rest) for o, n, *rest in blocks]
    assert align(old, new) == expected


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.data())
def test_blocks_hold_equally_many_elements_and_leave_none_out(sizes, data):
    cuts = sorted(data.draw(st.sets(st.integers(1, len(sizes)), max_size=3)))
    merged = [int(np.prod(part)) for part in np.split(np.array(sizes), cuts)]
    blocks = align(sizes, merged)
    assert all(block.exact for block in blocks)
    for block in blocks:
        assert np.prod([sizes[a] for a in block.old]) == np.prod([merged[a] for a in block.new])
    assert sorted(a for block in blocks for a in block.old) == [a for a, size in enumerate(sizes) if size != 1]
    assert sorted(a for block in blocks for a in block.new) == [a for a, size in enumerate(merged) if size != 1]


def test_steps_count_the_elements_of_the_axes_behind():
    assert steps([2, 3, 4]) == [12, 4, 1]
