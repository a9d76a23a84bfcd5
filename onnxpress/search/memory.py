"""What a model takes of memory while it is loaded and run, measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from onnxpress.calibration.batches import Array, Batch
from onnxpress.rewriter.errors import ModelError

_SCRIPT = """
import json, resource, sys
import numpy, onnxruntime
model, samples, names, provider, threads = json.loads(sys.argv[1])
def peak():
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
with numpy.load(samples) as stored:
    batch = {name: stored[f"arr_{k}"] for k, name in enumerate(names)}
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
options.intra_op_num_threads = threads or 0
try:
    with open("/proc/self/clear_refs", "w") as references:
        references.write("5")  # the peak so far, that of the imports, is forgotten
except OSError:
    pass
before = peak()
session = onnxruntime.InferenceSession(model, options, providers=[provider])
session.run(None, batch)
print(json.dumps(peak() - before))
"""
"""It imports no more than a program that only runs models would."""

RUNS = 3
"""Of which the least counts."""

LEAST = 1 << 20
"""Bytes below which two measurements of one model differ by as much as they show."""


def gain_of(before: int, after: int) -> float:
    """How many times less memory a model takes; what is below `LEAST` counts as that."""
    return max(before, LEAST) / max(after, LEAST)


def memory_of(model: Path, batch: Batch, *, provider: str, threads: int | None) -> int:
    """Bytes of resident memory that loading a model and running a batch add at their highest.

    Args:
        model: a file.
        batch: as the model takes it.
        provider: execution provider, by full name.
        threads: inside an operator.

    Raises:
        ModelError: it does not run.
    """
    with TemporaryDirectory(prefix="onnxpress-") as folder:
        samples = Path(folder) / "samples.npz"
        np.savez(samples, *map(_plain, batch.values()), allow_pickle=False)
        arguments = json.dumps([str(model), str(samples), list(batch), provider, threads])
        return min(_once(model, arguments) for _ in range(RUNS))


def _plain(array: Array) -> Array:
    """Texts as what can be stored without pickles."""
    return array.astype(str) if array.dtype.kind == "O" else array


def _once(model: Path, arguments: str) -> int:
    found = subprocess.run([sys.executable, "-c", _SCRIPT, arguments], capture_output=True, text=True, check=False)
    if found.returncode:
        silent = f"a signal ended it ({-found.returncode})" if found.returncode < 0 else "it said nothing"
        said = found.stderr.strip().splitlines() or [silent]
        raise ModelError(f"the memory of {model.name} cannot be measured: {said[-1]}")
    return int(json.loads(found.stdout))
