"""What a script is asked for, what samples it reads, and what its interpreter took.

A script is started as `python script.py job.json` and ends by `Meter.report`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Job:
    """One quantization.

    Attributes:
        source: the float model.
        target: where the result goes.
        samples: folder of .npz files, a batch a file.
        answer: where the measurements go.
        threads: that the result will be run with.
        options: of the tool.
    """

    source: str
    target: str
    samples: str
    answer: str
    threads: int
    options: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def read(cls) -> Job:
        """The job named on the command line."""
        return cls(**json.loads(Path(sys.argv[1]).read_text()))

    def files(self) -> list[Path]:
        """One file for each batch."""
        return sorted(Path(self.samples).glob("*.npz"))

    def batches(self) -> Iterator[dict[str, NDArray[np.generic]]]:
        """One batch at a time, arrays by input name."""
        for path in self.files():
            with np.load(path) as stored:
                yield {name: stored[name] for name in stored.files}


@dataclass(frozen=True, slots=True)
class Work:
    """What one quantization took.

    Attributes:
        seconds: of wall time, after the imports.
        cpu_seconds: user and system, after the imports.
        cpu_seconds_of_imports: the same of the imports.
        peak: most bytes resident, imports included.
        peak_of_imports: most bytes resident before the work began.
        versions: by package.
        notes: remarks for the table.
    """

    seconds: float
    cpu_seconds: float
    cpu_seconds_of_imports: float
    peak: int
    peak_of_imports: int
    versions: Mapping[str, str]
    notes: Sequence[str]


class Meter:
    """CPU seconds, wall seconds and peak memory of this interpreter; make it after all imports."""

    def __init__(self, job: Job) -> None:
        """Start the clocks."""
        self._job = job
        self._imports = time.process_time()
        self._resident = peak()
        self._began = time.perf_counter()

    def report(self, packages: Sequence[str], *, notes: Sequence[str] = ()) -> None:
        """Write what the work took to `job.answer`, with the versions of `packages`."""
        seconds, cpu = time.perf_counter() - self._began, time.process_time()
        work = Work(
            seconds=seconds,
            cpu_seconds=cpu - self._imports,
            cpu_seconds_of_imports=self._imports,
            peak=peak(),
            peak_of_imports=self._resident,
            versions={name: version(name) for name in packages},
            notes=list(notes),
        )
        Path(self._job.answer).write_text(json.dumps(asdict(work)))


def peak() -> int:
    """Most bytes resident so far; not getrusage, whose maximum is inherited from the parent process."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
