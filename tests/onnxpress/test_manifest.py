"""A manifest says what lies beside it, and notices when it no longer does."""

import json
import os
import re
from dataclasses import replace

import numpy as np
import onnx
import pytest

from onnxpress.checking import read_manifest
from onnxpress.compression import compress
from onnxpress.manifest import beside, write_manifest
from onnxpress.rewriter.errors import ConfigError, ModelError
from onnxpress.rewriter.model import Model
from onnxpress.search.bootstrap import Drop


@pytest.fixture
def made(model, samples, out, halve, quick):
    """A result, and its manifest."""
    result = compress(model, out, recipe=[halve], data=str(samples), metric="top1", seed=5)
    path = beside(out)
    write_manifest(result, path, seed=5, sources={"data": str(samples), "test": None, "metric": "top1"})
    return result, path


def content(path):
    return json.loads(path.read_text(encoding="utf-8"))["manifest"]


def test_says_how_the_result_came_about(made, model, samples, out):
    result, path = made
    assert path.name == "result.onnx.manifest.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    assert {"format", "kind", "when", "versions", "machine", "manifest"} == set(whole)
    found = whole["manifest"]
    assert found["output"]["files"]["result.onnx"] == {
        "bytes": out.stat().st_size,
        "sha256": result.hashes_after["result.onnx"],
    }
    assert found["input"]["model"] == os.path.relpath(model, out.parent)
    assert found["sources"]["metric"] == {"name": "top1", "files": {}}
    assert list(found["sources"]["data"]["files"]) == [os.path.relpath(samples, out.parent)]
    assert found["recipe"]["passes"] == [{"halve": {"factor": 0.5, "include": ["*"], "exclude": []}}]
    assert found["seed"] == 5
    measured = found["measurements"]
    assert measured["bytes"]["after"] == result.bytes_after
    parity = measured["parity"]["CPUExecutionProvider"]
    assert (parity["sqnr"], parity["metric"]["drop"]) == (result.verification.sqnr, 0.0)
    latency = measured["latency"]["CPUExecutionProvider"]
    assert (latency["speedup"], latency["quartiles"]) == (result.speedup, list(result.benchmarks[0].quartiles))
    assert latency["after"]["load"] > 0


