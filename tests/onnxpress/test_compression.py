"""A compression delivers what it measured, the better model, or nothing."""

import hashlib
import re
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

from onnxpress import judging
from onnxpress.compression import compress
from onnxpress.outcome import LimitsNotMet, ResultError
from onnxpress.passes.blockwise.weights import QuantizeWeights
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.narrow.float16 import ConvertFloat16
from onnxpress.passes.normalise import Normalise
from onnxpress.passes.prune.channels.channels import PruneChannels
from onnxpress.passes.prune.zeros.magnitude import PruneMagnitude
from onnxpress.passes.prune.zeros.second_order import PruneSecondOrder
from onnxpress.passes.share.kmeans import ShareKMeans
from onnxpress.recipe import Limits, Recipe
from onnxpress.rewriter.errors import ConfigError, FeedError, ModelError
from onnxpress.rewriter.model import Model

QUICK = 0.01
"""Seconds of timing: the figures do not matter here."""


def recipe(*passes, **settings):
    return Recipe(name="mine", passes=passes, **settings)


def folder_of(path):
    return sorted(each.name for each in path.parent.iterdir())


def test_writes_a_model_that_onnx_runtime_runs(model, out, samples):
    before = hashlib.sha256(model.read_bytes()).hexdigest()
    passes = [ShareKMeans(bits=2), Encode()]
    result = compress(model, out, recipe=passes, data=samples, metric="top1", bench_seconds=QUICK)
    assert folder_of(out) == ["result.onnx"]
    assert result.path == out
    assert result.bytes_after == out.stat().st_size < result.bytes_before == model.stat().st_size
    assert result.hashes_after == {"result.onnx": hashlib.sha256(out.read_bytes()).hexdigest()}
    assert hashlib.sha256(model.read_bytes()).hexdigest() == before
    assert [each.name for each in result.reports] == ["normalise", "share-kmeans", "encode"]
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.zeros((1, 8), np.float32)})[0].shape == (1, 10)


def test_a_model_in_memory_is_compressed_too(model, out, samples):
    result = compress(Model.load(model), out, recipe=[], data=samples, bench_seconds=QUICK)
    assert result.source is None
    assert folder_of(out) == ["result.onnx"]


def test_the_same_seed_gives_the_same_file(model, out, samples):
    passes = [ShareKMeans(bits=3), Encode()]
    first = compress(model, out, recipe=passes, data=samples, bench_seconds=QUICK)
    second = compress(model, out, recipe=passes, data=samples, bench_seconds=QUICK)
    assert first.hashes_after == second.hashes_after


def test_without_samples_it_says_so(model, out):
    result = compress(model, out, recipe=[], bench_seconds=QUICK)
    assert any("made up" in each for each in result.warnings)


@pytest.mark.parametrize("recipe", [[ShareKMeans(bits=8), Encode()], "int8"])
def test_samples_to_judge_by_are_not_said_to_be_made_up(model, out, samples, recipe):
    result = compress(model, out, recipe=recipe, test=samples, bench_seconds=QUICK)
    (told,) = (each for each in result.warnings if "--data" in each)
    assert "accuracy" not in told
    assert ("learns from samples, and none were given" if recipe == "int8" else "not shown to them") in told


def test_gathers_the_warnings_of_passes(model, out, samples, halve):
    result = compress(model, out, recipe=[halve], data=samples, bench_seconds=QUICK)
    assert "halve: weights were scaled" in result.warnings


def test_warns_where_little_is_left_of_the_outputs(model, out, samples, halve):
    result = compress(model, out, recipe=[replace(halve, factor=-1.0)], data=samples, bench_seconds=QUICK)
    assert any("dB above the error" in each for each in result.warnings)


def test_says_that_a_pass_changed_nothing(model, out, samples):
    result = compress(model, out, recipe=[ShareKMeans(bits=2, include=("no such layer",))], data=samples)
    assert "share-kmeans changed nothing; the report says why for each weight" in result.warnings


def test_two_passes_of_a_name_may_share_the_work(model, out, samples):
    passes = [QuantizeWeights(exclude=("Conv",)), QuantizeWeights(include=("Conv",))]
    result = compress(model, out, recipe=passes, data=samples, bench_seconds=QUICK)
    assert [bool(each.changes) for each in result.reports[1:]] == [True, False]
    assert not any("nothing" in each or "leave none" in each for each in result.warnings)


