"""Which rows are taken, and which are held out."""

import numpy as np
import pytest

from onnxpress.passes.row_sums import Sampling, Sums


def held(sampling, *, count, batch=0, samples=1):
    positions = sampling.positions(count, 4)
    return positions, sampling.judged(positions, count, batch, samples)


def test_takes_as_many_rows_as_are_wanted_of_all_batches():
    assert len(Sampling(0.25, 8, rows=800).positions(1000, 4)) == 100
    assert len(Sampling(0.25, 8, rows=800).positions(60, 4)) == 60
    # four rows for each of 400 inputs
    assert len(Sampling(0.25, 8, rows=800).positions(1000, 400)) == 200


def test_holds_out_whole_batches_where_there_are_some():
    parts = [held(Sampling(0.25, 8, rows=800), count=10, batch=batch, samples=10)[1] for batch in range(8)]
    assert [part.all() for part in parts] == [part.any() for part in parts]
    assert [bool(part.all()) for part in parts] == [False, False, False, True] * 2


def test_holds_out_whole_samples_of_a_lone_batch():
    positions, part = held(Sampling(0.25, 1, rows=800), count=80, samples=8)
    assert sorted(set(positions[part] // 10)) == [3, 7]
    assert np.count_nonzero(part) == 20


@pytest.mark.parametrize("samples", [1, 3])
def test_holds_out_stretches_of_rows_of_a_lone_sample(samples):
    positions, part = held(Sampling(0.25, 1, rows=800), count=160, samples=samples)
    assert sorted(set(positions[part] // 10)) == [3, 7, 11, 15]
    assert np.count_nonzero(part) == 40


def test_sums_take_in_rows_in_parts():
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((2, 30, 5)).astype(np.float32)
    outputs = [draw.standard_normal((2, 30, out)).astype(np.float32) for out in (3, 1)]
    whole, parts = Sums(), Sums()
    whole.add(rows, outputs)
    for start in (0, 10, 20):
        parts.add(rows[:, start : start + 10], [each[:, start : start + 10] for each in outputs])
    for one, other in zip(whole.normals(), parts.normals(), strict=True):
        assert one.count == other.count == 30
        for name in ("moment", "cross", "input_sum", "output_sum", "energy"):
            assert getattr(one, name).dtype == np.float64
            # float32 products of 30 rows
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-4)
    assert whole.normals()[0].moment is whole.normals()[1].moment
