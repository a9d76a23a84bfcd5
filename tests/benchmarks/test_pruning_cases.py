"""What the pruning benchmark promises can be tried, and is judged as it is written."""

import math

import pytest

from benchmarks.contest import Case, Row, Wish, compare
from benchmarks.pruning import table
from benchmarks.pruning_cases import CASES, COUPLED
from benchmarks.pruning_couplings import Coverage
from onnxpress.models.zoo import ZOO
from onnxpress.options import read_pass


@pytest.mark.parametrize("case", CASES, ids=lambda each: f"{each.model}, {each.name}")
def test_cases_name_models_passes_and_options_that_exist(case):
    assert case.model in ZOO
    assert bool(case.passes) != bool(case.script)
    for entry in case.passes:
        read_pass(entry, case.name)


def test_rivals_run_before_those_that_are_compared_with_them():
    for number, case in enumerate(CASES):
        before = {(each.model, each.name) for each in CASES[:number]}
        assert (case.model, case.name) not in before
        assert case.rival is None or (case.model, case.rival) in before
    assert set(COUPLED) <= set(ZOO)


def test_a_wish_holds_within_its_bounds_and_never_without_a_figure():
    wish = Wish("metric", least=0.98)
    assert [wish.met({"metric": value}) for value in (0.98, 0.9799, math.nan)] == [True, False, False]
    assert not wish.met({})
    assert (str(wish), str(Wish("seconds", most=60))) == ("metric ≥ 0.98", "seconds ≤ 60")


def test_figures_are_compared_with_the_normalised_model_and_with_a_rival():
    first = Row("normalised", {"bytes": 100, "weights": 50, "sqnr": math.inf, "metric": 0.9})
    rival = Row("plain", {"bytes": 100, "weights": 25, "sqnr": 4.0, "metric": 0.5})
    better = Row("better", {"bytes": 60, "weights": 25, "sqnr": 13.0, "metric": 0.88}, wishes=(Wish("gain", least=8),))
    lost = Row("lost", failed="does not run", wishes=(Wish("gain", least=8),))
    rows = [first, rival, better, lost]
    compare(
        rows, [Case(name="plain", model="m"), *(Case(name=n, model="m", rival="plain") for n in ("better", "lost"))]
    )
    assert better.figures["gain"] == 9
    assert better.figures["smaller"] == pytest.approx(0.4)
    assert better.figures["kept"] == 0.5
    assert better.figures["metric_drop"] == pytest.approx(0.02)
    assert "gain" not in lost.figures
    assert better.plain()["wishes"] == {"gain ≥ 8": True}
    assert lost.plain()["wishes"] == {"gain ≥ 8": False}
    assert first.plain()["sqnr"] == "inf"
    assert table("m", rows).row_count == 4


def test_says_what_of_the_couplings_is_not_as_promised():
    whole = Coverage(model="m", groups=1, free=1, frozen={}, missing=(), kept_shapes=True)
    assert whole.broken is None
    assert (
        Coverage(model="m", groups=1, free=1, frozen={}, missing=("a:0",), kept_shapes=True).broken
        == "axes in no group: a:0"
    )
    assert Coverage(model="m", groups=1, free=1, frozen={}, missing=(), failed="no").broken == "no"
    assert "shapes" in Coverage(model="m", groups=1, free=1, frozen={}, missing=()).broken
