"""The example of a third party's pass, installed for real, is found and works; a broken one beside it harms none."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onnxpress.models import zoo

EXAMPLE = Path(__file__).parents[2] / "examples" / "own-pass"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder into which pip installed the example, with no network."""
    copy, target = tmp_path_factory.mktemp("copy") / "own-pass", tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--no-compile", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *options, str(copy)], check=True, capture_output=True)
    return target


@pytest.fixture
def python(site, tmp_path, monkeypatch):
    """Runs Python with the example installed, in a folder with a model."""
    shutil.copy(zoo.path("lenet300"), tmp_path / "model.onnx")
    shutil.copy(EXAMPLE / "recipe.yaml", tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-P", *arguments], cwd=tmp_path, capture_output=True, text=True)

    return run


def test_its_own_tests_pass(python):
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "test_round_powers.py"))
    assert done.returncode == 0, done.stdout


def test_a_recipe_finds_it(python, tmp_path):
    done = python("-m", "onnxpress", "compress", "model.onnx", "-o", "small.onnx", "--recipe", "recipe.yaml")
    assert done.returncode == 0, done.stderr
    assert "round-powers" in done.stdout
    assert (tmp_path / "small.onnx").stat().st_size < (tmp_path / "model.onnx").stat().st_size / 6


def test_a_mistake_in_its_options_names_field_and_value(python, tmp_path):
    (tmp_path / "recipe.yaml").write_text("passes: [{round-powers: {levels: 0}}]")
    done = python("-m", "onnxpress", "compress", "model.onnx", "-o", "small.onnx", "--recipe", "recipe.yaml")
    assert done.returncode == 2
    assert "passes.0.levels: levels must be a whole number of at least 1, got 0" in done.stderr


def test_the_python_of_its_readme_runs(python):
    (code,) = re.findall(r"```python\n(.*?)```", (EXAMPLE / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    done = python("-c", code + "print(*[report.name for report in result.reports])")
    assert done.stdout.split() == ["normalise", "round-powers", "encode"], done.stderr


def test_the_schema_has_its_options(python):
    done = python("-m", "onnxpress", "recipes", "--schema")
    assert done.stderr == ""
    assert "round-powers" in json.loads(done.stdout)["properties"]["passes"]["items"]["anyOf"][0]["enum"]
    assert "counted from its largest" in done.stdout


@pytest.fixture
def broken(tmp_path, site, monkeypatch):
    """Installs a distribution whose pass fails when it is imported."""

    def install(code: str) -> None:
        place = tmp_path / "other"
        (place / "broken-1.dist-info").mkdir(parents=True)
        (place / "broken_pass.py").write_text(code)
        (place / "broken-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
        entry = "[onnxpress.passes]\nbroken = broken_pass:Broken\n"
        (place / "broken-1.dist-info" / "entry_points.txt").write_text(entry)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(place)]))

    return install


def test_a_broken_one_is_told_in_a_line_and_harms_no_other(python, broken):
    broken("1 / 0")
    done = python("-m", "onnxpress", "recipes", "--schema")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert "pass 'broken' is declared as broken_pass:Broken, which cannot be imported: division by zero" in line
    names = json.loads(done.stdout)["properties"]["passes"]["items"]["anyOf"][0]["enum"]
    assert "round-powers" in names
    assert "broken" not in names


def test_a_recipe_that_wants_the_broken_one_is_refused_in_a_line(python, broken, tmp_path):
    broken("1 / 0")
    (tmp_path / "recipe.yaml").write_text("passes: [broken]")
    done = python("-m", "onnxpress", "compress", "model.onnx", "-o", "small.onnx", "--recipe", "recipe.yaml")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "which cannot be imported: division by zero" in line


def test_a_recipe_without_the_broken_one_runs(python, broken):
    broken("1 / 0")
    done = python("-m", "onnxpress", "compress", "model.onnx", "-o", "small.onnx", "--recipe", "recipe.yaml")
    assert done.returncode == 0, done.stderr
