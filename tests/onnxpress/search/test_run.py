"""What is wrong is said before the search, and what is delivered is what is told of."""

import hashlib
import json

import numpy as np
import onnx
import pytest

from onnxpress.cli import main
from onnxpress.compression import compress
from onnxpress.outcome import LimitsNotMet
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.share.kmeans import ShareKMeans
from onnxpress.report import account
from onnxpress.rewriter.errors import ConfigError, FeedError
from onnxpress.rewriter.model import Model
from onnxpress.search import measure, search
from onnxpress.search import run as module
from onnxpress.search.measure import falls_short
from onnxpress.search.plans import Plan, Route
from onnxpress.search.trial import Trial
from onnxpress.tables import summary

QUICK = 0.01


@pytest.fixture(autouse=True)
def routes(monkeypatch):
    """Quick ones."""

    def plan(strength):
        bits = round(8 - 7 * strength)
        return Plan(f"{bits} bits", (ShareKMeans(bits=bits, min_size=1), Encode(measure=False, least_saving=0)))

    monkeypatch.setattr(search, "sizes", lambda *, learns: [Route("bits", plan, 0.5, 2)])


class Fixed:
    """Says the same of every model."""

    name = "fixed"

    def __init__(self, value):
        self.value = value

    def __call__(self, runner, feed, /):
        return self.value


def never(self):
    raise AssertionError("nothing is to be searched for")


def test_a_metric_that_fails_on_the_input_ends_it_at_once(model, out, monkeypatch):
    monkeypatch.setattr(search.Search, "run", never)
    bare = {"x": np.zeros((64, 8), np.float32)}
    with pytest.raises(FeedError, match="top1 needs labels"):
        compress(model, out, goal="size", max_drop=0.1, metric="top1", data=bare, bench_seconds=QUICK)
    with pytest.raises(ConfigError, match="metric fixed is nan for the input"):
        compress(model, out, goal="size", max_drop=0.1, metric=Fixed(float("nan")), data=bare, bench_seconds=QUICK)
    assert not list(out.parent.iterdir())


def test_a_function_is_no_metric(model, out, samples):
    with pytest.raises(ConfigError, match="give top1, module:function, or a Metric"):
        compress(model, out, goal="size", max_drop=0.1, metric=lambda runner: 1.0, data=samples)


@pytest.mark.parametrize("place", [".", "result.onnx", "result.onnx/search"])
def test_a_search_gets_a_folder_of_its_own(model, out, samples, place):
    with pytest.raises(ConfigError, match="give the search a folder of its own"):
        compress(model, out, goal="size", data=samples, folder=out.parent / place)
    assert not list(out.parent.iterdir())


def test_a_folder_without_a_search_is_refused(model, out, samples):
    with pytest.raises(ConfigError, match="is of a search: give a goal"):
        compress(model, out, recipe="smallest", data=samples, folder=out.parent / "search")


def test_the_manifest_tells_of_the_files_that_are_delivered(tmp_path, model, out, samples):
    wide = tmp_path / "wide"
    wide.mkdir()
    onnx.save(onnx.load(model), wide / out.name, save_as_external_data=True, size_threshold=0, location="w.data")
    given = ["compress", str(wide / out.name), "-o", str(out), "--goal", "size", "--data", str(samples)]
    manifest = out.parent / "manifest.json"
    for least, status in (("200", 3), ("5", 0)):
        assert main([*given, "--min-sqnr", least, "--manifest", str(manifest)]) == status
        files = json.loads(manifest.read_text())["manifest"]["output"]["files"]
        there = [each for each in out.parent.iterdir() if each != manifest]
        found = {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in there}
        assert {name: each["sha256"] for name, each in files.items()} == found


