"""Functions of the user's own, named `module:function`."""

from __future__ import annotations

import importlib
import re
import signal
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


def blame(reference: str, error: BaseException) -> str:
    """One line that says what the user's function raised, and where."""
    where = _where(error)
    if isinstance(error, SystemExit):
        return f"{reference} called sys.exit{where}; raise an error or return instead"
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    return f"{reference} raised {type(error).__name__}{where}{': ' if text else ''}{text}"


def by_signal(error: BaseException) -> bool:
    """Whether a signal's own Python function raised it, as one that ends the program does, wherever it is just then."""
    stopping = {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()}
    return any(frame.f_code in stopping for frame, _ in traceback.walk_tb(error.__traceback__))


def _where(error: BaseException) -> str:
    """The file and line to look at, where there is one."""
    # What cannot be parsed was never run: the last line that ran is one of importlib.
    if isinstance(error, SyntaxError) and error.filename and not error.filename.startswith("<"):
        return f" at {Path(error.filename).name}:{error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in (__file__, importlib.__file__) and not frame.filename.startswith("<frozen ")
    ]
    return f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


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
    except (Exception, SystemExit) as error:  # whatever the user's module does on import
        if by_signal(error):
            raise
        raise ConfigError(f"{reference!r} cannot be imported: {blame(module_name, error)}") from error
