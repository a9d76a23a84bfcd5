"""Where a result was made: versions and machine, for its report."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from onnxpress.runtime import check_runtime

PACKAGES = ("onnx", "onnx-graphsurgeon", "numpy", "scikit-learn")


def versions() -> dict[str, str]:
    """Versions of what a result depends on, ONNX Runtime by the name of its distribution."""
    runtime = check_runtime()
    found = {
        "onnxpress": _version("onnxpress"),
        "python": platform.python_version(),
        runtime.distribution or "onnxruntime": runtime.version,
        **{name: _version(name) for name in PACKAGES},
    }
    return {name: each for name, each in found.items() if each}


def machine() -> dict[str, str | int]:
    """The machine, without what names its owner."""
    return {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": cores(),
    }


def cores() -> int:
    """Cores this program may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    """The name of the processor; Linux keeps it in a file."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        found = []
    return found[0] if found else platform.processor()
