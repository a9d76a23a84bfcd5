"""How fast two models run, measured in turns so that what slows the machine slows both."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from onnxpress.artifact import Artifact
from onnxpress.calibration.batches import Batch
from onnxpress.calibration.calm import Calm
from onnxpress.calibration.progress import Progress, Silent
from onnxpress.calibration.session import Runner
from onnxpress.calibration.timing import in_turns
from onnxpress.rewriter.errors import ConfigError
from onnxpress.runtime import check_runtime
from onnxpress.verification import provider_names, samples_for

BATCHES = 4
"""Different batches that are run in turn, so that one lucky shape does not decide."""
LOADS, QUICK = 3, 1.0
"""How often a session is opened to time that, and the seconds after which once more would take too long."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One model.

    Attributes:
        nbytes: on disk.
        load_seconds: to open a session, what folds at load included; the shortest of a few, where that is quick.
        median: latency of a batch, in seconds.
        quartiles: lower and upper quartile of the latency, in seconds.
    """

    nbytes: int
    load_seconds: float
    median: float
    quartiles: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Two models on one provider.

    Attributes:
        provider: by full name.
        threads: inside an operator; None means ONNX Runtime's own choice.
        shapes: of the inputs in the first batch.
        pairs: how often both ran, one right after the other on the same batch.
        first: the reference.
        second: what is compared with it.
        speedup: latency of the first over that of the second, pair by pair: the median.
        quartiles: lower and upper quartile of that ratio.
        slowed: latency of the first over the least it took on these batches in any timing of the same run: well above
            1, something else slowed the machine, which may hit one of the two more than the other.
    """

    provider: str
    threads: int | None
    shapes: Mapping[str, tuple[int, ...]]
    pairs: int
    first: Timing
    second: Timing
    speedup: float
    quartiles: tuple[float, float]
    slowed: float = 1.0

    @property
    def pace(self) -> str:
        """How fast the second is, in words."""
        low, high = self.quartiles
        return f"{self.speedup:.2f} times its speed on {self.provider}, middle half of pairs {low:.2f} to {high:.2f}"

    def __repr__(self) -> str:
        from onnxpress import notebook  # which shows timings, so it imports this module

        return notebook.of_benchmark(self)

    def _repr_html_(self) -> str:
        return Benchmarks([self])._repr_html_()


class Benchmarks(tuple[Benchmark, ...]):
    """Timings on several providers, as a notebook shows them."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        from onnxpress import notebook

        return notebook.benchmarks_html(self)


def bench(
    first: str | Path,
    second: str | Path,
    *,
    data: object = None,
    providers: Sequence[str] = ("cpu",),
    threads: int | None = None,
    seconds: float = 5.0,
    pairs: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
    calm: Calm | None = None,
) -> Benchmarks:
    """Time two models in turns (A B A B …) on each provider.

    Args:
        first: the reference.
        second: what is compared with it; same inputs.
        data: what `open_feed` takes; None makes inputs up.
        providers: execution providers, by short or full name.
        threads: threads inside an operator; None leaves the choice to ONNX Runtime.
        seconds: after which no new pair starts, on each provider; at least three pairs run.
        pairs: that run at most, on each provider.
        seed: of inputs that are made up.
        progress: told about each provider.
        calm: shared by timings of the same reference, it takes one again where the machine was disturbed; None takes
            each once.

    Raises:
        ConfigError: no seconds or pairs, or an unknown provider.
        ProviderError: a provider is missing or was silently replaced.
        ModelError: a model that cannot be run.
        FeedError: samples that do not fit.
    """
    if not seconds > 0:
        raise ConfigError(f"seconds {seconds}: give more than 0")
    if pairs < 1:
        raise ConfigError(f"pairs {pairs}: give 1 or more")
    check_runtime()
    names = provider_names(providers)
    with Runner(first, threads=threads) as runner:
        batches = list(islice(samples_for(runner, data, seed=seed), BATCHES))
    race = _Race(Path(first), Path(second), batches, threads, seconds, pairs, progress or Silent())
    return Benchmarks(race.calmly(each, calm or Calm()) for each in names)


@dataclass(frozen=True, slots=True)
class _Race:
    first: Path
    second: Path
    batches: Sequence[Batch]
    threads: int | None
    seconds: float
    pairs: int
    progress: Progress

    def calmly(self, provider: str, calm: Calm) -> Benchmark:
        """Time on one provider, again where the machine was disturbed."""
        shapes = tuple((name, array.shape) for batch in self.batches for name, array in batch.items())
        key = (self.first, provider, self.threads, shapes)
        found, slowed = calm.race(key, lambda: self.on(provider), lambda each: each.first.median)
        return replace(found, slowed=slowed)

    def on(self, provider: str) -> Benchmark:
        """Time on one provider."""
        runners, loads = zip(*(self._open(path, provider) for path in (self.first, self.second)), strict=True)
        try:
            times = in_turns(runners, self.batches, seconds=self.seconds, rounds=self.pairs, progress=self.progress)
        finally:
            for each in runners:
                each.close()
        sizes = [Artifact.of(path).nbytes for path in (self.first, self.second)]
        timings = [_timing(size, load, times[:, k]) for k, (size, load) in enumerate(zip(sizes, loads, strict=True))]
        low, middle, high = map(float, np.quantile(times[:, 0] / times[:, 1], [0.25, 0.5, 0.75]))
        return Benchmark(
            provider=provider,
            threads=self.threads,
            shapes={name: array.shape for name, array in self.batches[0].items()},
            pairs=len(times),
            first=timings[0],
            second=timings[1],
            speedup=middle,
            quartiles=(low, high),
        )

    def _open(self, path: Path, provider: str) -> tuple[Runner, float]:
        took: list[float] = []
        while True:
            began = time.perf_counter()
            runner = Runner(path, providers=[provider], threads=self.threads)
            took.append(time.perf_counter() - began)
            if len(took) == LOADS or sum(took) > QUICK:
                return runner, min(took)
            runner.close()


def _timing(nbytes: int, load_seconds: float, times: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Timing:
    low, middle, high = map(float, np.quantile(times, [0.25, 0.5, 0.75]))
    return Timing(nbytes, load_seconds, middle, (low, high))
