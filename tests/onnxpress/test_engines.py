"""Work that the command line shares out: the same files whatever the engine, and errors in one line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from onnxpress import engines
from onnxpress.calibration.progress import Silent
from onnxpress.engines import engine
from onnxpress.models import zoo
from onnxpress.passes.base import Workbench
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.jobs import each, workers
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.share.kmeans import ShareKMeans
from onnxpress.passes.share.vectors import ShareVectors
from onnxpress.rewriter.errors import EngineError, ModelError
from onnxpress.rewriter.model import Model

KMEANS = """
passes:
  - share-kmeans: {bits: 4}
  - encode
"""


@pytest.fixture(params=["loky", "dask"])
def shared(request):
    """What the command line is told for two workers."""
    if request.param == "dask":
        return ("--engine", "dask", "--address", request.getfixturevalue("cluster"))
    return ("--jobs", "2")


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Other work on the machine must not fail a test."""
    monkeypatch.setattr(engines, "PATIENCE", 60)


class Told:
    """Progress that keeps what it is told."""

    def __init__(self):
        self.counts = {}

    def track(self, items, *, label, total=None):
        for item in items:
            yield item
            self.counts[label] = self.counts.get(label, 0) + 1


@pytest.fixture(params=[ShareKMeans(bits=4), ShareVectors(length=2, bits=4)], ids=lambda one: one.name)
def pressed(request, tmp_path):
    """Makes a file, and counts the weights that were told of."""

    def press():
        told = Told()
        model = Pipeline([request.param, Encode()])(
            Model.load(zoo.path("lenet5")), Workbench(threads=1, progress=told)
        ).model
        model.save(tmp_path / "pressed.onnx")
        return (tmp_path / "pressed.onnx").read_bytes(), told.counts[request.param.name]

    return press


def test_two_processes_of_a_dask_cluster_make_the_same_file(cluster, pressed):
    alone = pressed()
    with engine(name="dask", address=cluster):
        assert workers() == 2
        assert len(set(each(pid, range(8), progress=Silent(), label="", total=8)) | {os.getpid()}) == 3
        assert pressed() == alone
    assert workers() == 1


def pid(_):
    time.sleep(0.05)
    return os.getpid()


def test_two_jobs_make_the_same_file(pressed):
    alone = pressed()
    with engine(2):
        assert pressed() == alone


def test_compress_writes_the_same_model(run, model, samples, out, tmp_path, shared):
    (tmp_path / "mine.yaml").write_text(KMEANS, encoding="utf-8")
    common = ("compress", model, "--recipe", tmp_path / "mine.yaml", "--data", samples, "--threads", 1)
    assert run(*common, "-o", tmp_path / "alone.onnx")[0] == 0
    assert run(*common, "-o", out, *shared)[0] == 0
    assert out.read_bytes() == (tmp_path / "alone.onnx").read_bytes()


@pytest.mark.parametrize("method", ["histogram", "average"])
def test_calibrate_writes_the_same_statistics(run, model, tmp_path, shared, method):
    (tmp_path / "samples").mkdir()
    for number, scale in enumerate(np.random.default_rng(0).uniform(0.01, 100, 9)):
        x = np.random.default_rng(number).standard_normal((4, 8)).astype(np.float32)
        np.savez(tmp_path / "samples" / f"{number}.npz", x=scale.astype(np.float32) * x)
    common = ("calibrate", model, "--data", tmp_path / "samples", "--method", method, "--threads", 1)
    assert run(*common, "-o", tmp_path / "alone.npz")[0] == 0
    assert run(*common, "-o", tmp_path / "shared.npz", *shared)[0] == 0
    assert (tmp_path / "shared.npz").read_bytes() == (tmp_path / "alone.npz").read_bytes()


