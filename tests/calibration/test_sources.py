"""Readers, functions and iterables as sources of batches."""

import signal
import sys

import numpy as np
import pytest
from onnxruntime.quantization import CalibrationDataReader

from onnxpress.calibration.batches import Sample
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.sources import FunctionSource, reiterable
from onnxpress.rewriter.errors import ConfigError, FeedError


class OneShotReader(CalibrationDataReader):
    def __init__(self, n):
        self.left = iter([{"x": np.array([i])} for i in range(n)])

    def get_next(self):
        return next(self.left, None)


class RewindingReader(OneShotReader):
    def __init__(self, n):
        self.n = n
        super().__init__(n)

    def rewind(self):
        super().__init__(self.n)


def numbers(source):
    return [int(batch["x"][0]) for batch in source]


@pytest.mark.parametrize("reader", [OneShotReader, RewindingReader])
def test_a_reader_is_walked_through_again(reader):
    source = reiterable(reader(3))
    next(iter(source))
    assert numbers(source) == numbers(source) == [0, 1, 2]


def test_a_rewinding_reader_refuses_two_walks_at_once():
    source = reiterable(RewindingReader(3))
    with pytest.raises(FeedError, match="cannot be walked through twice at once"):
        list(zip(source, source, strict=True))


def test_a_feed_gives_its_labels_too():
    feed = Feed([Sample({"x": np.array([1])}, np.array([5]))])
    assert next(iter(reiterable(feed))).labels == 5


def test_a_list_is_taken_as_it_is():
    batches = [{"x": np.array([1])}]
    assert reiterable(batches) is batches


def test_refuses_what_cannot_be_iterated():
    with pytest.raises(FeedError, match="a int is no feed"):
        reiterable(3)


def test_a_function_is_called_for_every_walk():
    calls = []

    def samples():
        calls.append(1)
        yield from ({"x": np.array([i])} for i in range(2))

    source = FunctionSource("mine:samples", samples)
    assert numbers(source) == numbers(source) == [0, 1]
    assert len(calls) == 2


def test_says_where_the_users_function_failed():
    def samples():
        yield {"x": np.array([0])}
        raise KeyError("image")

    with pytest.raises(FeedError, match=r"mine:samples raised KeyError at test_sources.py:\d+: 'image'"):
        list(FunctionSource("mine:samples", samples))


@pytest.fixture
def ends_on_sigterm():
    """As the command line does, SIGTERM becomes SystemExit."""

    def end(number, frame):
        sys.exit(143)

    before = signal.signal(signal.SIGTERM, end)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("ends_on_sigterm")
def test_a_signal_ends_the_program_also_inside_the_users_function():
    def samples():
        yield {"x": np.array([0])}
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as caught:
        list(FunctionSource("mine:samples", samples))
    assert caught.value.code == 143


def test_lets_errors_of_our_own_through():
    def samples():
        raise ConfigError("said already")

    with pytest.raises(ConfigError, match="said already"):
        list(FunctionSource("mine:samples", samples))
