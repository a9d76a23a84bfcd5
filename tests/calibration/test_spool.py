"""One-shot iterators, kept."""

import numpy as np
import pytest

from onnxpress.calibration import spool
from onnxpress.calibration.spool import Spool
from onnxpress.rewriter.errors import FeedError


def batches(n):
    for i in range(n):
        yield {"x": np.full((2, 3), i, np.float32), "text": np.array(["a", "bcd"], object), "labels": None}


def test_walks_again_after_one_that_was_broken_off():
    kept = Spool(batches(4))
    assert next(iter(kept))["x"][0, 0] == 0
    for _ in range(2):
        seen = list(kept)
        assert [batch["x"][0, 0] for batch in seen] == [0, 1, 2, 3]
        assert list(seen[0]) == ["x", "text"]
        assert list(seen[0]["text"]) == ["a", "bcd"]


def test_nested_walks_see_everything():
    kept = Spool(batches(3))
    assert [(a["x"][0, 0], b["x"][0, 0]) for a in kept for b in kept] == [(i, j) for i in range(3) for j in range(3)]


def test_what_goes_to_disk_comes_back(monkeypatch):
    monkeypatch.setattr(spool, "IN_MEMORY", 30)
    assert [batch["x"][1, 2] for batch in Spool(batches(5))] == [0, 1, 2, 3, 4]


def test_refuses_to_keep_more_than_the_limit():
    with pytest.raises(FeedError, match=r"may hold 4.65661e-08 GiB, input 'x' goes beyond; give a function"):
        list(Spool(batches(9), limit=50))


def test_refuses_what_yields_no_dicts():
    with pytest.raises(FeedError, match="the feed yields a int; let it yield dicts"):
        list(Spool(iter([1])))