def test_an_error_of_a_worker_is_the_same_error(cluster, tmp_path):
    missing = tmp_path / "nowhere.onnx"
    with pytest.raises(ModelError) as alone:
        Model.load(missing)
    for chosen in ({"jobs": 2}, {"name": "dask", "address": cluster}):
        with engine(**chosen), pytest.raises(ModelError) as error:
            list(each(Model.load, [missing, missing], progress=Silent(), label="load"))
        assert str(error.value) == str(alone.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--jobs", "0"), "'--jobs': 0 is no number of workers"),
        (("--jobs", "-2"), "'--jobs': -2 is no"),
        (("--jobs", "1000000"), "1000000 workers are too many"),
        (("--engine", "spark"), "give loky, threading, dask, ray"),
        (("--address", "localhost:8786"), "add --engine dask"),
        (("--engine", "loky", "--address", "localhost:8786"), "add --engine dask"),
        (("--engine", "dask"), "add --address HOST:PORT"),
        (("--engine", "dask", "--address", "localhost:8786", "--jobs", "2"), "leave out --jobs"),
    ],
)
def test_options_that_mean_nothing_are_refused(refused, model, out, options, words):
    assert words in refused("compress", model, "-o", out, *options)
    assert words in refused("calibrate", model, "-o", out, *options)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense"])
def test_an_address_where_nobody_answers_is_refused(refused, model, out, monkeypatch, address):
    monkeypatch.setattr(engines, "PATIENCE", 1)
    complaint = refused("calibrate", model, "-o", out, "--engine", "dask", "--address", address)
    assert f"no Dask scheduler answers at {address}" in complaint


def test_no_client_is_begun_where_nobody_answers(monkeypatch):
    """One that is half begun closes itself when it is collected, in the midst of another's beginning."""
    begun = []
    monkeypatch.setattr("distributed.Client", lambda *given, **_: begun.append(given))
    monkeypatch.setattr(engines, "PATIENCE", 1)
    with pytest.raises(EngineError, match="no Dask scheduler answers"), engine(name="dask", address="127.0.0.1:1"):
        pass
    assert not begun


def test_a_cluster_without_workers_is_refused(refused, model, out, monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr(engines, "PATIENCE", 1)
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=":0") as empty:
        address = empty.scheduler_address
        assert "has no workers" in refused("calibrate", model, "-o", out, "--engine", "dask", "--address", address)


def test_workers_with_another_version_are_refused(cluster, monkeypatch):
    monkeypatch.setattr(engines, "_own_version", lambda: "0.0.1")
    with pytest.raises(EngineError, match=r"install 0\.0\.1 there"), engine(name="dask", address=cluster):
        pass


@pytest.mark.parametrize(
    ("name", "module", "words"), [("dask", "distributed", "onnxpress[dask]"), ("ray", "ray", "ray")]
)
def test_an_engine_that_is_not_installed_says_how_to(refused, model, out, monkeypatch, name, module, words):
    monkeypatch.setitem(sys.modules, module, None)
    address = ("--address", "localhost:8786")
    complaint = refused("calibrate", model, "-o", out, "--engine", name, *address)
    assert f'pip install "{words}"' in complaint


def test_an_interrupt_leaves_nothing_behind(tmp_path):
    recipe, out, scratch = tmp_path / "mine.yaml", tmp_path / "output", tmp_path / "scratch"
    recipe.write_text("passes: [{share-mixture: {components: 256}}]", encoding="utf-8")
    out.mkdir()
    scratch.mkdir()
    command = [sys.executable, "-P", "-m", "onnxpress", "compress", zoo.path("lenet5"), "-o", out / "small.onnx"]
    started = subprocess.Popen(
        [*command, "--recipe", recipe, "--jobs", "2", "--threads", "1"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(scratch), "JOBLIB_TEMP_FOLDER": str(scratch)},
    )
    until(lambda: len(of_session(started.pid)) >= 3)  # with two workers at least
    os.killpg(started.pid, signal.SIGINT)
    _, complaint = started.communicate(timeout=60)
    assert started.returncode == 130
    # A worker that is interrupted while Python starts says so by itself.
    assert "onnxpress: stopped: interrupted; what was not finished is removed\n" in complaint
    until(lambda: not of_session(started.pid))
    ours = [place.name for place in scratch.iterdir() if place.name != ".ses"]  # which ONNX Runtime leaves
    assert not [*out.iterdir(), *ours]


def of_session(session):
    """The programs of a session, without those that have ended."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, owner = place.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(owner) == session and state != "Z":
            found.append(place)
    return found


def until(condition):
    """Wait for a condition for a minute at most."""
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("waited for a minute")
