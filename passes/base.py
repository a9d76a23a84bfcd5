"""The contract of a pass, and what a pass may use while it works."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar

from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.metrics import Metric
from onnxpress.calibration.progress import Progress, Silent
from onnxpress.calibration.providers import provider_name
from onnxpress.passes.report import Report
from onnxpress.rewriter.model import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """What a pass may need besides the model.

    Attributes:
        feed: calibration samples; None where the caller has none.
        metric: the task's own measure; None where the caller has none.
        providers: ONNX Runtime execution providers, in order of preference.
        threads: threads ONNX Runtime may use; None leaves the choice to it.
        seed: of everything random.
        progress: where long work reports.
    """

    feed: Feed | None = None
    metric: Metric | None = None
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    threads: int | None = None
    seed: int = 0
    progress: Progress = field(default_factory=Silent)

    def __post_init__(self) -> None:
        """Give providers their full names.

        Raises:
            ConfigError: an unknown one.
        """
        object.__setattr__(self, "providers", tuple(map(provider_name, self.providers)))

    def for_learning(self) -> Workbench:
        """For a pass that takes weights or choices from samples: made-up ones teach it noise, so it gets none.

        Samples that hold no numbers are refused when they are read.
        """
        if self.feed is None:
            return self
        return replace(self, feed=None if self.feed.made_up else self.feed.numeric())


@dataclass(frozen=True, slots=True)
class PassResult:
    """A new model and the account of how it came about."""

    model: Model
    report: Report


@dataclass(frozen=True, kw_only=True)
class Pass(ABC):
    """A rewrite of a model: a frozen dataclass whose fields are its options.

    A subclass names itself (`name`), checks its options in `__post_init__` and implements `apply`.
    Calling a pass leaves the caller's model as it was and returns a new one.

    Attributes:
        name: in recipes and reports.
        learns: whether it takes weights or choices from samples, so that made-up ones are worse than none.
    """

    name: ClassVar[str]
    learns: ClassVar[bool] = False

    @property
    def times(self) -> bool:
        """Whether it times models while it works, so that nothing else may run beside it."""
        return False

    @abstractmethod
    def apply(self, model: Model, bench: Workbench) -> Report:
        """Rewrite `model` in place; every candidate site ends as a change or a skip."""

    def __call__(self, model: Model, bench: Workbench | None = None) -> PassResult:
        """Rewrite a copy of `model` (weights are shared until replaced)."""
        copy = model.clone()
        began = time.perf_counter()
        report = self.apply(copy, self.fitting(bench or Workbench()))
        report.seconds = time.perf_counter() - began
        return PassResult(copy, report)

    def fitting(self, bench: Workbench) -> Workbench:
        """The workbench as this pass may use it."""
        return bench.for_learning() if self.learns else bench

    def options(self) -> dict[str, object]:
        """The options as a recipe would write them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def report(self) -> Report:
        """An empty report of this pass."""
        return Report(self.name, self.options())
