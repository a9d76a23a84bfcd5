"""Mixed precision: the layers that hurt most for the work they do compute in float, as few as keep the outputs good."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self, TypeVar

from onnxpress.calibration.batches import Array
from onnxpress.calibration.metrics import Comparison
from onnxpress.calibration.session import Runner
from onnxpress.passes.base import Workbench
from onnxpress.passes.quantize.ablation import Unit
from onnxpress.passes.quantize.trial import checked, some
from onnxpress.rewriter.errors import ConfigError, FeedError
from onnxpress.rewriter.model import Model

_Layer = TypeVar("_Layer", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a quantized model does to the outputs, on samples.

    Attributes:
        sqnr: signal to noise of the worst output, in dB; NaN where one holds other NaN or infinities than in float.
        drop: how far the metric fell; None where none was asked for.
    """

    sqnr: float
    drop: float | None = None

    def describe(self) -> str:
        """The figures, in a few words."""
        fell = "" if self.drop is None else f", the metric fell by {self.drop:.4g}"
        return f"{self.sqnr:.1f} dB{fell}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What the outputs must keep to.

    Attributes:
        min_sqnr: signal to noise of every output, in dB; 0 asks for none.
        max_drop: how far the metric may fall; None asks for none.
    """

    min_sqnr: float = 0.0
    max_drop: float | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is asked for."""
        return not self.min_sqnr and self.max_drop is None

    def holds(self, verdict: Verdict) -> bool:
        """Whether a model is good enough."""
        if self.min_sqnr and not verdict.sqnr >= self.min_sqnr:
            return False
        return self.max_drop is None or (verdict.drop is not None and verdict.drop <= self.max_drop)


class Judge:
    """Compares quantized models with the one in float. Use it as a context manager."""

    def __init__(self, model: Model, bench: Workbench, demand: Demand) -> None:
        """Open the model in float, and measure its metric where one is asked for.

        Raises:
            FeedError: there are no samples.
            ConfigError: the metric is not a number.
        """
        if bench.feed is None:
            raise FeedError("a model is judged by samples; give some with --data")
        self._bench = bench
        self._feed = some(bench.feed)
        self._folder = TemporaryDirectory(prefix="onnxpress-")
        self._metric = bench.metric if demand.max_drop is not None else None
        self._reference = self._open(model, "float")
        self._before = None if self._metric is None else self._metric(self._reference, bench.feed)
        if self._before is not None and math.isnan(self._before):
            self.__exit__(None, None, None)
            raise ConfigError("the metric is not a number on the model in float; mend it, or give samples with labels")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reference.close()
        self._folder.cleanup()

    def judge(self, model: Model) -> Verdict:
        """Run a quantized model beside the one in float."""
        sums: dict[str, Comparison] = {}
        with self._open(model, "quantized") as runner:
            for batch in checked(self._feed):
                reference, test = self._reference.run(batch), runner.run(batch)
                for name, values in reference.items():
                    if values.dtype.kind == "f":
                        _add(sums.setdefault(name, Comparison()), values, test[name])
            found = [each.sqnr for each in sums.values()]
            worst = math.nan if any(map(math.isnan, found)) else min(found, default=math.inf)
            if self._metric is None or self._before is None or self._bench.feed is None:
                return Verdict(worst)
            return Verdict(worst, self._before - self._metric(runner, self._bench.feed))

    def _open(self, model: Model, name: str) -> Runner:
        path = Path(self._folder.name) / name / "model.onnx"
        path.parent.mkdir(exist_ok=True)
        model.save(path)
        return Runner(path, providers=self._bench.providers, threads=self._bench.threads)


def _add(comparison: Comparison, reference: Array, test: Array) -> None:
    try:
        comparison.update(reference, test)
    except ValueError:  # of detections there may be more or fewer: nothing to compare
        comparison.unlike += 1


def by_harm(
    layers: Sequence[_Layer],
    *,
    noise: Mapping[Unit, float],
    units: Callable[[Collection[_Layer]], Collection[Unit]],
    work: Mapping[_Layer, float],
) -> list[_Layer]:
    """Layers in the order in which they are best left in float: the noise that goes with each, by the work it does.

    Noises of tensors that are rounded apart from each other add up, near enough.

    Args:
        layers: that may run on codes.
        noise: relative, of each unit alone.
        units: what is on codes while some layers are in float.
        work: products that each layer sums.
    """
    every = dict.fromkeys(units(()))

    def harm(layer: _Layer) -> float:
        left = dict.fromkeys(units((layer,)))
        gone = sum(noise[unit] for unit in every if unit not in left)
        come = sum(noise[unit] for unit in left if unit not in every and unit in noise)
        return (gone - come if math.isfinite(come) else -math.inf) / max(work[layer], 1.0)

    return sorted(layers, key=harm, reverse=True)  # stable: equal ones stay in graph order


def fewest(most: int, good: Callable[[int], bool]) -> int | None:
    """The least number of 0 to `most` that is good, by bisection; None where even `most` is not.

    What is good is taken to stay so with every larger number.
    """
    if good(0):
        return 0
    if most == 0 or not good(most):
        return None
    low, high = 0, most  # low is not good, high is
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if good(middle) else (middle, high)
    return high
