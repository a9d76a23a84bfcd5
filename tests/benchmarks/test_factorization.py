"""What the factorization benchmark promises can be tried, and is judged as it is written."""

import argparse
import json
import math

import numpy as np
import pytest

from benchmarks import spectra
from benchmarks.contest import Row
from benchmarks.factorization import arguments, broken, contest_of, curve_of, front, keeping, note, plot, table
from benchmarks.factorization_cases import BATCHES, CASES, PROMISES, PUBLISHED
from benchmarks.spectra import Spectrum, fastest
from onnxpress.models.zoo import ZOO
from onnxpress.options import read_pass


def _row(case, **figures):
    quartiles = {f"{name}_quartile_{k}": v for name, v in figures.items() if "faster" in name for k in (1, 3)}
    return Row(case, figures | quartiles)


@pytest.fixture
def rows():
    normal = _row("normalised", faster=1.0, faster_1=1.0, faster_32=1.0, sqnr=math.inf, metric=0.87, metric_drop=0.0)
    good = _row("Tucker 15%", faster=3.2, faster_1=3.2, faster_32=4.0, sqnr=14.0, metric=0.865, metric_drop=0.005)
    quick = _row("CP 4%", faster=5.0, faster_1=5.0, faster_32=6.0, sqnr=6.0, metric=0.8, metric_drop=0.07)
    worse = _row("CP 30%", faster=2.0, faster_1=2.0, faster_32=2.5, sqnr=12.0, metric=0.86, metric_drop=0.01)
    return [normal, good, quick, worse, Row("spatial 4%", failed="ended after 1800 seconds")]


@pytest.mark.parametrize("case", CASES, ids=lambda each: f"{each.model}, {each.name}")
def test_cases_name_models_passes_and_options_that_exist(case):
    assert case.model in ZOO
    assert case.passes
    for entry in case.passes:
        read_pass(entry, case.name)


def test_names_are_unique_and_rivals_run_before_with_the_same_passes():
    names = [(case.model, case.name) for case in CASES]
    assert len(set(names)) == len(names)
    for case in CASES:
        if case.rival:
            rival = CASES[names.index((case.model, case.rival))]
            assert names.index((case.model, case.rival)) < names.index((case.model, case.name))
            assert (rival.passes, rival.samples, case.samples) == (case.passes, 0, None)
    assert {case.model for case in CASES} == set(PROMISES)
    assert {*BATCHES, *PUBLISHED} <= set(PROMISES)


def test_a_choice_of_cases_brings_their_rivals():
    options = arguments().parse_args([])
    chosen = contest_of("minilm", ["SVD 40%"], options)
    assert [case.name for case in chosen.cases] == ["SVD 40%, weights alone", "SVD 40%"]
    assert contest_of("charnet", [""], options).batches == (1, 32)
    assert isinstance(options, argparse.Namespace)


def test_the_front_holds_what_no_other_beats(rows):
    assert front(rows, "sqnr") == {"normalised", "Tucker 15%", "CP 4%"}
    assert front(rows, "metric_drop", least=True) == {"normalised", "Tucker 15%", "CP 4%"}


def test_one_result_must_be_all_that_is_promised(rows):
    assert keeping(rows, PROMISES["charnet"]) == ["Tucker 15%"]
    assert broken("charnet", rows) == []
    left = [row for row in rows if row.case != "Tucker 15%"]
    assert broken("charnet", left) == ["charnet, no result: faster_1 ≥ 3 and faster_32 ≥ 3 and metric_drop ≤ 0.01"]


def test_the_table_and_the_plot_hold_what_ran_and_what_was_published(rows, tmp_path):
    assert table("charnet", rows).row_count == len(rows) + len(PUBLISHED["charnet"])
    plot({"charnet": rows}, tmp_path / "curve.svg")
    text = (tmp_path / "curve.svg").read_text()
    assert "<svg" in text


@pytest.mark.parametrize(
    ("case", "curve"),
    [
        ("spatial 15%", "spatial"),
        ("SVD, spatial 15%, weights alone", "SVD, spatial, weights alone"),
        ("factorize, 4.5 times", "factorize"),
    ],
)
def test_cases_that_differ_in_a_ratio_are_one_curve(case, curve):
    assert curve_of(case) == curve


def test_decibels_of_ranks_run_from_nothing_to_everything():
    kept = spectra._decibels(np.array([3.0, 1.0]))
    np.testing.assert_allclose(kept, [0, 10, math.inf], rtol=1e-12, atol=1e-12)


def test_layers_that_save_nothing_count_whole():
    assert [layer("a", 8).left, layer("b", 40).left] == [0.25, 1.0]
    assert fastest([layer("a", 8), layer("b", 40)]) == pytest.approx(200 / 125)
    assert spectra.table("m", [layer("a", 8), layer("b", 40)]).row_count == 2
    assert spectra.plain([layer("a", 8)])["less_work"] == 4


def test_a_common_factor_counts_where_it_leaves_less_than_factors_of_each():
    both = [layer("a", 24), layer("b", 24)]
    shared = Spectrum("a + b", 128, 64, 200, (), (), rank=24, even=128 * 64 / 192, together=2)
    assert fastest(both) == pytest.approx(200 / 150)
    assert fastest([*both, shared]) == pytest.approx(128 * 64 / (24 * 192))
    assert fastest([layer("a", 8), layer("b", 8), shared]) == 4


def test_names_of_layers_that_read_the_same_are_told_as_one():
    assert spectra._short("a/query/MatMul + a/key/MatMul") == "a/{query + key}/MatMul"
    assert spectra._short("a/query/MatMul") == "a/query/MatMul"


def layer(name, rank):
    return Spectrum(site=name, out=64, inputs=64, work=100, weights=(), outputs=(), rank=rank, even=32.0)


def test_results_of_other_models_stay_in_the_file(tmp_path):
    file = tmp_path / "results.json"
    note(file, "a", {"cases": []})
    note(file, "b", {"cases": [1]})
    assert json.loads(file.read_text())["models"] == {"a": {"cases": []}, "b": {"cases": [1]}}
    file.write_text(json.dumps({"machine": "another", "models": {"a": 1}}))
    note(file, "b", {"cases": []})
    assert list(json.loads(file.read_text())["models"]) == ["b"]
