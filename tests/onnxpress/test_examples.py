"""The examples of a pipeline in CI run as they stand."""

import os
import re
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaml

from onnxpress import deployment
from onnxpress.checking import read_manifest
from onnxpress.models.digits import labelled

EXAMPLES = Path(__file__).parents[2] / "examples"
WORKFLOW = EXAMPLES / "github-actions" / "compress.yml"
GITLAB = EXAMPLES / "gitlab-ci" / ".gitlab-ci.yml"
MADE = {"junit.xml", "lenet5.onnx", "lenet5.onnx.manifest.json", "report.html", "report.json"}


@pytest.fixture
def folder(tmp_path):
    """A repository with the pipeline alone."""
    shutil.copy(EXAMPLES / "pipeline.yaml", tmp_path)
    return tmp_path


@pytest.fixture
def shell(folder, tmp_path_factory):
    """Run a command there; `pip` only notes what it was asked for, and 2,000 digits judge, which is quicker."""
    commands = tmp_path_factory.mktemp("commands")
    digits = list(islice(labelled().samples(), 8))
    np.savez(
        commands / "few.npz",
        image=np.concatenate([each.batch["image"] for each in digits]),
        labels=np.concatenate([each.labels for each in digits]),
    )
    lines = {
        "python": f'exec "{sys.executable}" -P "$@"',
        "onnxpress": f'[ "$1" != run ] || set -- "$@" --set "test={commands}/few.npz"\n'
        f'exec "{sys.executable}" -P -m onnxpress "$@"',
        "pip": f'echo "$@" >>"{commands}/asked"',
    }
    for name, line in lines.items():
        (commands / name).write_text(f"#!/bin/sh\n{line}\n")
        (commands / name).chmod(0o755)

    def shell(*command, **variables):
        environment = {**os.environ, **variables, "PATH": f"{commands}:{os.environ['PATH']}"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    shell.asked = commands / "asked"
    return shell


def built(folder):
    assert {each.name for each in (folder / "build").iterdir()} == MADE
    assert read_manifest(folder / "build" / "lenet5.onnx.manifest.json").differing() == []
    return True


def test_the_pipeline_is_valid_for_editors_and_for_the_reader():
    text = (EXAMPLES / "pipeline.yaml").read_text(encoding="utf-8")
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)[1]
    assert (EXAMPLES / named).resolve() == EXAMPLES.parent / "onnxpress" / "schema" / "pipeline.json"
    jsonschema.Draft202012Validator(deployment.schema()).validate(yaml.safe_load(text))
    assert deployment.read(EXAMPLES / "pipeline.yaml").limits.max_drop == 0.003


def test_the_makefile_makes_once_and_verifies(folder, shell):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    shutil.copy(EXAMPLES / "make" / "Makefile", folder)
    assert "pipeline.yaml can be run" in shell("make", "check")
    assert not (folder / "build").exists()
    shell("make")
    assert built(folder)
    assert "Nothing to be done" in shell("make")
    assert "files are what" in shell("make", "verify")
    shell("make", "clean")
    assert not (folder / "build").exists()


def test_the_lines_of_the_workflow_run(folder, shell):
    content = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    steps = content["jobs"]["compress"]["steps"]
    for step in steps:
        if "run" in step:
            # as GitHub's runner does it
            shell("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"], **content["env"])
    assert built(folder)
    assert shell.asked.read_text().split() == ["install", content["env"]["ONNXPRESS"]]
    kept = next(step for step in steps if "upload-artifact" in step.get("uses", ""))
    assert (kept["if"], kept["with"]["path"]) == ("always()", "build/")


def test_the_actions_of_the_workflow_are_pinned():
    steps = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["compress"]["steps"]
    used = [step["uses"] for step in steps if "uses" in step]
    assert used
    assert [each for each in used if re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", each) is None] == []


def test_the_lines_of_the_gitlab_jobs_run(folder, shell):
    content = yaml.safe_load(GITLAB.read_text(encoding="utf-8"))
    for job in content["stages"]:
        for line in (*content["default"]["before_script"], *content[job]["script"]):
            shell("sh", "-ec", line, **content["variables"])
    assert built(folder)
    artifacts = content["compress"]["artifacts"]
    assert (folder / artifacts["reports"]["junit"]).is_file()
    assert (artifacts["when"], content["verify"]["needs"]) == ("always", ["compress"])
    assert shell.asked.read_text().split("\n")[0] == f"install {content['variables']['ONNXPRESS']}"
