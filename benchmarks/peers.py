"""Other tools, each in an environment of its own and each piece of work in a fresh interpreter."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.peer_scripts.measure import Job, Work
from onnxpress.artifact import Artifact
from onnxpress.rewriter.errors import OnnxpressError

FOLDER = Path(__file__).parents[1] / ".cache" / "peers"
SCRIPTS = Path(__file__).parent / "peer_scripts"

ONNXSIM = ("onnxsim==0.8.1", "onnxruntime==1.32.0")
# sympy is for the symbolic shape inference of quant_pre_process
ONNXRUNTIME = ("onnxruntime==1.32.0", "onnx==1.23.2", "sympy==1.14.0")
# with its ONNX backend NNCF asks for neither PyTorch nor OpenVINO
NNCF = ("nncf==3.4.0", "onnx==1.23.2", "onnxruntime==1.32.0")
# the only tool found that removes channels from ONNX files
QONNX = ("qonnx==1.0.0", "onnx==1.23.2", "onnxruntime==1.32.0")

_TICK = 0.05  # seconds between two looks at a running script


def environment(*requirements: str) -> Path:
    """The folder of commands of an environment that holds `requirements`; made once, then reused."""
    folder = FOLDER / "+".join(requirements).replace("=", "-")
    commands = folder / "bin"
    done = folder / "complete"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([commands / "pip", "install", "--quiet", *requirements], check=True)
        done.touch()
    return commands


def onnxsim(source: Path, target: Path) -> None:
    """Simplify a model by onnxsim."""
    command = environment(*ONNXSIM) / "onnxsim"
    subprocess.run([command, source, target], check=True, stdout=subprocess.DEVNULL)


class FailedError(Exception):
    """A tool came to no result; the message is a line that says why."""

    def __init__(self, reason: str, peak: int | None = None) -> None:
        """Keep the reason and the most bytes that were seen resident."""
        super().__init__(reason)
        self.peak = peak


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one script may take.

    Attributes:
        seconds: of wall time.
        nbytes: of resident memory.
    """

    seconds: float = 900.0
    nbytes: int = 8 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A script of `peer_scripts`, and the environment it runs in.

    Attributes:
        file: its name.
        requirements: of its environment; none runs it in this one.
        options: of the tool.
    """

    file: str
    requirements: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)

    def python(self) -> Path:
        """The interpreter; installs the environment where it is not there yet.

        Raises:
            FailedError: it cannot be installed.
        """
        if not self.requirements:
            return Path(sys.executable)
        try:
            return environment(*self.requirements) / "python"
        except (OSError, subprocess.CalledProcessError) as error:
            raise FailedError(f"cannot install {' '.join(self.requirements)}: {error}") from error

    def run(self, source: Path, target: Path, *, samples: Path, threads: int, bounds: Bounds) -> Work:
        """Run the script in a folder of its own.

        Args:
            source: the float model.
            target: where the result goes.
            samples: folder of .npz files, a batch a file.
            threads: that the result will be run with.
            bounds: beyond which the script is ended.

        Returns:
            What it took.

        Raises:
            FailedError: it crashed, was ended, or wrote no model.
        """
        folder = target.parent / f"{target.stem}-work"
        folder.mkdir()
        made, answer, log = folder / "model.onnx", folder / "answer.json", folder / "log.txt"
        job = Job(str(source), str(made), str(samples), str(answer), threads, self.options)
        (folder / "job.json").write_text(json.dumps(asdict(job)))
        command = [self.python(), SCRIPTS / self.file, folder / "job.json"]
        try:
            code, peak = _watched(command, folder, log, bounds)
            if code:
                raise FailedError(_last_words(log) or f"ended with code {code}", peak)
            if not made.is_file() or not answer.is_file():
                raise FailedError("wrote no model", peak)
            _move(made, target)
            return Work(**json.loads(answer.read_text()))
        finally:
            shutil.rmtree(folder)


def _move(made: Path, target: Path) -> None:
    """Take a model out of its scratch folder, with external data where it has any.

    Raises:
        FailedError: the file is no model.
    """
    try:
        files = Artifact.of(made).files
    except OnnxpressError as error:
        raise FailedError(f"wrote a file that is no model: {error}") from error
    for file in files:
        shutil.move(file, target if file == made else target.parent / file.name)


def _watched(command: Sequence[str | Path], folder: Path, log: Path, bounds: Bounds) -> tuple[int, int | None]:
    """Run a command: its exit code, and the most bytes it was seen to hold."""
    quiet = {**os.environ, "NNCF_CI": "1"}  # NNCF would send statistics of its use
    began, peak = time.perf_counter(), None
    with log.open("wb") as stream:
        process = subprocess.Popen(command, cwd=folder, stdout=stream, stderr=subprocess.STDOUT, env=quiet)
        try:
            while process.poll() is None:
                resident = _resident(process.pid)
                peak = max(peak or 0, resident)
                if resident > bounds.nbytes:
                    raise FailedError(f"ended at {resident / 1e9:.1f} GB of memory", peak)
                if time.perf_counter() - began > bounds.seconds:
                    raise FailedError(f"ended after {bounds.seconds:.0f} seconds", peak)
                time.sleep(_TICK)
        finally:
            process.kill()
            process.wait()
    return process.returncode, peak


def _resident(pid: int) -> int:
    """Bytes a process holds now; 0 where it has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return 1024 * int(status.partition("VmRSS:")[2].split()[0]) if "VmRSS:" in status else 0


def _last_words(log: Path) -> str:
    """The error that ended a script: the line after its last traceback, or the last line of its log."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    starts = [k for k, line in enumerate(lines) if line.startswith("Traceback")]
    errors = [line for line in lines[starts[-1] + 1 :] if not line[0].isspace()] if starts else []
    said = (errors[:1] or lines[-1:] or [""])[0].strip()[:300]
    return re.sub(r"^(?:\w+\.)+(\w+:)", r"\1", said)  # the module of the error's class tells nothing
