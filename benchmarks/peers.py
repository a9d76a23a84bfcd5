"""Other tools, each in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / ".cache" / "peers"


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
    command = environment("onnxsim==0.8.1", "onnxruntime==1.32.0") / "onnxsim"
    subprocess.run([command, source, target], check=True, stdout=subprocess.DEVNULL)