def test_narrower_inputs_are_verified_and_timed(model, out, samples):
    narrow = ConvertFloat16(form="compute", keep_io=False)
    result = compress(model, out, recipe=[narrow], data=samples, metric="top1", bench_seconds=QUICK)
    assert Model.load(out).inputs[0].dtype == np.float16
    assert 40 < result.verification.sqnr < 90


def test_warns_where_the_result_is_larger(model, out, samples, bloat):
    result = compress(model, out, recipe=[bloat], data=samples, bench_seconds=QUICK)
    assert result.version == "compressed"
    assert any("larger than the input" in each for each in result.warnings)


def test_goal_size_keeps_the_smallest(model, out, samples, bloat):
    result = compress(model, out, recipe=recipe(bloat, goal="size"), data=samples, bench_seconds=QUICK)
    assert result.version in ("normalised", "original")
    assert result.bytes_after <= result.bytes_before
    assert any("is larger than the" in each and "is delivered" in each for each in result.warnings)
    assert folder_of(out) == ["result.onnx"]


def test_goal_latency_takes_a_slower_model_back(model, out, samples, slow):
    result = compress(model, out, recipe=recipe(slow, goal="latency"), data=samples, bench_seconds=0.2, threads=1)
    assert result.version == "normalised"
    assert any("not faster than the normalised one beyond noise" in each for each in result.warnings)
    assert len(Model.load(out).graph.nodes) == 3


@pytest.fixture
def timed(monkeypatch):
    """Timing that gives the quartiles it is told, one pair after the other."""
    real, told = judging.bench, []

    def bench(*arguments, **options):
        (found,) = real(*arguments, **{**options, "seconds": 0.01})
        low, high = told.pop(0)
        return (replace(found, speedup=(low + high) / 2, quartiles=(low, high)),)

    monkeypatch.setattr(judging, "bench", bench)
    return told


@pytest.mark.parametrize(
    ("quartiles", "version", "words"),
    [
        ([(1.1, 1.3), (1.2, 1.4)], "compressed", None),
        ([(0.9, 1.3), (0.9, 1.1)], "normalised", r"not faster than the normalised one beyond noise \(1.10 times"),
        ([(1.0, 1.3), (0.9, 1.1)], "normalised", "so the normalised model is delivered"),
        (
            [(0.9, 1.0), (0.7, 0.9), (0.9, 1.1)],
            "original",
            r"the normalised model is slower than the input \(0.80 times",
        ),
        ([(1.1, 1.3), (0.7, 0.9), (0.9, 1.1)], "original", "the compressed model is slower than the input"),
    ],
)
def test_goal_latency_delivers_only_what_is_faster_beyond_noise(
    model, out, samples, halve, timed, quartiles, version, words
):
    timed.extend(quartiles)
    result = compress(model, out, recipe=recipe(halve, goal="latency"), data=samples)
    assert result.version == version
    assert not timed
    assert words is None or any(re.search(words, each) for each in result.warnings)
    assert (result.verification.sqnr == np.inf) == (version != "compressed")


@pytest.mark.parametrize(("slowed", "told"), [(1.1, False), (1.3, True)])
def test_warns_where_the_machine_was_disturbed_while_timing(model, out, samples, monkeypatch, slowed, told):
    bench = judging.bench
    monkeypatch.setattr(judging, "bench", lambda *a, **k: [replace(each, slowed=slowed) for each in bench(*a, **k)])
    result = compress(model, out, recipe=[], data=samples, bench_seconds=QUICK)
    assert any("1.30 times as long as before" in each for each in result.warnings) == told


def test_warns_where_ranges_come_from_made_up_inputs(model, out, samples):
    plan, words = recipe(needs_data=True), "mine learns from samples, and none were given"
    assert any(words in each for each in compress(model, out, recipe=plan, bench_seconds=QUICK).warnings)
    given = compress(model, out, recipe=plan, data=samples, bench_seconds=QUICK)
    assert not any(words in each for each in given.warnings)


