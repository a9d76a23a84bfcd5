"""How fast a changed model is beside the one it came from: timed in turns, on samples, on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from onnxpress.calibration.session import Runner
from onnxpress.calibration.timing import in_turns
from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.arrays import Array
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.model import Model

BATCHES = 4
"""Different batches that are run in turn."""

ROUNDS = 60
"""Rounds at most: the median of so many ratios is within a percent on a quiet machine."""

_RATIOS = 12
"""Ratios that are wanted at least before several rounds count together."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a model is beside another.

    Attributes:
        speedup: latency of the other over that of this one, round by round: the median.
        quartiles: lower and upper quartile of that ratio.
    """

    speedup: float
    quartiles: tuple[float, float]

    @property
    def slower(self) -> bool:
        """Whether it is no faster: not even the median round is."""
        return not self.speedup > 1

    def describe(self, other: str) -> str:
        """The figures, in a few words.

        Args:
            other: what the model was timed beside, to stand behind "as fast as": `in float`, `before`.
        """
        low, high = self.quartiles
        return f"{self.speedup:.2f} times as fast as {other} (middle half of rounds {low:.2f} to {high:.2f})"


def pace(
    reference: Model,
    models: Sequence[Model],
    bench: Workbench,
    *,
    seconds: float = 2.0,
    rounds: int = ROUNDS,
    together: int = 1,
) -> list[Pace]:
    """Time models beside another, in turns, on a few samples; of several providers the slowest counts.

    Args:
        reference: what they are compared with.
        models: that are to be faster.
        bench: brings samples, providers and threads.
        seconds: after which no new round starts, for each provider and model.
        rounds: that run at most.
        together: rounds with the same batch of which the least times count, so that what interrupts single runs of a
            short model does not; fewer where that would leave less than 12 ratios.

    Raises:
        FeedError: there are no samples.
    """
    if bench.feed is None:
        raise FeedError("speed is measured on samples; give some with --data")
    batches = list(bench.feed.spread(BATCHES))
    with TemporaryDirectory(prefix="onnxpress-") as folder:
        paths = [Path(folder) / str(index) / "model.onnx" for index in range(len(models) + 1)]
        for path, model in zip(paths, (reference, *models), strict=True):
            path.parent.mkdir()
            model.save(path)
        found: list[list[Pace]] = []
        for provider in bench.providers:
            with ExitStack() as stack:
                opened = (Runner(path, providers=[provider], threads=bench.threads) for path in paths)
                runners = [stack.enter_context(runner) for runner in opened]
                times = in_turns(
                    runners, batches, seconds=seconds * len(models), rounds=rounds, progress=bench.progress
                )
            times = _calmed(times, together, len(batches))
            found.append([_pace(times[:, 0] / times[:, column]) for column in range(1, len(runners))])
    return [min(each, key=lambda one: one.speedup) for each in zip(*found, strict=True)]


def _calmed(times: Array, together: int, batches: int) -> Array:
    """The least seconds of each model in some rounds of one batch after the other, [ratios, models]."""
    size = max(1, min(together, len(times) // _RATIOS))
    found = []
    for batch in range(min(batches, len(times))):
        own = times[batch::batches]
        count = len(own) // size
        found.append(own[: count * size].reshape(count, size, -1).min(axis=1))
    return np.concatenate(found)


def _pace(ratios: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Pace:
    low, middle, high = map(float, np.quantile(ratios, [0.25, 0.5, 0.75]))
    return Pace(middle, (low, high))
