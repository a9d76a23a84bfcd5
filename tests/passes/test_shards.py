"""Samples observed in parts are observed as a whole."""

import joblib
import numpy as np
import pytest
from onnx import helper

from onnxpress.calibration.feeds import Feed, open_feed
from onnxpress.calibration.observers import Histogram, MinMax, MovingAverage
from onnxpress.passes import shards
from onnxpress.passes.base import Workbench
from onnxpress.passes.shards import observe_in_shards
from onnxpress.rewriter.errors import FeedError

TENSORS = ("x", "a", "y")


@pytest.fixture
def model(build, random):
    weight = random.standard_normal((8, 8)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Sqrt", ["a"], ["y"])]
    return build(nodes, {"w": weight}, x=("n", 8))


@pytest.fixture
def batches(random):
    return [(scale * random.random((4, 8))).astype(np.float32) for scale in random.uniform(0.01, 100, 13)]


@pytest.fixture(autouse=True)
def walks(monkeypatch):
    """How many tensors each walk of the main program observed."""
    seen, observe = [], shards.observe

    def counted(model, observers, feed, **options):
        seen.append(len(observers))
        observe(model, observers, feed, **options)

    monkeypatch.setattr(shards, "observe", counted)
    return seen


def states(model, bench, kind, *, jobs):
    observers = {name: kind() for name in TENSORS}
    with joblib.parallel_config(backend="threading", n_jobs=jobs):
        observe_in_shards(model, observers, bench)
    return {f"{name}/{key}": value for name in TENSORS for key, value in observers[name].state().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        np.testing.assert_array_equal(value, other[key], err_msg=key, strict=True)


@pytest.mark.parametrize("kind", [MinMax, Histogram, MovingAverage])
def test_parts_make_the_same_whole_bit_for_bit(model, bench, batches, kind):
    parts = [abs(batch) for batch in batches]
    one = states(model, bench(model, *parts), kind, jobs=1)
    assert_same(states(model, bench(model, *parts), kind, jobs=2), one)
    assert_same(states(model, bench(model, *parts), kind, jobs=5), one)


@pytest.mark.parametrize("kind", [Histogram, MovingAverage])
def test_tensors_with_numbers_that_are_none_are_seen_in_one_walk(model, bench, batches, kind, walks):
    batches[6] = -batches[6]  # roots of what is negative
    one = states(model, bench(model, *batches), kind, jobs=1)
    walks.clear()
    assert_same(states(model, bench(model, *batches), kind, jobs=2), one)
    assert walks[-1] == 1


def test_the_length_of_the_samples_need_not_be_known(model, bench, batches):
    known = bench(model, *batches)
    unknown = Workbench(feed=Feed(list(known.feed.samples())), threads=1)
    assert unknown.feed.count is None
    assert_same(states(model, unknown, Histogram, jobs=2), states(model, known, Histogram, jobs=1))


def test_large_batches_go_one_by_one(model, bench, batches, monkeypatch, walks):
    monkeypatch.setattr(shards, "HELD", 1)
    states(model, bench(model, *batches), MinMax, jobs=2)
    assert len(walks) == len(batches) + 1


def test_models_too_large_to_send_are_walked_through_once(model, bench, batches, monkeypatch, walks):
    monkeypatch.setattr(shards, "_MODEL", 8)
    states(model, bench(model, *batches), MinMax, jobs=2)
    assert walks == [len(TENSORS)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_no_samples_are_refused(model, jobs):
    with pytest.raises(FeedError, match="give at least one"):
        states(model, Workbench(feed=Feed([])), MinMax, jobs=jobs)
    with pytest.raises(FeedError, match="come from samples"):
        states(model, Workbench(), MinMax, jobs=jobs)


@pytest.mark.parametrize("jobs", [1, 2])
def test_samples_that_end_in_an_error_are_refused(model, batches, jobs):
    def broken():
        yield from ({"x": batch} for batch in batches)
        raise FeedError("the last batch cannot be read")

    class Source:
        def __iter__(self):
            return broken()

    feed = open_feed(Source(), inputs=model.inputs)
    with pytest.raises(FeedError, match="cannot be read"):
        states(model, Workbench(feed=feed, threads=1), MinMax, jobs=jobs)
