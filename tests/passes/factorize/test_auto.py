"""Schemes and ranks by budget: targets that are met, chains that are taken back, options that are refused."""

from dataclasses import replace

import numpy as np
import pytest

from onnxpress.calibration.metrics import sqnr
from onnxpress.passes.base import Workbench
from onnxpress.passes.factorize import latency, search
from onnxpress.passes.factorize.auto import Factorize
from onnxpress.passes.registry import find
from onnxpress.rewriter.errors import ConfigError, FeedError
from onnxpress.rewriter.sites import find_sites


@pytest.fixture
def x():
    return np.random.default_rng(77).standard_normal((64, 8, 6, 6)).astype(np.float32)


def noise_free(run, model, result, x):
    """SQNR in dB on samples that the pass never saw."""
    return sqnr(run(model, x)[0], run(result.model, x)[0])


def names(entries):
    return [each.site for each in entries]


def test_is_found_by_its_name():
    assert find("factorize") is Factorize


@pytest.mark.parametrize("wanted", [10.0, 25.0])
def test_keeps_the_outputs_as_good_as_asked_and_gains(layers, samples, clock, seconds, run, x, wanted):
    clock()
    result = Factorize(min_sqnr=wanted)(layers, samples)
    assert seconds(result.model) < seconds(layers)
    assert noise_free(run, layers, result, x) > wanted - 1  # other samples than those that judged
    assert "low" in names(result.report.changes)
    (note,) = result.report.notes
    assert "times as fast as before" in note
    assert "outputs on samples held out:" in note


def test_less_quality_gains_more(layers, samples, clock, seconds):
    clock()
    took = [seconds(Factorize(min_sqnr=each)(layers, samples).model) for each in (8.0, 35.0)]
    assert took[0] < took[1]


def test_every_site_ends_as_a_change_or_a_skip(layers, samples, clock):
    clock()
    report = Factorize(min_sqnr=25)(layers, samples).report
    assert sorted([*names(report.changes), *names(report.skips)]) == ["conv", "full", "low"]
    assert {"low"} <= set(names(report.changes))
    assert {curve.site for curve in report.curves} <= {"conv", "full", "low"}


def test_reaches_a_speedup_at_little_noise(layers, samples, clock, seconds, run, x):
    clock()
    slow, fast = (Factorize(speedup=each)(layers, samples) for each in (1.5, 3.0))
    assert 1.5 <= seconds(layers) / seconds(slow.model) < 2
    assert 3 <= seconds(layers) / seconds(fast.model) < 4
    assert noise_free(run, layers, slow, x) > noise_free(run, layers, fast, x)
    assert not slow.report.warnings


def test_a_speedup_out_of_reach_is_told(layers, samples, clock):
    clock()
    report = Factorize(speedup=500.0)(layers, samples).report
    assert report.changes
    assert any("speedup 500 was not reached" in each for each in report.warnings)


def test_halves_the_parameters_without_timing_layers(layers, samples, clock, run, x):
    def refuse(model):
        raise AssertionError("timed alone")

    clock(alone=refuse)
    result = Factorize(goal="size", ratio=0.5)(layers, samples)
    left = sum(each.size for each in find_sites(result.model)) / sum(each.size for each in find_sites(layers))
    assert 0.4 < left <= 0.5
    assert noise_free(run, layers, result, x) > 20


def test_the_metric_falls_by_as_much_as_allowed(layers, samples, clock, seconds):
    clock()

    class Agreement:
        name = "agreement"

        def __call__(self, runner, feed, /):
            outputs = [runner.run(batch)["y"] for batch in feed]
            kept = self.__dict__.setdefault("kept", outputs)
            return float(np.mean([(a.argmax(-1) == b.argmax(-1)).mean() for a, b in zip(kept, outputs, strict=True)]))

    result = Factorize(max_drop=0.1)(layers, replace(samples, metric=Agreement()))
    assert seconds(result.model) < seconds(layers)
    assert "the metric fell by" in result.report.notes[0]


def test_what_is_no_faster_alone_stays(layers, samples, clock):
    clock(alone=lambda model: float(len(model.graph.nodes)))
    result = Factorize(min_sqnr=10)(layers, samples)
    assert not result.report.changes
    assert {skip.reason.split(":")[0] for skip in result.report.skips} == {"no chain is faster alone"}
    assert len(result.model.graph.nodes) == len(layers.graph.nodes)


def test_a_chain_that_makes_the_model_no_faster_is_taken_back(layers, samples, clock, seconds):
    def whole(model):
        return seconds(model) + any(node.name.startswith("low_") for node in model.graph.nodes)

    clock(whole=whole)
    report = Factorize(min_sqnr=10)(layers, samples).report
    assert "low" not in names(report.changes)
    assert report.changes
    (reason,) = (skip.reason for skip in report.skips if skip.site == "low")
    assert reason.startswith("taken back: 'svd': the whole model is 0.0")


def test_a_slower_model_is_never_the_result(layers, samples, clock, monkeypatch):
    clock()
    timed = iter([False])

    def slow(before, after, bench, *, seconds):
        return next(timed, None) or replace(fast, speedup=0.9, quartiles=(0.8, 0.95))

    from onnxpress.passes.factorize import auto
    from onnxpress.passes.pace import Pace

    fast = Pace(1.0, (1.0, 1.0))
    monkeypatch.setattr(auto, "timed", slow)
    result = Factorize(min_sqnr=10)(layers, samples)
    assert not result.report.changes
    assert any(
        skip.reason
        == "taken back: the factorized model is 0.90 times as fast as before (middle half of rounds 0.80 to 0.95)"
        for skip in result.report.skips
    )
    assert [node.name for node in result.model.graph.nodes] == [node.name for node in layers.graph.nodes]


