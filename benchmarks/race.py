"""Latencies of many models in one loop."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from onnxpress.calibration.batches import Batch

TURNS = 1000
"""At most."""


def race(
    paths: Mapping[str, Path], batches: Sequence[Batch], *, threads: int, seconds: float, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """Time all models in turns.

    In each turn every model runs one batch, the same for all, in an order drawn anew: once untimed, so that it finds
    the caches as in use, where no other model runs in between, and once timed.

    Args:
        paths: the models by name.
        batches: taken in turn.
        threads: inside an operator.
        seconds: for each model, after which no new turn starts; at least one turn runs for each batch.
        seed: of the order.

    Returns:
        Seconds of each turn, [turns], by name.
    """
    sessions = {name: _open(path, threads) for name, path in paths.items()}
    names = list(sessions)
    for batch in batches:  # the first run of a shape allocates
        for name in names:
            sessions[name].run(None, dict(batch))
    times = np.full((TURNS, len(names)), np.nan)
    random = np.random.default_rng(seed)
    began, turns = time.perf_counter(), 0
    while turns < TURNS:
        batch = dict(batches[turns % len(batches)])
        for k in random.permutation(len(names)):
            session = sessions[names[k]]
            session.run(None, batch)
            start = time.perf_counter()
            session.run(None, batch)
            times[turns, k] = time.perf_counter() - start
        turns += 1
        if turns >= len(batches) and time.perf_counter() - began > seconds * len(names):
            break
    return {name: times[:turns, k] for k, name in enumerate(names)}


def ratio(reference: NDArray[np.float64], test: NDArray[np.float64]) -> tuple[float, float, float]:
    """How many times as fast, turn by turn: median, lower and upper quartile."""
    low, middle, high = map(float, np.quantile(reference / test, [0.25, 0.5, 0.75]))
    return middle, low, high


def _open(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # else the threads of one model still wait for work, on full power, while the next is timed
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
