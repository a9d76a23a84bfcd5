"""What the README tells a stranger to copy works."""

import json
import re
import runpy
from pathlib import Path

import pytest

from onnxpress.passes.registry import BUILT_IN
from onnxpress.recipe import load

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("number", range(2))
def test_the_python_examples_run(number, model, samples, tmp_path, monkeypatch):
    assert len(blocks("python")) == 2
    (tmp_path / "model.onnx").write_bytes(model.read_bytes())
    assert samples.name == "samples.npz"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "example.py").write_text(blocks("python")[number], encoding="utf-8")
    runpy.run_path("example.py")
    assert (tmp_path / "small.onnx").is_file()


def test_the_recipe_is_valid(tmp_path):
    (tmp_path / "mine.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    assert [each.name for each in load(tmp_path / "mine.yaml").passes] == ["prune-magnitude", "share-kmeans", "encode"]


def test_the_pipeline_runs(run, model, samples, tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_bytes(model.read_bytes())
    (tmp_path / "pipeline.yaml").write_text(blocks("yaml")[1], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    section = README.read_text(encoding="utf-8").split("## In a pipeline")[1].split("## ")[0]
    schema, dry, verify = re.findall(r"^onnxpress .*", section, re.MULTILINE)
    assert json.loads(run(*schema.split(">")[0].split()[1:])[1])
    assert run(*dry.split()[1:])[0] == 0
    assert run("run", "pipeline.yaml")[0] == 0
    assert {each.name for each in (tmp_path / "build").iterdir()} == {
        "junit.xml",
        "model.onnx",
        "model.onnx.manifest.json",
        "report.html",
        "report.json",
    }
    assert run(*verify.split("#")[0].split()[1:])[0] == 0


def test_every_option_of_the_command_line_exists(run):
    commands = re.findall(r"^onnxpress .*", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) >= 5
    for line in commands:
        command, *words = line.split("#")[0].split()[1:]
        shown = run(command, "--help")[1]
        for word in words:
            assert not word.startswith("--") or word in shown, line


def test_every_pass_is_in_the_table():
    table = README.read_text(encoding="utf-8").split("## Passes")[1].split("## ")[0]
    assert [name for name in BUILT_IN if f"`{name}`" not in table] == []