def test_samples_that_were_parted_are_not_said_to_judge_what_they_taught(model, out, samples, monkeypatch):
    def learned(strength):
        return Plan("learned", (ShareKMeans(bits=4, min_size=1, importance="hessian"), Encode(measure=False)))

    monkeypatch.setattr(search, "sizes", lambda *, learns: [Route("r", learned, steps=1)])
    result = compress(model, out, goal="size", min_sqnr=5, data=samples, bench_seconds=QUICK)
    assert not any("learned from" in each for each in result.warnings)


def test_few_samples_make_no_confidence_and_that_is_said(model, out, samples):
    result = compress(model, out, goal="size", max_drop=0.3, metric="top1", data=samples, bench_seconds=QUICK)
    assert result.gate.samples == 16
    assert any("judged on 16 samples, too few" in each for each in result.warnings)


def test_every_candidate_has_a_reason(model):
    trials = [Trial(name="a", key="k", passes=({"encode": {}},), outcome="accepted", gain=1.001, digest="d")]
    assert "a: what it gains is within noise" in module._why([], trials, Model.load(model))
    assert "there was time for no candidate" in module._why([], [], Model.load(model))
    assert "no pass finds anything to do" in module._why([], trials * 2, Model.load(model))


def test_a_candidate_for_which_there_is_no_time_does_not_end_the_others(model, out, samples, monkeypatch):
    def slow(strength):
        return Plan("slow", (ShareKMeans(bits=8, min_size=1),))

    def quick(strength):
        return Plan("quick", (ShareKMeans(bits=4, min_size=1), Encode(measure=False, least_saving=0)))

    monkeypatch.setattr(search, "sizes", lambda *, learns: [Route("a", slow, steps=1), Route("b", quick, steps=1)])
    monkeypatch.setattr(search.Search, "_expected", lambda self, plan: 1e9 * (plan.name == "slow"))
    result = compress(model, out, goal="size", min_sqnr=5, data=samples, bench_seconds=QUICK)
    assert [each.name for each in result.trials] == ["normalised", "quick"]


def test_nothing_is_delivered_that_a_limit_forbids(model, out, samples):
    with pytest.raises(LimitsNotMet, match="the limit 100x asks for"):
        compress(model, out, goal="size", min_sqnr=5, limit="100x", data=samples, bench_seconds=QUICK)
    assert out.read_bytes() == model.read_bytes()


def test_a_metric_that_cannot_be_drawn_again_is_said_to_be_none(model, out, samples):
    result = compress(model, out, goal="size", max_drop=0.3, metric=Fixed(1.0), data=samples, bench_seconds=QUICK)
    assert any("how sure that is cannot be said" in each for each in result.warnings)
    with pytest.raises(ConfigError, match="leave confidence out"):
        compress(
            model, out, goal="size", max_drop=0.3, confidence=0.9, metric=Fixed(1.0), data=samples, bench_seconds=QUICK
        )


def test_what_sqnr_cannot_judge_is_said_to_need_a_metric():
    assert "judge by a metric" in falls_short(float("nan"), 20)
    assert falls_short(12.34, 20) == "12.3 dB, 20 wanted"


def test_memory_is_told_of_where_it_is_the_goal(model, out, samples, monkeypatch):
    taken = {model: 8 << 20}
    monkeypatch.setattr(search, "numbers", lambda bench, goal: search.sizes(learns=True))
    monkeypatch.setattr(measure, "memory_of", lambda path, batch, **_: taken.get(path, 2 << 20))
    result = compress(model, out, goal="memory", min_sqnr=5, data=samples, bench_seconds=QUICK)
    assert account(result)["memory"] == (8 << 20, 2 << 20)
    assert ["memory", "8.39 MB", "2.10 MB", "4.00 times less"] in [list(row) for row in summary(result).rows]


def test_what_loading_takes_is_told_where_weights_are_encoded(model, out, samples, monkeypatch):
    monkeypatch.setattr(module, "_SLOW", -1e9)
    result = compress(model, out, goal="size", min_sqnr=5, data=samples, bench_seconds=QUICK)
    assert any("huffman: false" in each for each in result.warnings)