def test_warns_where_samples_do_not_reach_what_was_changed(model, out, samples, halve):
    nothing, words = {"x": np.zeros((4, 8), np.float32)}, "do not reach the changed weights"
    result = compress(model, out, recipe=[halve], data=nothing, bench_seconds=QUICK)
    assert any(words in each and "(--data)" in each for each in result.warnings)
    result = compress(model, out, recipe=[halve], data=samples, test=nothing, bench_seconds=QUICK)
    assert any(words in each and "(--test)" in each for each in result.warnings)
    for passes in ([halve], []):
        result = compress(model, out, recipe=passes, data=samples, bench_seconds=QUICK)
        assert not any(words in each for each in result.warnings)


def test_warns_where_shared_values_are_not_encoded(model, out, samples):
    words = "zeros and shared values make a file smaller only through encode: add it as the last pass"
    for passes in ([ShareKMeans(bits=2)], [PruneMagnitude(sparsity=0.5)]):
        assert words in compress(model, out, recipe=passes, data=samples, bench_seconds=QUICK).warnings
    passes = [ShareKMeans(bits=2), Encode()]
    assert words not in compress(model, out, recipe=passes, data=samples, bench_seconds=QUICK).warnings


def test_warns_where_the_metric_is_no_number(model, out, samples, halve):
    class Broken:
        name = "broken"

        def __call__(self, runner, feed):
            return np.nan if runner.name == "result.onnx" else 1.0

    result = compress(model, out, recipe=[halve], data=samples, metric=Broken(), bench_seconds=QUICK)
    found = [each for each in result.warnings if "broken is not a number" in each]
    assert len(found) == 1
    assert "after compression on CPUExecutionProvider" in found[0]


def test_a_normalisation_of_its_own_runs_once(model, out, samples):
    own = Normalise(fold_affine=False)
    result = compress(model, out, recipe=[own], data=samples, bench_seconds=QUICK)
    assert [each.options["fold_affine"] for each in result.reports] == [False]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(min_sqnr=30), "SQNR is -?[0-9.]+ dB, min_sqnr is 30"),
        (Limits(max_bytes=100), "the model takes [0-9,]+ bytes, max_bytes is 100"),
        (Limits(min_speedup=1000), "the speed-up is [0-9.]+, min_speedup is 1000"),
        (Limits(min_sqnr=30, max_bytes=100), "SQNR .*; the model takes"),
    ],
)
def test_a_limit_not_met_leaves_nothing(model, out, samples, halve, limits, words):
    with pytest.raises(LimitsNotMet, match=words) as caught:
        compress(model, out, recipe=[halve], data=samples, limits=limits, bench_seconds=QUICK)
    assert folder_of(out) == []
    assert caught.value.result.path is None


def test_max_drop_is_measured_by_the_metric(model, out, samples, halve):
    opposite = type(halve)(factor=-1.0, include=("second",))
    with pytest.raises(LimitsNotMet, match=r"top1 fell by .*, max_drop is 0\.1"):
        compress(
            model,
            out,
            recipe=recipe(opposite, limits=Limits(max_drop=0.1)),
            data=samples,
            metric="top1",
            bench_seconds=QUICK,
        )


def test_keep_writes_what_does_not_hold_the_limits(model, out, samples, halve):
    with pytest.raises(LimitsNotMet, match="the model is in"):
        compress(model, out, recipe=[halve], data=samples, limits=Limits(min_sqnr=99), keep=True, bench_seconds=QUICK)
    assert folder_of(out) == ["result.onnx"]


def test_max_drop_needs_a_metric(model, out, samples):
    with pytest.raises(ConfigError, match=r"max_drop 0\.1 needs a metric"):
        compress(model, out, recipe=[], data=samples, limits=Limits(max_drop=0.1))


def test_judging_samples_may_be_others(model, out, samples):
    calibration = {"x": np.zeros((4, 8), np.float32)}
    result = compress(model, out, recipe=[], data=calibration, test=samples, metric="top1", bench_seconds=QUICK)
    assert result.verification.providers[0].metric_after == 1.0


def test_warns_where_the_samples_that_calibrate_also_judge(model, out, samples):
    result = compress(model, out, recipe=recipe(needs_data=True), data=samples, metric="top1", bench_seconds=QUICK)
    assert any("the samples that calibrated" in each for each in result.warnings)


