"""What opening a session takes: seconds, and memory in a fresh interpreter."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

LOADS = 5


def opening(files: Mapping[str, Path], threads: int) -> dict[str, float]:
    """Seconds to a session of each file: the least of some, in turns."""
    taken: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(LOADS):
        for name, file in files.items():
            began = time.perf_counter()
            _open(file, threads)
            taken[name].append(time.perf_counter() - began)
    return {name: min(each) for name, each in taken.items()}


def opening_memory(file: Path, threads: int) -> int:
    """Bytes by which the highest resident memory of a fresh interpreter grows while it opens a file."""
    call = f"from benchmarks.loading import grown; print(grown({str(file)!r}, {threads}))"
    return int(subprocess.run([sys.executable, "-c", call], check=True, capture_output=True, text=True).stdout)


def grown(file: str, threads: int) -> int:
    """The same in this interpreter."""
    importlib.import_module("onnxruntime")  # is no part of it
    before = peak_bytes()
    _open(Path(file), threads)
    return peak_bytes() - before


def peak_bytes() -> int:
    """The highest resident memory of this program.

    Not getrusage: its maximum is inherited from the program that started this one.
    """
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def _open(file: Path, threads: int) -> object:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
