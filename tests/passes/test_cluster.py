"""Workers of a cluster that die while they work."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pytest

from onnxpress.calibration.progress import Silent
from onnxpress.passes import cluster
from onnxpress.passes.jobs import each
from onnxpress.rewriter.errors import EngineError

run = partial(each, progress=Silent(), label="work")


@pytest.fixture
def workers():
    """Start a cluster of so many workers, of which a task may kill so many before it is given up."""
    import dask
    from distributed import Client, LocalCluster

    started = []

    def start(count, *, failures):
        with dask.config.set({"distributed.scheduler.allowed-failures": failures}):
            made = LocalCluster(n_workers=count, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0")
        started.extend([made, Client(made)])
        return made.scheduler_address

    yield start
    for one in reversed(started):
        one.close()


def die(item, marks, often):
    """Kill the worker the first times."""
    marks = Path(marks)
    seen = len(list(marks.iterdir()))
    if seen < often:
        (marks / str(seen)).touch()
        os._exit(1)
    return float(np.sum(item))


def test_work_that_kills_its_worker_ends_in_one_line(workers, tmp_path):
    workers(2, failures=0)
    with joblib.parallel_config(backend="dask"), pytest.raises(EngineError, match="died of the same work"):
        list(run(die, [1, 2], shared=(str(tmp_path), 100)))


def test_a_lost_worker_loses_no_work(workers, tmp_path):
    workers(2, failures=3)
    large = np.ones(cluster.LARGE)  # lies with a worker, and is lost with it
    with joblib.parallel_config(backend="dask"):
        assert list(run(die, [1, large, 3], shared=(str(tmp_path), 1))) == [1, cluster.LARGE, 3]


def test_a_cluster_without_workers_is_not_waited_for(workers, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "LOST", 0.5)
    address = workers(0, failures=3)
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny", "--no-dashboard"]
    lone = subprocess.Popen([*command, "--nthreads", "2"], stderr=subprocess.DEVNULL, cwd=tmp_path)
    try:
        config = joblib.parallel_config(backend="dask", wait_for_workers_timeout=60)
        with config, pytest.raises(EngineError, match="has had no workers"):
            list(run(os._exit, [9]))
        assert lone.wait(10) == 9
    finally:
        lone.kill()
        lone.wait()


def test_what_lasts_is_waited_for(workers, monkeypatch):
    monkeypatch.setattr(cluster, "LOST", 0.0)
    monkeypatch.setattr(cluster, "_LOOK", 0.01)
    workers(2, failures=3)
    with joblib.parallel_config(backend="dask"):
        assert list(run(time.sleep, [0.1])) == [None]
