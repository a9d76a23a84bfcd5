"""What a finished model takes to load, and to run where constants are not folded; measured, for the report."""

from __future__ import annotations

import ctypes
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from onnxpress.calibration.session import Runner
from onnxpress.passes.base import Workbench
from onnxpress.passes.encode.evaluate import decoded_weights, extract
from onnxpress.rewriter.errors import OnnxpressError
from onnxpress.rewriter.evaluate import start
from onnxpress.rewriter.model import Model

LARGEST = 1 << 30
"""Bytes of dense weights up to which a model is measured."""
_TURNS, _PATIENCE = 3, 5.0
"""Times that both models are loaded at most, and seconds after which no more turn begins."""
_HIGHEST = Path("/proc/self/status"), Path("/proc/self/clear_refs")
"""Where Linux keeps the highest memory of a program, and where it is told to begin anew."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What opening a session takes beyond what it takes for the model before.

    Attributes:
        seconds: of some turns the least of each.
        nbytes: of memory at its highest, of some turns the most of each; None where the system does not tell.
    """

    seconds: float
    nbytes: int | None


def seconds_more(before: Model, after: Model, bench: Workbench) -> float | None:
    """Seconds that a session takes longer to open than that of the model before; None as of `opening`."""
    found = opening(before, after, bench)
    return None if found is None else found.seconds


def opening(before: Model, after: Model, bench: Workbench) -> Opening | None:
    """What opening a session takes beyond what it takes for the model before.

    None where the models are too large, or ONNX Runtime does not load the one before.
    """
    if before.weight_bytes() > LARGEST:
        return None
    began, taken = time.perf_counter(), []
    with TemporaryDirectory(prefix="onnxpress-") as folder:
        paths = [Path(folder) / "before" / "model.onnx", Path(folder) / "after" / "model.onnx"]
        for model, path in zip((before, after), paths, strict=True):
            path.parent.mkdir()
            model.save(path)
        try:
            for _ in range(_TURNS):
                taken.append([_opening(path, bench) for path in paths])
                if time.perf_counter() - began > _PATIENCE:
                    break
        except OnnxpressError:
            return None
    dense, encoded = np.min([[seconds for seconds, _ in turn] for turn in taken], axis=0)
    highest = [[turn[which][1] for turn in taken] for which in (0, 1)]
    first, second = ([each for each in seen if each is not None] for seen in highest)
    nbytes = max(max(second) - max(first), 0) if first and second else None
    return Opening(float(encoded - dense), nbytes)


def unfolded(model: Model, bench: Workbench) -> tuple[float, int | None] | None:
    """What every run takes besides where ONNX Runtime does not fold constants.

    All weights are decoded, node by node, in a session that optimises nothing.

    Returns:
        Seconds, and the highest bytes of memory where the system tells; None for a model that is too large, and for one
        in which nodes decode nothing.
    """
    weights = decoded_weights(model)
    if not weights or model.weight_bytes() > LARGEST:
        return None
    alone = extract(model, weights)
    run = start(alone, optimise=False, threads=bench.threads)
    _trim()
    first, began = _highest(reset=True), time.perf_counter()
    run()
    seconds, last = time.perf_counter() - began, _highest()
    return seconds, None if first is None or last is None else max(last - first, 0)


def _opening(path: Path, bench: Workbench) -> tuple[float, int | None]:
    """Seconds, and the highest bytes of memory where the system tells."""
    _trim()
    first, began = _highest(reset=True), time.perf_counter()
    with Runner(path, providers=bench.providers, threads=bench.threads):
        seconds, last = time.perf_counter() - began, _highest()
    return seconds, None if first is None or last is None else max(last - first, 0)


def _trim() -> None:
    """Let the C library give back what is free, or what runs next takes that first, and nobody sees it."""
    with suppress(OSError, AttributeError):  # another C library than that of GNU
        ctypes.CDLL(None).malloc_trim(0)


def _highest(*, reset: bool = False) -> int | None:
    """The highest resident memory of this program in bytes, since it was told to begin anew; None if unknown."""
    status, clear = _HIGHEST
    try:
        if reset:
            clear.write_text("5")
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    except (OSError, IndexError, ValueError):
        return None
