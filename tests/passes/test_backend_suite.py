"""ONNX's own test suite through normalisation; the counts are printed at the end of the run."""

import pytest

from benchmarks import backend_suite

SHARDS = 8


@pytest.mark.parametrize("shard", range(SHARDS))
def test_computes_what_onnx_runtime_computed(shard: int, record_property) -> None:
    tally = backend_suite.run(shard, SHARDS)
    record_property("backend suite", dict(tally.counts))
    bad = [note for note in tally.notes if ": refused: " not in note]
    assert not bad
    assert tally.counts["agreed"] > 100  # the suite was really there
