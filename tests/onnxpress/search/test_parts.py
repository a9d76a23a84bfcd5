"""No sample does the work of two parts, unless there are too few, which is said."""

from itertools import chain, pairwise

import numpy as np
import pytest

from onnxpress.calibration.batches import Sample
from onnxpress.calibration.feeds import Feed
from onnxpress.rewriter.specs import InputSpec
from onnxpress.search.parts import part

OPEN = (InputSpec("x", np.dtype(np.float32), ("n", 2)),)
FIXED = (InputSpec("x", np.dtype(np.float32), (4, 2)),)


def feed_of(sizes, *, known=True, labels=True, start=0):
    """Every entry of `x` tells the number of its row."""
    starts = start + np.cumsum([0, *sizes])
    samples = [
        Sample({"x": np.repeat(np.arange(a, b, dtype=np.float32)[:, None], 2, 1)}, np.arange(a, b) if labels else None)
        for a, b in pairwise(starts)
    ]
    return Feed(samples, count=len(samples) if known else None)


def rows(feed):
    return [int(each) for batch in feed for each in batch["x"][:, 0]]


@pytest.mark.parametrize("sizes", [[1] * 100, [5] * 40, [32, 32, 7], [32, 32, 1], [3, 3, 3], [40]])
@pytest.mark.parametrize("known", [True, False])
def test_each_sample_is_in_one_part(sizes, known):
    parts = part(feed_of(sizes, known=known), None, OPEN)
    found = [rows(each) for each in (parts.learn, parts.choose, parts.judge)]
    assert sorted(chain(*found)) == list(range(sum(sizes)))
    assert all(found)
    assert len(found[0]) > len(found[1])
    assert parts.warnings == ()
    for each in (parts.learn, parts.choose, parts.judge):
        assert each.count == sum(1 for _ in each)
        assert [int(label) for sample in each.samples() for label in sample.labels] == rows(each)


def test_other_samples_judge_and_choose():
    data, test = feed_of([4] * 3, start=100), feed_of([4] * 20)
    parts = part(data, test, OPEN)
    assert parts.learn is data
    assert sorted(rows(parts.choose) + rows(parts.judge)) == list(range(80))
    assert abs(len(rows(parts.choose)) - len(rows(parts.judge))) <= 4


def test_whole_batches_are_parted_where_the_model_insists_on_them():
    parts = part(feed_of([4] * 5), None, FIXED)
    assert sorted(rows(parts.learn) + rows(parts.choose) + rows(parts.judge)) == list(range(20))
    assert {len(batch["x"]) for each in (parts.learn, parts.choose, parts.judge) for batch in each} == {4}


def test_too_few_samples_are_used_for_all_and_that_is_said():
    parts = part(feed_of([4, 4]), None, FIXED)
    assert parts.learn is parts.choose is parts.judge
    assert "too few samples" in parts.warnings[0]
    parts = part(feed_of([4] * 9, start=100), feed_of([4]), FIXED)
    assert parts.choose is parts.judge
    assert "but one test sample" in parts.warnings[0]


@pytest.mark.parametrize("few", [[32, 32], [10]])
def test_samples_to_judge_by_that_taught_are_left_aside(few):
    parts = part(feed_of(few), feed_of([32, 32, 32]), OPEN)
    assert sorted(rows(parts.learn) + rows(parts.choose) + rows(parts.judge)) == list(range(sum(few)))
    assert "--test is left aside" in parts.warnings[0]
