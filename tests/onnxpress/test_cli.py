"""The command line: with which status it ends, and what it leaves behind."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxpress import inspection


def shell(*arguments, **settings):
    """Run a command as a program of its own."""
    command = [sys.executable, "-P", "-m", "onnxpress", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **settings)


@pytest.mark.parametrize(
    "arguments",
    [
        ("press",),
        ("compress",),
        ("compress", "MODEL"),
        ("bench", "MODEL", "MODEL", "--threads", "0"),
        ("verify", "--x"),
    ],
)
def test_wrong_usage_is_one_line_that_points_to_help(refused, model, arguments):
    assert "--help" in refused(*(model if each == "MODEL" else each for each in arguments))


def truncated(model):
    model.write_bytes(model.read_bytes()[:-300])


def no_onnx(model):
    model.write_text("this is no model", encoding="utf-8")


def empty(model):
    model.write_bytes(b"")


def newer_opset(model):
    proto = onnx.load(model)
    proto.opset_import[0].version = 999
    onnx.save(proto, model)


def lead_outside(model, location="../../etc/passwd"):
    proto = onnx.load(model)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    onnx.save(proto, model)


def lack_data(model):
    lead_outside(model, "weights.bin")


def remove(model):
    model.unlink()


@pytest.mark.parametrize("spoil", [truncated, no_onnx, empty, newer_opset, lead_outside, lack_data, remove])
def test_a_broken_model_is_refused(refused, model, out, samples, spoil):
    spoil(model)
    assert "small.onnx" in refused("compress", model, "-o", out, "--data", samples)
    assert "small.onnx" in refused("inspect", model)
    assert "small.onnx" in refused("decode", model, "-o", out)
    assert "small.onnx" in refused("verify", model, model)


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": np.zeros((4, 9), np.float32)},
        {"x": np.zeros((4, 8), np.float32), "z": np.zeros((4, 8), np.float32)},
        {"a": np.zeros((4, 8), np.float32), "b": np.zeros((4, 8), np.float32)},
        {"x": np.zeros((4, 8), np.int64)},
        {"x": np.zeros((0, 8), np.float32)},
    ],
)
def test_samples_that_do_not_fit_are_refused(refused, model, out, tmp_path, arrays):
    np.savez(tmp_path / "wrong.npz", **arrays)
    refused("compress", model, "-o", out, "--data", tmp_path / "wrong.npz")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--data", "nowhere.npz"), "nowhere.npz"),
        (("--data", "no.module:here"), "no.module"),
        (("--recipe", "smalest"), "did you mean smallest"),
        (("--recipe", "nowhere.yaml"), "nowhere.yaml"),
        (("--metric", "top5"), "top5"),
        (("--providers", "gpu"), "gpu"),
        (("--providers", "tensorrt"), "TensorrtExecutionProvider"),
        (("--providers", ","), "no provider"),
        (("--max-drop", "0.1"), "metric"),
        (("--json", "nowhere/report.json"), "nowhere"),
        (("--html", "nowhere/report.html"), "nowhere"),
        (("--min-speedup", "0"), "'--min-speedup': 0 is not a finite number above 0"),
        (("--min-speedup", "-1"), "'--min-speedup': -1 is not"),
        (("--min-speedup", "nan"), "'--min-speedup': nan is not"),
        (("--min-sqnr", "nan"), "'--min-sqnr': nan is not a finite number"),
        (("--max-drop", "nan"), "'--max-drop'"),
        (("--threads", "1000000"), "'--threads': 1000000 threads are too many"),
    ],
)
def test_wrong_options_are_refused(refused, model, out, options, words):
    assert words in refused("compress", model, "-o", out, *options)


@pytest.mark.parametrize("option", ["-o", "--data", "--recipe", "--json", "--html"])
def test_a_name_that_is_too_long_for_the_system_is_no_bug(refused, model, out, option):
    name = f"{'long' * 100}.yaml"
    assert "name too long" in refused("compress", model, *(() if option == "-o" else ("-o", out)), option, name)


def test_a_full_disk_is_no_bug(refused, model, out, monkeypatch):
    def full(*given, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("onnxpress.compression.scratch", full)
    assert refused("compress", model, "-o", out) == "onnxpress: error: No space left on device\n"


def test_a_wrong_recipe_names_file_and_field(refused, model, out, tmp_path):
    (tmp_path / "mine.yaml").write_text("passes: [encode, {prune-magnitude: {sparsity: 7}}]", encoding="utf-8")
    complaint = refused("compress", model, "-o", out, "--recipe", tmp_path / "mine.yaml")
    assert "mine.yaml: passes.1.sparsity:" in complaint


def test_the_input_is_never_overwritten(run, model, samples):
    before = model.read_bytes()
    assert run("compress", model, "-o", model, "--data", samples)[0] == 2
    assert model.read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "MODEL", "--json", "MODEL"),
        ("inspect", "MODEL", "--draw", "MODEL"),
        ("inspect", "MODEL", "--json", "REPORT", "--draw", "REPORT"),
        ("decode", "MODEL", "-o", "MODEL"),
        ("compress", "MODEL", "-o", "OUT", "--json", "MODEL"),
        ("compress", "MODEL", "-o", "OUT", "--html", "MODEL"),
        ("compress", "MODEL", "-o", "DATA", "--data", "DATA"),
        ("compress", "MODEL", "-o", "OUT", "--data", "DATA", "--html", "DATA"),
        ("compress", "MODEL", "-o", "OUT", "--test", "DATA", "--json", "DATA"),
        ("compress", "MODEL", "-o", "OUT", "--recipe", "RECIPE", "--json", "RECIPE"),
        ("compress", "MODEL", "-o", "OUT", "--json", "OUT"),
        ("compress", "MODEL", "-o", "OUT", "--json", "REPORT", "--html", "REPORT"),
        ("verify", "MODEL", "MODEL", "--json", "MODEL"),
        ("verify", "MODEL", "MODEL", "--data", "DATA", "--json", "DATA"),
        ("bench", "MODEL", "MODEL", "--json", "MODEL"),
        ("bench", "MODEL", "MODEL", "--data", "DATA", "--json", "DATA"),
    ],
)
def test_no_report_replaces_what_is_read_or_written(refused, model, out, samples, tmp_path, arguments):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("passes: []", encoding="utf-8")
    places = {"MODEL": model, "OUT": out, "DATA": samples, "RECIPE": recipe, "REPORT": tmp_path / "report"}
    before = [path.read_bytes() for path in (model, samples, recipe)]
    complaint = refused(*(places.get(each, each) for each in arguments))
    assert "never overwritten" in complaint or "a name of its own" in complaint
    assert [path.read_bytes() for path in (model, samples, recipe)] == before
    assert not places["REPORT"].exists()


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("verify", "--min-sqnr", "nan"),
        ("verify", "--max-drop", "inf"),
        ("bench", "--min-speedup", "0"),
        ("bench", "--min-speedup", "nan"),
        ("bench", "--seconds", "nan"),
        ("bench", "--seconds", "0"),
        ("bench", "--threads", "999999"),
    ],
)
def test_a_limit_that_means_nothing_is_refused(refused, model, command, option, value):
    assert f"'{option}'" in refused(command, model, model, option, value)


def test_a_bug_is_one_line_unless_debugged(refused, run, model, monkeypatch):
    def fail(path):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(inspection, "examine", fail)
    complaint = refused("inspect", model, status=1, kind="bug")
    assert "ZeroDivisionError: by zero" in complaint
    assert "--debug" in complaint
    assert "Traceback" in run("inspect", model, "--debug")[2]


def test_an_interrupt_ends_with_130(refused, model, monkeypatch):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(inspection, "examine", interrupt)
    refused("inspect", model, status=130, kind="stopped")


SLOW_FEED = """
import time
import numpy as np

