import numpy as np
import pytest

from onnxpress.calibration.batches import Sample
from onnxpress.models.samples import by_length, feed


def test_batches_hold_every_sample_once_and_like_lengths_together() -> None:
    lengths = [5, 1, 9, 1, 5, 9, 8]
    batches = by_length(lengths, batch=2, seed=0)
    assert sorted(i for batch in batches for i in batch) == list(range(7))
    assert sorted(sorted(lengths[i] for i in batch) for batch in batches) == [[1, 1], [5, 5], [8, 9], [9]]
    assert batches == by_length(lengths, batch=2, seed=0)


@pytest.mark.parametrize("walk", range(2))
def test_a_feed_starts_afresh_on_every_walk(walk: int) -> None:
    two = feed(lambda: iter([Sample({"x": np.zeros(1)}), Sample({"x": np.ones(1)})]), count=2)
    for _ in range(walk + 1):
        assert [batch["x"].item() for batch in two] == [0, 1]
