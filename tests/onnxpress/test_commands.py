"""What each command prints and writes."""

import json

import onnx
import pytest

from onnxpress.recipe import load
from onnxpress.rewriter.model import Model

QUICK = ("--seconds", "0.01")


def test_compress_writes_the_result_and_says_what_it_did(run, model, out, samples):
    status, printed, complaint = run("compress", model, "-o", out, "--recipe", "balanced", "--data", samples)
    assert (status, complaint) == (0, "")
    assert "times smaller" in printed
    assert f"wrote {out}" in printed
    assert [each.name for each in out.parent.iterdir()] == ["result.onnx"]


@pytest.mark.parametrize("recipe", ["smallest", "balanced", "int8", "int4", "fastest", "slim"])
def test_every_built_in_recipe_runs(run, model, out, samples, recipe):
    status, _, complaint = run("compress", model, "-o", out, "--recipe", recipe, "--data", samples)
    assert status == 0, complaint
    assert Model.load(out).outputs == ("y",)


def test_machines_read_json_alone_on_standard_output(run, model, out, samples):
    status, printed, complaint = run(
        "compress", model, "-o", out, "--data", samples, "--metric", "top1", "--json", "-", "--recipe", "balanced"
    )
    content = json.loads(printed)["compression"]
    assert status == 0
    assert content["output"]["bytes"] == out.stat().st_size
    assert content["verification"]["metric"] == "top1"
    assert [each["name"] for each in content["passes"]] == ["normalise", *(p.name for p in load("balanced").passes)]
    assert "times smaller" in complaint


@pytest.mark.parametrize(
    ("command", "key"),
    [(("inspect",), "inspection"), (("verify", "B"), "verification"), (("bench", "B"), "benchmarks")],
)
def test_json_of_the_other_commands(run, model, command, key):
    extra = [model if each == "B" else each for each in command[1:]]
    extra += QUICK if command[0] == "bench" else ()
    status, printed, _ = run(command[0], model, *extra, "--json", "-")
    assert status == 0
    assert json.loads(printed)[key]


def test_writes_reports_to_files(run, model, out, samples, tmp_path):
    report, page = tmp_path / "report.json", tmp_path / "report.html"
    status, _, _ = run("compress", model, "-o", out, "--data", samples, "--json", report, "--html", page)
    assert status == 0
    assert json.loads(report.read_text(encoding="utf-8"))["kind"] == "compression"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_inspect_lists_couplings_where_asked(run, model):
    assert "coupled axes" not in run("inspect", model)[1]
    status, printed, complaint = run("inspect", model, "--couplings")
    assert (status, complaint) == (0, "")
    assert "of which can be pruned" in printed
    assert "1 → 1: first → second" in printed


@pytest.mark.parametrize(("name", "begins"), [("c.svg", "<svg"), ("c.DOT", "digraph")])
def test_inspect_draws_couplings(run, model, tmp_path, name, begins):
    status, printed, complaint = run("inspect", model, "--draw", tmp_path / name)
    assert (status, complaint) == (0, "")
    assert (tmp_path / name).read_text(encoding="utf-8").startswith(begins)
    assert f"wrote {tmp_path / name}" in printed


def test_inspect_as_json_holds_the_couplings(run, model):
    _, printed, _ = run("inspect", model, "--json", "-")
    found = json.loads(printed)["inspection"]["couplings"]
    first = next(each for each in found if each["name"] == "first")
    assert (first["units"], first["frozen"]) == (64, None)
    assert {each["role"] for each in first["members"]} == {"out", "in", "parameter", "activation"}


def test_inspect_refuses_drawings_that_nobody_can_draw(refused, model, tmp_path):
    assert "ends in .svg or .dot" in refused("inspect", model, "--draw", tmp_path / "couplings.png")
    assert "folder that exists" in refused("inspect", model, "--draw", tmp_path / "none" / "couplings.svg")
    assert not (tmp_path / "couplings.png").exists()


def test_inspect_lists_layers(run, model):
    status, printed, complaint = run("inspect", model)
    assert (status, complaint) == (0, "")
    assert "2 layers with float weights" in printed
    assert "64×8" in printed


def test_verify_compares(run, model, samples):
    status, printed, _ = run("verify", model, model, "--data", samples, "--metric", "top1")
    assert status == 0
    assert "equal" in printed
    assert "1.0000" in printed


def test_bench_times(run, model, samples):
    status, printed, _ = run("bench", model, model, "--data", samples, "--threads", "1", *QUICK)
    assert status == 0
    assert "times as fast on cpu" in printed


def test_decode_writes_dense_weights(run, model, out, samples, tmp_path):
    run("compress", model, "-o", out, "--recipe", "smallest", "--data", samples)
    dense = tmp_path / "dense.onnx"
    status, printed, _ = run("decode", out, "-o", dense)
    assert status == 0
    assert "weights decoded" in printed
    assert not Model.load(dense).functions


def test_recipes_are_listed_and_printed(run):
    assert "smallest" in run("recipes")[1]
    assert "share-kmeans" in run("recipes", "smallest")[1]
    assert (
        "prune-magnitude"
        in json.loads(run("recipes", "--schema")[1])["properties"]["passes"]["items"]["anyOf"][0]["enum"]
    )


def test_version_and_help(run):
    assert run("--version")[1].startswith("onnxpress 0.")
    assert "compress" in run()[1]
    assert run("--help")[0] == run("compress", "--help")[0] == 0


def test_a_limit_not_met_ends_with_3_and_writes_nothing(run, model, out, samples):
    status, printed, complaint = run("compress", model, "-o", out, "--data", samples, "--max-bytes", "10")
    assert status == 3
    assert "onnxpress: limit not met: the model takes" in complaint
    assert "wrote" not in printed
    assert not list(out.parent.iterdir())


def test_a_limit_not_met_still_gives_the_report(run, model, out, samples):
    status, printed, _ = run("compress", model, "-o", out, "--data", samples, "--max-bytes", "10", "--json", "-")
    assert status == 3
    assert json.loads(printed)["compression"]["unmet"]


def test_keep_writes_it_all_the_same(run, model, out, samples):
    assert run("compress", model, "-o", out, "--data", samples, "--max-bytes", "10", "--keep")[0] == 3
    assert out.is_file()


def test_verify_and_bench_hold_limits(run, model, out, samples):
    run("compress", model, "-o", out, "--recipe", "balanced", "--data", samples)
    assert run("verify", model, out, "--data", samples, "--min-sqnr", "200")[0] == 3
    assert run("verify", model, out, "--data", samples, "--min-sqnr", "1")[0] == 0
    assert run("bench", model, out, "--min-speedup", "1000", *QUICK)[0] == 3


def test_names_that_play_tricks_on_a_terminal_are_defused(run, model):
    proto = onnx.load(model)
    proto.graph.node[0].name = "bad\x1b[2Jname\nnext"
    onnx.save(proto, model)
    status, printed, _ = run("inspect", model)
    assert status == 0
    assert "\x1b" not in printed
    assert "bad" in printed
