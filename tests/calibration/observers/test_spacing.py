"""Which entries stand for all."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.calibration.observers.spacing import Spacing, channel_of, clear_step, known_sizes
from onnxpress.rewriter.errors import ConfigError


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.integers(1, 60), max_size=4), st.integers(1, 500))
def test_every_position_of_every_axis_is_seen_alike(shape, entries):
    step = Spacing(entries).step(shape)
    size = math.prod(shape)
    assert len(Spacing(entries).take(np.zeros(shape))) <= max(entries, 1)
    assert step == 1 or all(math.gcd(step, axis) == 1 for axis in shape[1:])
    assert (step == 1) == (size < entries)
    for axis in range(len(shape)):
        found = channel_of(shape, axis, step=step, count=-(-size // step))
        expected = np.unravel_index(np.arange(size)[::step], shape)[axis]
        np.testing.assert_array_equal(found, expected)


def test_rows_of_a_round_length_show_all_their_channels():
    shape = (128, 384)
    assert shape[0] * shape[1] // 8192 == 6  # every sixth would show 64 channels, always the same
    step = Spacing(8192).step(shape)
    assert len(np.unique(channel_of(shape, 1, step=step, count=shape[0] * shape[1] // step))) == 384


def test_steps_are_prime_where_sizes_are_unknown():
    assert [clear_step(least, frozenset({13}), prime=True) for least in (0, 1, 11, 12, 13, 20)] == [
        1,
        11,
        17,
        17,
        17,
        23,
    ]
    assert clear_step(6, frozenset({384})) == 7
    assert known_sizes(("n", 3, None)) == (frozenset({3}), False)
    assert known_sizes(("n", 2, 3)) == (frozenset({2, 3}), True)
    assert known_sizes(None) == (frozenset(), False)


def test_refuses_no_entries():
    with pytest.raises(ConfigError, match="0 entries"):
        Spacing(0)