def test_the_input_is_never_overwritten(model, samples):
    with pytest.raises(ConfigError, match="never overwritten"):
        compress(model, model, recipe=[], data=samples)


def test_a_model_that_onnx_runtime_does_not_run_is_refused_first(model, out):
    loaded = Model.load(model)
    loaded.graph.nodes[1].op = "Unheard"
    broken = model.with_name("broken.onnx")
    loaded.save(broken)
    with pytest.raises(ModelError, match=r"cannot load broken\.onnx"):
        compress(broken, out, recipe=[])
    assert folder_of(out) == []


def test_a_result_that_does_not_run_is_a_bug_and_not_written(model, out, samples, halve, monkeypatch):
    def break_it(self, graph, bench):
        weight = next(each for each in graph.constants() if each.name == "b")
        graph.replace_weight(weight, np.zeros(3, np.float32))
        return self.report()

    monkeypatch.setattr(type(halve), "apply", break_it)
    with pytest.raises(ResultError, match="the passes halve made a model that does not run"):
        compress(model, out, recipe=[halve], data=samples)
    assert folder_of(out) == []


@pytest.mark.parametrize("wrong", [{"passes": ["encode"]}, ["encode"], 3])
def test_a_recipe_of_the_wrong_kind_is_told_what_is_accepted(model, out, wrong):
    with pytest.raises(ConfigError, match="give the name of a built-in recipe, a recipe file, a Recipe, or a list"):
        compress(model, out, recipe=wrong)


def test_a_provider_may_be_a_plain_name(model, out, samples):
    result = compress(model, out, recipe=[], data=samples, providers="cpu", bench_seconds=QUICK)
    assert [each.provider for each in result.benchmarks] == ["CPUExecutionProvider"]


def test_the_file_of_a_model_in_memory_is_never_overwritten(model, samples):
    with pytest.raises(ConfigError, match="never overwritten"):
        compress(Model.load(model), model, recipe=[], data=samples)


def test_samples_and_recipes_are_never_overwritten(model, samples, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("passes: []", encoding="utf-8")
    for options, place in (({"data": samples}, samples), ({"test": samples}, samples), ({"recipe": mine}, mine)):
        with pytest.raises(ConfigError, match="never overwritten"):
            compress(model, place, **options)


def test_wrong_samples_are_refused(model, out):
    with pytest.raises(FeedError, match="x"):
        compress(model, out, recipe=[], data={"x": np.zeros((4, 9), np.float32)})
    assert folder_of(out) == []


def test_passes_that_learn_are_not_taught_by_made_up_inputs(model, out):
    with pytest.raises(FeedError, match="prune-second-order learns from samples what layers read; give some"):
        compress(model, out, recipe=[PruneSecondOrder(sparsity=0.5, min_size=1)], bench_seconds=QUICK)
    plain = PruneChannels(pruning_ratio=0.25, round_to=1)
    blind = PruneChannels(pruning_ratio=0.25, round_to=1, importance="l2", allocation="uniform", reconstruct=False)
    made = [compress(model, out, recipe=[each], bench_seconds=QUICK).hashes_after for each in (plain, blind)]
    assert made[0] == made[1]


def test_warns_where_samples_judge_what_learned_from_them(model, out, samples):
    recipe, words = [PruneChannels(pruning_ratio=0.25, round_to=1)], "samples that prune-channels learned from"
    result = compress(model, out, recipe=recipe, data=samples, bench_seconds=QUICK)
    assert any(words in each for each in result.warnings)
    result = compress(model, out, recipe=recipe, data=samples, test=samples, bench_seconds=QUICK)
    assert not any(words in each for each in result.warnings)


def test_samples_to_learn_from_must_be_numbers(model, out):
    data = {"x": np.full((4, 8), np.nan, np.float32)}
    with pytest.raises(FeedError, match="32 NaN or infinite numbers in input 'x'"):
        compress(model, out, recipe=[PruneChannels(pruning_ratio=0.25, round_to=1)], data=data, bench_seconds=QUICK)


def test_a_confidence_without_a_drop_is_refused(model, out, samples):
    with pytest.raises(ConfigError, match=r"confidence 0\.9 is that a metric keeps to a limit: give max_drop"):
        compress(model, out, goal="size", confidence=0.9, data=samples)
