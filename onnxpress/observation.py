"""What the activations of a model are like, observed once and kept in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from onnxpress.artifact import check_output, check_places
from onnxpress.calibration.progress import Progress, Silent
from onnxpress.calibration.session import Runner
from onnxpress.calibration.statistics import KINDS, Statistics
from onnxpress.passes.base import Workbench
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.quantize.ranges import gather
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model
from onnxpress.runtime import check_runtime
from onnxpress.verification import provider_names, samples_for


@dataclass(frozen=True, slots=True)
class Observation:
    """A calibration file.

    Attributes:
        path: where it is.
        tensors: that were observed.
        batches: of samples that were seen.
        nbytes: of the file.
        warnings: what the user must know about samples and tensors.
    """

    path: Path
    tensors: int
    batches: int
    nbytes: int
    warnings: tuple[str, ...] = ()


def calibrate_file(
    model: str | Path,
    out: str | Path,
    *,
    data: object = None,
    method: str = "histogram",
    samples: int | None = None,
    providers: Sequence[str] = ("cpu",),
    threads: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Observation:
    """Normalise a model, observe its activations over samples, and keep what was seen.

    Args:
        model: a file.
        out: where the calibration file goes; one there is replaced.
        data: anything `open_feed` takes; None makes inputs up, with a warning.
        method: `histogram`, `minmax` or `average`.
        samples: of `data` used at most.
        providers: execution providers in order of preference, by short or full name.
        threads: threads inside an operator; None leaves the choice to ONNX Runtime.
        seed: of samples that are made up.
        progress: told about each walk through the samples.

    Raises:
        ModelError: the model cannot be read or run, or the file not written.
        ConfigError: an unknown method, or `out` cannot be used.
        FeedError: samples that do not fit the model.
        ProviderError: a provider is missing or was silently replaced.
    """
    check_runtime()
    if method not in KINDS:
        raise ConfigError(f"method {method!r} is unknown; give {', '.join(KINDS)}")
    out, names = Path(out), provider_names(providers)
    check_places({"output": out}, models=[model], sources={"data": data})
    check_output(out)
    with Runner(Path(model), threads=threads) as runner:
        feed = samples_for(runner, data, limit=samples, seed=seed)
    bench = Workbench(feed=feed, providers=names, threads=threads, seed=seed, progress=progress or Silent())
    statistics = gather(Pipeline([])(Model.load(model), bench).model, bench, kind=method)
    return _saved(statistics, out, warnings=feed.warnings)


def merge_files(parts: Sequence[str | Path], out: str | Path) -> Observation:
    """Join calibration files of one model, each of a part of the samples.

    Args:
        parts: calibration files made by the same method.
        out: where the whole goes; none of the parts.

    Raises:
        ConfigError: less than two files, one that is none, files of different models or methods, or `out` is a part.
        ModelError: the file cannot be written.
    """
    if len(parts) < 2:
        raise ConfigError(f"{len(parts)} calibration file is nothing to merge; give two or more")
    out = Path(out)
    for part in parts:
        check_places({"output": out}, sources={"merge": part})
    check_output(out)
    return _saved(reduce(Statistics.merged, (Statistics.load(Path(each)) for each in parts)), out)


def _saved(statistics: Statistics, out: Path, *, warnings: Sequence[str] = ()) -> Observation:
    statistics.save(out)
    found = [*warnings]
    odd = [name for name, each in statistics.observers.items() if each.ignored]
    if odd:
        found.append(f"NaN or infinities in {_some(odd)} do not count; where they are NaN, look for their cause")
    empty = [name for name, each in statistics.observers.items() if each.empty]
    if empty:
        found.append(f"no finite number was seen in {_some(empty)}, so there is no range")
    return Observation(out, len(statistics.observers), statistics.batches, out.stat().st_size, tuple(found))


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:3]))
    return f"{len(names)} tensors ({shown}{', …' if len(names) > 3 else ''})" if len(names) > 1 else shown