def test_a_target_that_nothing_meets_changes_nothing(layers, samples, clock):
    clock()
    result = Factorize(min_sqnr=200)(layers, samples)
    assert not result.report.changes
    assert sorted(names(result.report.skips)) == ["conv", "full", "low"]


def test_only_the_named_schemes_are_tried(layers, samples, clock):
    clock()
    report = Factorize(min_sqnr=10, schemes=("spatial",), refit=False)(layers, samples).report
    assert set(names(report.changes)) <= {"conv"}
    reasons = {skip.site: skip.reason for skip in report.skips}
    assert reasons["low"] == "has no kernel; k x 1 and 1 x k need two sides of at least 2"


def test_no_other_budget_is_tried_once_time_is_up(layers, samples, clock, monkeypatch):
    clock()
    made = []
    make = search.make
    monkeypatch.setattr(search, "make", lambda *args, **options: made.append(args) or make(*args, **options))
    Factorize(min_sqnr=10, time_limit=1e-9)(layers, samples)
    assert len(made) == 1


def test_batches_are_timed_with_as_many_rows_as_asked(layers, samples, monkeypatch, clock):
    from onnxpress.passes.factorize import inplace, latency
    from onnxpress.passes.pace import Pace

    shapes = []

    def rounds(models, shape, dtype, provider, bench, *, seconds):
        shapes.append(shape)
        return np.array([[1.0, *[0.5] * (len(models) - 1)]] * 3)

    def pace(reference, models, bench, **options):
        shapes.extend(batch["x"].shape for batch in bench.feed)
        return [Pace(2.0, (2.0, 2.0)) for _ in models]

    monkeypatch.setattr(latency, "timed", rounds)
    monkeypatch.setattr(inplace, "pace", pace)
    Factorize(min_sqnr=10, batch_size=3)(layers, samples)
    assert {shape[0] for shape in shapes} == {3}


def test_one_batch_teaches_and_judges(layers, bench, clock, x):
    clock()
    report = Factorize(min_sqnr=10)(layers, bench(layers, x)).report
    assert "one batch of samples teaches and judges; give two or more" in report.warnings


def test_the_same_again(layers, samples, clock):
    clock()
    first, second = (Factorize(min_sqnr=15)(layers, samples).model.to_proto() for _ in range(2))
    assert first == second


def test_the_callers_model_stays(layers, samples, clock):
    clock()
    before = layers.to_proto()
    Factorize(min_sqnr=10)(layers, samples)
    assert layers.to_proto() == before


def test_needs_samples_and_a_metric_to_fall(layers, samples):
    with pytest.raises(FeedError, match="ranks by budget are chosen on samples; give some with --data"):
        Factorize(min_sqnr=20)(layers, Workbench())
    with pytest.raises(ConfigError, match=r"factorize: max_drop 0.01 needs a metric"):
        Factorize(max_drop=0.01)(layers, samples)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "give exactly one of min_sqnr, speedup, max_drop, ratio; got none"),
        ({"min_sqnr": 20, "speedup": 2}, "got min_sqnr 20 and speedup 2"),
        ({"min_sqnr": 0}, "min_sqnr must be a number above 0, got 0"),
        ({"speedup": 1}, "speedup must be a number above 1, got 1"),
        ({"max_drop": -0.1}, "max_drop must be a number that is not negative, got -0.1"),
        ({"goal": "size", "ratio": 0}, "ratio must lie in"),
        ({"goal": "size", "speedup": 2}, "speedup 2 is for goal latency; give ratio for goal size"),
        ({"ratio": 0.5}, "ratio 0.5 is for goal size; give speedup for goal latency"),
        ({"min_sqnr": 20, "goal": "energy"}, "goal must be latency or size, got 'energy'"),
        ({"min_sqnr": 20, "schemes": ["qr"]}, "schemes must list some of svd, channel"),
        ({"min_sqnr": 20, "schemes": []}, "schemes must list some of"),
        ({"min_sqnr": 20, "batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"min_sqnr": 20, "time_limit": -1}, "time_limit must be a number above 0, got -1"),
        ({"min_sqnr": 20, "nonlinear": 0}, "nonlinear must be true or false, got 0"),
        ({"min_sqnr": 20, "vary": 1}, "vary must be true or false, got 1"),
    ],
)
def test_wrong_options_are_refused(options, told):
    with pytest.raises(ConfigError, match=f"factorize: .*{told}"):
        Factorize(**options)


def test_layers_are_timed_on_codes_where_these_follow(layers, samples, monkeypatch):
    seen = []

    def alone(models, *args, **options):
        seen.extend(models)
        return np.ones((4, len(models)))

    monkeypatch.setattr(latency, "timed", alone)
    Factorize(min_sqnr=25, arithmetic="int8")(layers, samples)
    assert any(any(node.op == "DequantizeLinear" for node in each.graph.nodes) for each in seen)


def test_an_arithmetic_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="arithmetic"):
        Factorize(min_sqnr=25, arithmetic="int4")
