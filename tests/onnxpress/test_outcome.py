"""Each stated limit is judged by what was measured; what was not measured does not hold."""

from dataclasses import replace
from math import nan

import pytest

from onnxpress.compression import compress
from onnxpress.outcome import unmet, verdicts
from onnxpress.recipe import Limits
from onnxpress.rewriter.errors import ConfigError
from onnxpress.search.bootstrap import Drop

HOLD = {
    "max_drop": 1,
    "min_sqnr": 1,
    "max_bytes": 10**6,
    "min_speedup": 1e-6,
    "parity": {"cpu": 1},
    "max_load_seconds": 60,
    "max_load_ratio": 1e6,
}
BREAK = {
    "min_sqnr": 500,
    "max_bytes": 1,
    "min_speedup": 1e6,
    "parity": {"cpu": 500},
    "max_load_seconds": 1e-9,
    "max_load_ratio": 1e-9,
}


@pytest.fixture
def result(model, samples, out, halve, quick):
    return compress(model, out, recipe=[halve], data=str(samples), metric="top1")


def judged(result, **limits):
    return list(verdicts(result, Limits(**limits)))


def test_without_limits_there_is_nothing_to_hold(result):
    assert judged(result) == []


@pytest.mark.parametrize("name", HOLD)
def test_a_limit_that_holds(result, name):
    (verdict,) = judged(result, **{name: HOLD[name]})
    assert verdict.holds
    assert verdict.gate.partition(".")[0] == name
    assert verdict.measured is not None


@pytest.mark.parametrize("name", BREAK)
def test_a_limit_that_does_not_hold_says_both_figures(result, name):
    (verdict,) = judged(result, **{name: BREAK[name]})
    assert not verdict.holds
    assert f"{verdict.limit:g}" in verdict.sentence
    assert list(unmet(result, Limits(**{name: BREAK[name]}))) == [verdict.sentence]


def test_a_provider_that_was_not_measured_does_not_hold(result):
    (verdict,) = judged(result, parity={"cuda": -100})
    assert (verdict.holds, verdict.measured) == (False, None)
    assert "nothing was measured on CUDAExecutionProvider" in verdict.sentence


def test_a_drop_without_a_metric_does_not_hold(result):
    (here,) = result.verification.providers
    unmeasured = replace(result.verification, metric=None, providers=(replace(here, metric_before=None),))
    (verdict,) = judged(replace(result, verification=unmeasured), max_drop=1)
    assert (verdict.holds, verdict.sentence) == (False, "no metric was measured, max_drop is 1")


def test_what_is_not_a_number_does_not_hold(result):
    (here,) = result.verification.providers
    broken = replace(result.verification, providers=(replace(here, metric_after=nan),))
    (verdict,) = judged(replace(result, verification=broken), max_drop=1)
    assert not verdict.holds


@pytest.mark.parametrize(("probability", "holds"), [(0.95, True), (0.9, True), (0.8, False), (None, False)])
def test_a_confidence_needs_as_sure_a_drop(result, probability, holds):
    gate = Drop(
        metric="top1",
        value=0.0,
        limit=0.01,
        low=0.0,
        high=0.005,
        confidence=0.9,
        probability=probability,
        samples=64,
        draws=100,
    )
    (verdict,) = judged(replace(result, gate=gate), max_drop=0.01, confidence=0.9)
    assert verdict.holds is holds
    assert "confidence is 0.9" in verdict.sentence


def test_a_confidence_that_was_not_measured_does_not_hold(result):
    (verdict,) = judged(result, max_drop=0.01, confidence=0.9)
    assert not verdict.holds
    assert "how sure that is was not measured" in verdict.sentence


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        ({"parity": {"gpu": 3}}, "parity {'gpu': 3}: provider 'gpu' is unknown"),
        ({"parity": {"cpu": float("nan")}}, "parity.cpu nan: should be a finite number"),
        ({"confidence": 1.0}, "confidence 1.0: should be less than 1"),
        ({"max_load_seconds": 0}, "max_load_seconds 0: should be greater than 0"),
    ],
)
def test_a_limit_that_means_nothing_is_refused(limits, complaint):
    with pytest.raises(ConfigError) as caught:
        Limits(**limits)
    assert str(caught.value).startswith(complaint)


def test_a_limit_that_is_stated_replaces_another():
    both = Limits(min_sqnr=3, parity={"cpu": 1}).under(Limits(min_sqnr=5, max_bytes=9))
    assert both == Limits(min_sqnr=5, max_bytes=9, parity={"cpu": 1})
    assert both.under(None) is both
