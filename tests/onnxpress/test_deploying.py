"""A pipeline delivers a model that keeps to its gates, or reports that say why there is none."""

import json
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from onnxpress import deploying, deployment
from onnxpress.checking import read_manifest
from onnxpress.outcome import LimitsNotMet
from onnxpress.rewriter.errors import ConfigError, FeedError, ModelError, ProviderError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites

METRICS = """
import numpy as np

def halved(runner, feed):
    return 1.0

def broken(runner, feed):
    raise ZeroDivisionError("no samples")
"""
REPORTS = {"report": "build/report.json", "junit": "build/junit.xml", "html": "build/report.html"}


@pytest.fixture
def folder(tmp_path, model, samples, quick):
    """A folder with the small model, its samples and a module of metrics."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "small.onnx").write_bytes(model.read_bytes())
    (place / "samples.npz").write_bytes(samples.read_bytes())
    (place / "own_metrics_of_a_pipeline.py").write_text(METRICS, encoding="utf-8")
    return place


@pytest.fixture
def pipeline(folder):
    """Write a pipeline file beside them."""

    def pipeline(**changes):
        content = {
            "model": "small.onnx",
            "data": "samples.npz",
            "metric": "top1",
            "passes": [{"share-kmeans": {"bits": 8, "min_size": 1}}, "encode"],
            "targets": {"threads": 1, "seconds": 0.01},
            "gates": {"min_sqnr": 5},
            "output": {"model": "build/out.onnx", **REPORTS},
            **changes,
        }
        path = folder / "pipeline.yaml"
        path.write_text(yaml.safe_dump({key: each for key, each in content.items() if each is not None}))
        return path

    return pipeline


def cases(folder):
    """What the JUnit report says, by name."""
    suite = ElementTree.parse(folder / "build" / "junit.xml").getroot()[0]
    return {each.get("name"): [below.tag for below in each] for each in suite}


def test_writes_model_manifest_and_reports(pipeline, folder):
    gates = {"max_drop": 1, "min_sqnr": 5, "max_bytes": 10**6, "parity": {"cpu": 5}, "max_load_seconds": 60}
    result = deploying.deploy(deployment.read(pipeline(gates={**gates, "max_load_ratio": 1e6, "min_speedup": 1e-6})))
    names = {"junit.xml", "out.onnx", "out.onnx.manifest.json", "report.html", "report.json"}
    assert {each.name for each in (folder / "build").iterdir()} == names
    assert result.path == folder / "build" / "out.onnx"
    assert Model.load(result.path).outputs == ("y",)
    wanted = ["run", "max_drop", "min_sqnr", "max_bytes", "min_speedup", "parity.CPUExecutionProvider"]
    assert list(cases(folder)) == [*wanted, "max_load_seconds", "max_load_ratio"]
    assert set(map(tuple, cases(folder).values())) == {("system-out",)}
    content = json.loads((folder / "build" / "report.json").read_text(encoding="utf-8"))["run"]
    assert (content["status"], content["pipeline"]) == ("done", "pipeline.yaml")
    assert [each["holds"] for each in content["gates"]] == [True] * 7
    assert content["compression"]["output"]["bytes"] == result.bytes_after


def test_the_manifest_agrees_with_what_was_written(pipeline, folder):
    deploying.deploy(deployment.read(pipeline(seed=3)))
    found = read_manifest(folder / "build" / "out.onnx.manifest.json")
    assert found.differing() == []
    assert set(found.files()) == {"out.onnx", "../small.onnx", "../samples.npz", "../pipeline.yaml"}


def test_the_manifest_names_all_that_was_read(pipeline, folder, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (folder / "mine.yaml").write_text("passes: [encode]", encoding="utf-8")
    changes = {"passes": None, "recipe": "mine.yaml", "metric": "own_metrics_of_a_pipeline:halved"}
    deploying.deploy(deployment.read(pipeline(**changes)))
    found = read_manifest(folder / "build" / "out.onnx.manifest.json").content.sources
    assert {name: [*each.files] for name, each in found.items()} == {
        "pipeline": ["../pipeline.yaml"],
        "recipe": ["../mine.yaml"],
        "data": ["../samples.npz"],
        "metric": [],
        "module of metric": ["../own_metrics_of_a_pipeline.py"],
    }


@pytest.mark.parametrize(
    ("gates", "name"),
    [
        ({"min_sqnr": 500}, "min_sqnr"),
        ({"max_bytes": 10}, "max_bytes"),
        ({"min_speedup": 1e6}, "min_speedup"),
        ({"parity": {"cpu": 500}}, "parity.CPUExecutionProvider"),
        ({"max_load_seconds": 1e-9}, "max_load_seconds"),
        ({"max_load_ratio": 1e-9}, "max_load_ratio"),
        ({"max_drop": 0, "confidence": 0.9}, "max_drop"),
    ],
)
def test_a_gate_that_does_not_hold_leaves_only_the_reports(pipeline, folder, gates, name):
    with pytest.raises(LimitsNotMet, match=name.partition(".")[0]):
        deploying.deploy(deployment.read(pipeline(gates=gates, passes=[{"prune-magnitude": {"sparsity": 0.95}}])))
    assert {each.name for each in (folder / "build").iterdir()} == {"junit.xml", "report.html", "report.json"}
    assert cases(folder) == {"run": ["system-out"], name: ["failure", "system-out"]}
    content = json.loads((folder / "build" / "report.json").read_text(encoding="utf-8"))["run"]
    assert content["status"] == "gate not met"
    assert [(each["gate"], each["holds"]) for each in content["gates"]] == [(name, False)]


def test_an_earlier_result_stays_where_a_gate_does_not_hold(pipeline, folder):
    deploying.deploy(deployment.read(pipeline()))
    before = (folder / "build" / "out.onnx").read_bytes()
    with pytest.raises(LimitsNotMet):
        deploying.deploy(deployment.read(pipeline(gates={"max_bytes": 10})))
    assert (folder / "build" / "out.onnx").read_bytes() == before
    assert read_manifest(folder / "build" / "out.onnx.manifest.json").differing(output_only=True) == []


def test_a_run_that_breaks_is_an_error_of_the_run(pipeline, folder):
    order = deployment.read(pipeline(metric="own_metrics_of_a_pipeline:broken", gates={"max_drop": 1, "min_sqnr": 1}))
    with pytest.raises(ConfigError, match=r"^pipeline\.yaml: metric own_metrics_of_a_pipeline:broken raised"):
        deploying.deploy(order)
    assert cases(folder) == {"run": ["error"], "max_drop": ["skipped"], "min_sqnr": ["skipped"]}
    content = json.loads((folder / "build" / "report.json").read_text(encoding="utf-8"))["run"]
    assert (content["status"], content["error"].partition(":")[0]) == ("broken", "ConfigError")
    assert {each.name for each in (folder / "build").iterdir()} == {"junit.xml", "report.json", "report.html"}
    assert "the run broke" in (folder / "build" / "report.html").read_text(encoding="utf-8")


def test_what_broke_is_said_where_the_reports_cannot_be_written_either(pipeline, monkeypatch):
    def full(*given, **options):
        raise ConfigError("cannot write junit.xml: No space left on device")

    monkeypatch.setattr(deploying, "write_junit", full)
    order = deployment.read(pipeline(metric="own_metrics_of_a_pipeline:broken", gates={"max_drop": 1}))
    with pytest.raises(ConfigError, match=r"^pipeline\.yaml: metric .*; nor can its reports be written: .*space"):
        deploying.deploy(order)


def test_functions_beside_the_file_are_found(pipeline, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    order = deployment.read(pipeline(metric="own_metrics_of_a_pipeline:halved"))
    assert deploying.deploy(order).verification.drop == 0


def test_a_search_that_gains_nothing_fails_the_goal(pipeline, folder, monkeypatch):
    def nothing(model, out, *, goal, limit, folder, recipe, limits, **options):
        assert (goal, limit, limits.min_sqnr, folder.name, recipe) == ("size", "9x", 30, "tried", None)
        found = compress(model, out, recipe="balanced", **options)
        raise LimitsNotMet(replace(found, version="original", unmet=("nothing gains",)))

    compress = deploying.compress
    monkeypatch.setattr(deploying, "compress", nothing)
    budget = {"goal": "size", "limit": "9x", "min_sqnr": 30}
    with pytest.raises(LimitsNotMet):
        deploying.deploy(deployment.read(pipeline(passes=None, gates=None, budget=budget, folder="tried")))
    assert cases(folder) == {"run": ["system-out"], "goal": ["failure", "system-out"], "min_sqnr": ["system-out"]}
    assert read_manifest(folder / "build" / "out.onnx.manifest.json").differing() == []


def test_a_search_is_as_sure_as_the_gates_say(pipeline, monkeypatch):
    def instead(model, out, *, limits, confidence=None, **options):
        found.append((limits.max_drop, limits.confidence, confidence))
        raise ConfigError("enough")

    found = []
    monkeypatch.setattr(deploying, "compress", instead)
    budget = {"goal": "size", "max_drop": 0.02, "confidence": 0.7}
    for gates in ({}, {"confidence": 0.95}, {"max_drop": 0.01}):
        with pytest.raises(ConfigError, match="enough"):
            deploying.deploy(deployment.read(pipeline(passes=None, gates=gates, budget=budget, metric="top1")))
    assert found == [(0.02, 0.7, None), (0.02, 0.95, None), (0.01, 0.7, None)]


@pytest.mark.parametrize(
    ("changes", "kind", "complaint"),
    [
        ({"model": "none.onnx"}, ModelError, "model: "),
        ({"model": "samples.npz"}, ModelError, "model: "),
        ({"data": "none.npz"}, FeedError, "data: no file, folder or module:function"),
        ({"test": "small.onnx"}, FeedError, "test: "),
        ({"metric": "own_metrics_of_a_pipeline:none"}, ConfigError, "metric: 'own_metrics_of_a_pipeline:none'"),
        ({"metric": "no_such_module_at_all:f"}, ConfigError, "metric: 'no_such_module_at_all:f': no module"),
        ({"targets": {"providers": ["gpu"]}}, ConfigError, "targets.providers: provider 'gpu' is unknown"),
        ({"targets": {"providers": ["qnn"]}}, ProviderError, "targets.providers: "),
        ({"gates": {"parity": {"cuda": 1}}}, ConfigError, "gates.parity: CUDAExecutionProvider is none of"),
        ({"output": {"model": "small.onnx"}}, ConfigError, "output: model "),
        ({"output": {"model": "a.onnx", "html": "pipeline.yaml"}}, ConfigError, "output: html "),
        ({"output": {"model": "a.onnx", "html": "a.onnx"}}, ConfigError, "output: model and html are both"),
        ({"output": {"model": "a.onnx", "report": "a.onnx.manifest.json"}}, ConfigError, "output: report and manifest"),
        ({"output": {"model": "."}}, ConfigError, "output.model: "),
        (
            {"output": {"model": "own_metrics_of_a_pipeline.py"}, "metric": "own_metrics_of_a_pipeline:halved"},
            ConfigError,
            "output: model ",
        ),
        ({"output": {"model": "samples.npz/a.onnx"}}, ConfigError, "output.model: "),
        ({"output": {"model": f"{'long' * 100}.onnx"}}, ConfigError, "output.model: "),
    ],
)
def test_checks_all_before_the_work_begins(pipeline, folder, changes, kind, complaint):
    before = sorted(each.name for each in folder.iterdir())
    with pytest.raises(kind) as caught:
        deploying.check(deployment.read(pipeline(**changes)))
    assert str(caught.value).startswith(f"pipeline.yaml: {complaint}")
    assert "\n" not in str(caught.value)
    assert sorted(each.name for each in folder.iterdir()) == sorted([*before, "pipeline.yaml"])


def test_the_command_ends_as_the_run_does(pipeline, folder, run):
    status, printed, complaint = run("run", pipeline(), "--set", "gates.max_drop=1")
    assert (status, complaint) == (0, "")
    assert f"wrote {folder / 'build' / 'out.onnx'}" in printed
    assert "holds" in printed
    status, printed, complaint = run("run", pipeline(), "--set", "gates.max_bytes=10")
    assert status == 3
    assert complaint.startswith("onnxpress: limit not met: the model takes")
    assert complaint.endswith("; only the reports were written\n")
    assert "DOES NOT HOLD  max_bytes" in printed


def test_a_dry_run_writes_nothing(pipeline, folder, run):
    status, printed, complaint = run("run", pipeline(), "--dry-run")
    assert (status, complaint) == (0, "")
    assert "pipeline.yaml can be run" in printed
    assert "share-kmeans, encode" in printed
    assert not (folder / "build").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--set", "gates.max_dorp=1"), "pipeline.yaml: gates.max_dorp: there is no such field"),
        (("--set", "model=none.onnx"), "pipeline.yaml: model: "),
        (("--set", "nothing"), "--set nothing: write field.below=value"),
        (("--dry-run", "--set", "data=none.npz"), "pipeline.yaml: data: no file"),
        (("--dry", "x"), "No such option"),
    ],
)
def test_wrong_input_is_one_line(pipeline, folder, refused, arguments, complaint):
    assert complaint in refused("run", pipeline(), *arguments)
    assert not (folder / "build").exists()


def test_the_command_wants_a_file(refused):
    assert "name a pipeline file" in refused("run")


def test_the_command_prints_the_schema(run):
    status, printed, _ = run("run", "--schema")
    assert status == 0
    assert json.loads(printed)["title"] == "onnxpress pipeline"


def test_overrides_give_some_layers_other_options(pipeline):
    passes = [{"share-kmeans": {"bits": 2, "min_size": 1, "overrides": {"second": {"bits": 6}}}}]
    order = deployment.read(pipeline(passes=passes, gates={"min_sqnr": -50}))
    result = deploying.deploy(order)
    model = Model.load(result.path)
    kinds = {site.name: len(np.unique(site.array())) for site in find_sites(model)}
    assert (kinds["first"], 4 < kinds["second"] <= 64) == (4, True)
