"""How results of one model are put side by side."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.contest import Contest, Row, _add_ratio, compare
from benchmarks.peers import Bounds
from benchmarks.samples import cut


def test_speed_is_that_of_the_batch_on_which_least_is_gained():
    figures = {}
    _add_ratio(figures, (4.0, 3.5, 4.5), 1)
    _add_ratio(figures, (3.0, 2.5, 3.5), 32)
    _add_ratio(figures, (5.0, 4.5, 5.5), 200)
    assert [figures[name] for name in ("faster_1", "faster_32", "faster_200")] == [4.0, 3.0, 5.0]
    assert (figures["faster"], figures["faster_quartile_1"], figures["faster_32_quartile_3"]) == (3.0, 2.5, 3.5)


def test_batches_of_the_feed_give_one_speed():
    figures = {}
    _add_ratio(figures, (4.0, 3.5, 4.5), None)
    assert figures == {"faster": 4.0, "faster_quartile_1": 3.5, "faster_quartile_3": 4.5}


def test_work_is_compared_with_that_of_the_normalised_model():
    rows = [Row("normalised", {"multiply_adds": 300}), Row("less", {"multiply_adds": 100}), Row("lost")]
    compare(rows, [])
    assert rows[1].figures["less_work"] == 3
    assert "less_work" not in rows[2].figures


def test_a_case_without_samples_is_given_none(tmp_path: Path):
    contest = Contest(model="lenet5", cases=(), threads=1, seconds=0.0, bounds=Bounds())
    assert list(contest._given(0, tmp_path).iterdir()) == []
    assert len(list(contest._given(8, tmp_path).iterdir())) == 2


@pytest.mark.parametrize(("second", "rows"), [((5, 3), 2), ((4, 3), 5)])
def test_batches_are_cut_where_all_inputs_share_their_rows(second, rows):
    batch = {"a": np.zeros((5, 2)), "b": np.zeros(second)}
    assert len(cut(batch, 2)["a"]) == rows