def feed():
    while True:
        yield {"x": np.zeros((1, 8), np.float32)}
        print("sample", flush=True)
        time.sleep(0.05)
"""


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing_behind(model, out, tmp_path, sent, status):
    (tmp_path / "slow_feed.py").write_text(SLOW_FEED, encoding="utf-8")
    command = [sys.executable, "-m", "onnxpress", "compress", model, "-o", out, "--data", "slow_feed:feed"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ran:
        for _ in range(5):
            ran.stdout.readline()
        assert list(out.parent.iterdir())  # it works beside the output
        ran.send_signal(sent)
        assert ran.wait(timeout=30) == status
        assert "Traceback" not in ran.stderr.read()
    assert not list(out.parent.iterdir())


def test_a_reader_that_goes_away_is_no_error(model):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        command = [sys.executable, "-m", "onnxpress", "inspect", model]
        done = subprocess.run(command, stdout=stream, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.stderr == ""
    assert done.returncode == 141


def test_a_full_disk_is_one_line(model):
    with Path("/dev/full").open("w", encoding="utf-8") as stream:
        command = [sys.executable, "-m", "onnxpress", "inspect", model]
        done = subprocess.run(command, stdout=stream, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.stderr == "onnxpress: error: cannot write the output: No space left on device\n"
    assert done.returncode == 2


def test_a_pipe_gets_plain_text(model):
    done = shell("inspect", model, env={**os.environ, "PYTHONUTF8": "1"})
    assert done.returncode == 0
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert not set("─━│┃┏╭") & set(done.stdout)


def test_an_old_locale_does_not_break_the_output(model):
    done = shell("inspect", model, env={**os.environ, "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"})
    assert done.returncode == 0
    assert "64" in done.stdout


def test_help_loads_nothing_heavy():
    code = """
import contextlib, io, sys
from onnxpress.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    main(["compress", "--help"])
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert not {"onnxruntime", "onnx", "sklearn", "scipy", "matplotlib", "tensorly", "numpy"} & set(done.stdout.split())


def test_an_interrupt_while_modules_load_is_one_line():
    code = """
import sys
from onnxpress.cli import main

class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxpress.commands":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
sys.exit(main(["recipes"]))
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr == "onnxpress: stopped: interrupted; what was not finished is removed\n"


def test_the_entry_point_itself_loads_next_to_nothing():
    code = "import onnxpress.cli, sys; print(*(each for each in sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", "import sys; print(*sys.modules)"], capture_output=True)
    bare = set(done.stdout.decode().split())
    loaded = set(subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True).stdout.split())
    assert {each for each in loaded - bare if each.startswith("onnxpress")} == {"onnxpress", "onnxpress.cli"}
    assert not {"typer", "pydantic", "rich", "onnx"} & loaded