def test_agrees_with_what_lies_there_also_from_another_place(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    found = read_manifest(os.path.relpath(made[1]))
    assert found.differing() == []
    assert found.result.is_file()
    assert found.original.is_file()


@pytest.mark.parametrize("text", [b"x", b""])
def test_names_the_file_that_differs(made, samples, out, text):
    samples.write_bytes(samples.read_bytes() + text if text else b"\0" * samples.stat().st_size)
    (line,) = read_manifest(made[1]).differing()
    assert "samples.npz has" in line
    assert read_manifest(made[1]).differing(output_only=True) == []
    out.write_bytes(out.read_bytes() + b"x")
    assert "result.onnx has" in read_manifest(made[1]).differing(output_only=True)[0]


def test_a_missing_file_is_refused(made, model):
    model.unlink()
    with pytest.raises(ModelError, match=r"small\.onnx: the manifest result\.onnx\.manifest\.json names this file"):
        read_manifest(made[1]).differing()
    assert read_manifest(made[1]).differing(output_only=True) == []


def test_a_pipe_in_the_place_of_a_file_is_not_read(made, out):
    out.unlink()
    os.mkfifo(out)
    with pytest.raises(ModelError, match="not there"):
        read_manifest(made[1]).differing()


def test_data_files_of_the_model_count(tmp_path, samples, quick):
    source = tmp_path / "wide.onnx"
    proto = onnx.load(tmp_path / "input" / "small.onnx")
    onnx.save(proto, source, save_as_external_data=True, location="weights.bin", size_threshold=0)
    result = compress(source, tmp_path / "out.onnx", recipe=[], data=str(samples), transport="zst")
    write_manifest(result, beside(tmp_path / "out.onnx"))
    found = content(beside(tmp_path / "out.onnx"))
    assert set(found["input"]["files"]) == {"wide.onnx", "weights.bin"}
    assert set(found["transport"]["files"]) == {f"{name}.zst" for name in found["output"]["files"]}


def test_a_folder_of_samples_counts_file_by_file(made, samples, tmp_path):
    (tmp_path / "folder" / "below").mkdir(parents=True)
    np.save(tmp_path / "folder" / "below" / "a.npy", np.zeros(3))
    write_manifest(made[0], made[1], sources={"data": tmp_path / "folder", "test": {"x": np.zeros(2)}})
    found = content(made[1])["sources"]
    assert list(found["data"]["files"]) == ["../folder/below/a.npy"]
    assert found["test"] == {"name": "a dict in memory", "files": {}}


def test_a_model_in_memory_has_no_file(made, model, samples, out):
    result = compress(Model.load(model), out, recipe=[], data=str(samples))
    write_manifest(result, made[1])
    assert content(made[1])["input"] == {"model": None, "files": {}}
    assert read_manifest(made[1]).differing() == []
    with pytest.raises(ConfigError, match="the input was a model in memory"):
        _ = read_manifest(made[1]).original


def test_nothing_delivered_has_no_manifest(made, tmp_path):
    with pytest.raises(ConfigError, match="nothing was delivered"):
        write_manifest(replace(made[0], path=None), tmp_path / "m.json")
    assert not (tmp_path / "m.json").exists()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda text: "{", "it is not JSON"),
        (lambda text: "[]", "no manifest"),
        (lambda text: "{}", "no manifest: format"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "no manifest: format: should be 1"),
        (lambda text: text.replace('"kind": "manifest"', '"kind": "compression"'), "no manifest: kind"),
        (lambda text: text.replace('"sha256": "', '"sha256": "x'), "no manifest: manifest.input.files"),
        (lambda text: "[" * 100_000, "it is not JSON"),
    ],
)
def test_what_is_no_manifest_is_refused(made, change, complaint):
    made[1].write_text(change(made[1].read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ConfigError, match=complaint) as caught:
        read_manifest(made[1])
    assert "\n" not in str(caught.value)


def test_the_command_checks_files_and_parity(made, run, samples):
    status, printed, complaint = run("verify", "--manifest", made[1])
    assert (status, complaint) == (0, "")
    assert printed == "3 files are what result.onnx.manifest.json says\n"
    assert run("verify", "--manifest", made[1], "--output-only")[1].startswith("1 file is what")
    status, printed, complaint = run("verify", "--manifest", made[1], "--data", samples)
    assert (status, complaint) == (0, "")
    assert "parity is as stated" in printed
    assert "metric top1" in printed


def test_the_command_ends_with_3_where_something_differs(made, refused, run, samples, out):
    worse = made[1].read_text(encoding="utf-8").replace(f'"sqnr": {made[0].verification.sqnr}', '"sqnr": 40.5')
    made[1].write_text(worse, encoding="utf-8")
    status, _, complaint = run("verify", "--manifest", made[1], "--data", samples)
    assert (status, "40.5 in the manifest" in complaint) == (3, True)
    assert run("verify", "--manifest", made[1], "--data", samples, "--tolerance", "40")[0] == 0
    out.write_bytes(b"x")
    status, printed, complaint = run("verify", "--manifest", made[1])
    assert (status, printed, complaint.count("\n")) == (3, "", 1)
    assert "result.onnx has 1 bytes" in complaint


def test_a_metric_that_fell_is_worse(made, run, samples):
    text = made[1].read_text(encoding="utf-8").replace('"drop": 0.0', '"drop": -0.5')
    made[1].write_text(text, encoding="utf-8")
    status, _, complaint = run("verify", "--manifest", made[1], "--data", samples)
    assert status == 3
    assert "top1 on CPUExecutionProvider falls by 0, by at most -0.5 in the manifest" in complaint


def test_samples_on_which_both_models_do_worse_are_no_worse_model(made):
    found, verification = read_manifest(made[1]), made[0].verification
    (here,) = verification.providers
    harder = replace(verification, providers=(replace(here, metric_before=0.5, metric_after=0.5),))
    assert found.worse(harder, tolerance=1.0) == []


def test_a_drop_within_what_the_bootstrap_said_is_as_stated(made):
    gate = Drop(
        metric="top1", value=0.0, limit=0.1, low=0.0, high=0.04, confidence=0.8, probability=1.0, samples=32, draws=9
    )
    write_manifest(replace(made[0], gate=gate), made[1])
    (here,) = made[0].verification.providers
    for after, worse in ((0.955, False), (0.94, True)):
        now = replace(made[0].verification, providers=(replace(here, metric_before=1.0, metric_after=after),))
        assert bool(read_manifest(made[1]).worse(now, tolerance=1.0)) is worse


def test_what_was_no_number_holds_nothing(made):
    text = re.sub(r'"(sqnr|drop)": [-0-9.e]+', r'"\1": "NaN"', made[1].read_text(encoding="utf-8"))
    made[1].write_text(text, encoding="utf-8")
    assert text.count("NaN") == 2  # the SQNR of the worst output, and the drop of the metric
    assert read_manifest(made[1]).worse(made[0].verification, tolerance=1.0) == []


def test_providers_of_which_nothing_is_stated_are_refused(made, run, samples):
    text = made[1].read_text(encoding="utf-8").replace("CPUExecutionProvider", "QNNExecutionProvider")
    made[1].write_text(text, encoding="utf-8")
    status, printed, complaint = run("verify", "--manifest", made[1], "--data", samples, "--providers", "cpu")
    assert (status, "states nothing of CPUExecutionProvider" in complaint) == (2, True)
    assert "parity is as stated" not in printed


def test_a_metric_that_has_no_name_to_find_it_by_is_said_to_be_left_out(made, run, samples):
    text = made[1].read_text(encoding="utf-8").replace('"metric": "top1"', '"metric": "mine"')
    made[1].write_text(text, encoding="utf-8")
    status, printed, _ = run("verify", "--manifest", made[1], "--data", samples)
    assert (status, "parity is as stated; mine was not measured again" in printed) == (0, True)


def test_the_manifest_is_never_overwritten(made, run, samples):
    before = made[1].read_bytes()
    status, _, complaint = run("verify", "--manifest", made[1], "--data", samples, "--json", made[1])
    assert (status, "is what --manifest reads" in complaint) == (2, True)
    assert made[1].read_bytes() == before


def test_outputs_that_were_equal_may_differ_by_rounding(model, samples, out, quick):
    result = compress(model, out, recipe=[], data=str(samples))
    write_manifest(result, beside(out))
    found = read_manifest(beside(out))
    verification = result.verification
    (here,) = verification.providers
    for sqnr, worse in ((np.inf, False), (110.0, False), (60.0, True)):
        (output,) = here.outputs
        now = replace(verification, providers=(replace(here, outputs=(replace(output, sqnr=sqnr),)),))
        assert bool(found.worse(now, tolerance=1.0)) is worse


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--manifest", "none.json"), "cannot read manifest none.json"),
        ((), "give the original and the result, or --manifest FILE"),
        (("a.onnx",), "give the original and the result"),
        (("--manifest", "m.json", "a.onnx"), "leave out"),
        (("--manifest", "m.json", "--min-sqnr", "3"), "leave out --min-sqnr"),
        (("--manifest", "m.json", "--metric", "top1"), "--metric is for what is measured again"),
        (("a.onnx", "b.onnx", "--output-only"), "--output-only belongs to --manifest"),
    ],
)
def test_wrong_usage_of_the_command_is_one_line(refused, arguments, complaint):
    assert complaint in refused("verify", *arguments)
