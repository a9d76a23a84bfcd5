"""Functions of the user's own, named `module:function`."""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from onnxpress.rewriter.errors import ConfigError

_REFERENCE = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")


def is_reference(text: str) -> bool:
    """Whether `text` reads as `module:function`."""
    return _REFERENCE.fullmatch(text) is not None


def load_function(reference: str) -> Callable[..., object]:
    """Import `module:function`, or `module:Class.method`.

    The current directory is put on `sys.path` and stays there, as `python -m` does it: the function may import its
    neighbours late.

    Raises:
        ConfigError: it does not read as `module:function`, cannot be imported, or is no function.
    """
    if not is_reference(reference):
        raise ConfigError(f"{reference!r} is not of the form module:function")
    module_name, _, path = reference.partition(":")
    found = _import(module_name, reference)
    for name in path.split("."):
        if not hasattr(found, name):
            raise ConfigError(f"{reference!r}: module {module_name!r} has no {path!r}; check the spelling")
        found = getattr(found, name)
    if not callable(found):
        raise ConfigError(f"{reference!r} is a {type(found).__name__}, not a function")
    return found


def blame(reference: str, error: Exception) -> str:
    """One line that says what the user's function raised, and where."""
    text = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{reference} raised {type(error).__name__}{where}{': ' if text else ''}{text}"


def _import(module_name: str, reference: str) -> object:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    # A module written since the last import of its folder would not be seen.
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ConfigError(
                f"{reference!r}: no module {error.name!r} in {here} or among the installed packages"
            ) from error
        raise ConfigError(f"{reference!r} cannot be imported: {blame(module_name, error)}") from error
    except Exception as error:  # whatever the user's module does on import
        raise ConfigError(f"{reference!r} cannot be imported: {blame(module_name, error)}") from error
