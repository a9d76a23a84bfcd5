"""Where a model may keep its weights: in its own folder, and nowhere else."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

from onnxpress.rewriter.errors import ModelError


def locate(folder: Path, location: str) -> Path:
    """The file that `location` names inside `folder`.

    Raises:
        ModelError: the name is empty or absolute, leads out of the folder (also through a link), or no file has it.
    """
    if not location or "\x00" in location:
        raise ModelError("it names no external file")
    if Path(location).is_absolute() or PureWindowsPath(location).drive or PureWindowsPath(location).root:
        raise ModelError(f"external data '{location}' is an absolute path: it must lie in the model's folder")
    root = folder.resolve()
    file = (root / location).resolve()
    if not file.is_relative_to(root):
        raise ModelError(f"external data '{location}' lies outside the model's folder: put it beside the model")
    if not file.is_file():
        raise ModelError(f"external data '{location}' is missing: put it beside the model")
    return file
