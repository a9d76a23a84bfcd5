"""What a model came to after each pass: bytes as saved, and latency where that was asked for."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from onnxpress.benchmark import bench
from onnxpress.calibration.calm import Calm
from onnxpress.calibration.feeds import Feed
from onnxpress.passes.report import Report
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.size import saved_size


@dataclass(frozen=True, slots=True)
class Stage:
    """The model after one pass.

    Attributes:
        name: of the pass.
        nbytes: the model takes as saved by then, external data included.
        seconds: the pass took.
        speedup: latency of the input over that of the model by then, on the provider where it gains least; None where
            it was not measured, or could not be run by then.
    """

    name: str
    nbytes: int
    seconds: float
    speedup: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How the model is timed after each pass: in turns with the input.

    Attributes:
        source: the input.
        feed: what both run.
        providers: each is timed, by full name.
        threads: inside an operator; None leaves the choice to ONNX Runtime.
        seconds: that it takes about, on each provider, after each pass.
        calm: takes timings again where the machine was disturbed.
    """

    source: Path
    feed: Feed
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    threads: int | None = None
    seconds: float = 1.0
    calm: Calm | None = None

    def measure(self, model: Model) -> float | None:
        """As `of`, of a model that is no file yet."""
        with tempfile.TemporaryDirectory(prefix="onnxpress-") as folder:
            path = Path(folder) / "model.onnx"
            model.save(path)
            return self.of(path)

    def of(self, path: Path) -> float | None:
        """How many times as fast as the input a model is, on the provider where it gains least.

        Returns:
            None where it cannot be run: what follows may mend that.
        """
        try:
            timed = bench(
                self.source,
                path,
                data=self.feed,
                providers=self.providers,
                threads=self.threads,
                seconds=self.seconds,
                calm=self.calm,
            )
        except ModelError:
            return None
        return min(each.speedup for each in timed)


@dataclass(slots=True)
class Stages:
    """Listens to a `Pipeline` (`after=stages.add`) and notes what each pass came to.

    Attributes:
        pace: how the model is timed; None leaves that out.
        found: one for each pass so far, in order.
    """

    pace: Pace | None = None
    found: list[Stage] = field(default_factory=list)

    def add(self, model: Model, report: Report) -> None:
        """Measure the model after one pass; no weight is read for its size."""
        speedup = None if self.pace is None else self.pace.measure(model)
        self.found.append(Stage(report.name, saved_size(model), report.seconds, speedup))
