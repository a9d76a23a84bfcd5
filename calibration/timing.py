"""Sessions timed in turns, so that what slows the machine slows them all, if not always alike (see `calm`)."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxpress.calibration.batches import Batch
from onnxpress.calibration.progress import Progress, Silent
from onnxpress.calibration.session import Runner

LEAST = 3
"""Rounds that are run whatever they take."""


def in_turns(
    runners: Sequence[Runner],
    batches: Sequence[Batch],
    *,
    seconds: float,
    rounds: int = 200,
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Time sessions one right after the other on the same batch, again and again; every other round goes backwards.

    Args:
        runners: what is timed.
        batches: that are run in turn, so that one lucky shape does not decide.
        seconds: after which no new round starts.
        rounds: that run at most.
        progress: told about the rounds.

    Returns:
        Seconds, float64 [rounds, runners]; the ratio of two columns is free of what slows both alike for
        a while (for what does not, see `calm`).
    """
    fitted = [[runner.fitted(batch) for batch in batches] for runner in runners]  # casts are not what is timed
    for index in range(len(batches)):  # the first run of a shape allocates
        for runner, own in zip(runners, fitted, strict=True):
            runner.run(own[index])
    times: list[list[float]] = []
    began = time.perf_counter()
    for turn in (progress or Silent()).track(range(rounds), label="latency", total=rounds):
        chosen, row = turn % len(batches), [0.0] * len(runners)
        for index in range(len(runners)) if turn % 2 == 0 else reversed(range(len(runners))):
            row[index] = _seconds(runners[index], fitted[index][chosen])
        times.append(row)
        if len(times) >= LEAST and time.perf_counter() - began > seconds:
            break
    return np.array(times)


def _seconds(runner: Runner, batch: Batch) -> float:
    began = time.perf_counter()
    runner.run(batch)
    return time.perf_counter() - began
