"""The command line: runs a command and turns what goes wrong into one line and an exit status."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

# All else is imported inside functions: an interrupt while it loads must end as one later does, so `main` catches it.

DONE, BUG, WRONG_INPUT, LIMIT_NOT_MET, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143

_REFUSED = {errno.EACCES, errno.EDQUOT, errno.EMFILE, errno.ENAMETOOLONG, errno.ENOSPC, errno.EPERM, errno.EROFS}
"""What the system refuses whatever the program does: a name that is too long, a full disk; no bug of ours."""


class _Terminated(BaseException):
    """The system asked the program to end; no SystemExit, which a feed of the user's may raise and we catch there."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: those after the program's name; None takes the program's own.

    Returns:
        The exit status: 0 done, 1 a bug, 2 wrong usage or input, 3 a limit not met, 130 interrupted.
    """
    try:
        status = _run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        status = INTERRUPTED
    except _Terminated:
        return TERMINATED
    if status == INTERRUPTED:
        # Not by `complain`, whose module may be the one that was loading.
        sys.stderr.write("onnxpress: stopped: interrupted; what was not finished is removed\n")
    return status


def _run(given: list[str]) -> int:
    """Run a command; gives its exit status."""
    import threading
    import traceback
    import warnings

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)

    import typer

    from onnxpress.commands import DEBUG, app

    debug = DEBUG in given
    if not debug:
        warnings.simplefilter("ignore")  # of other libraries: ours stand in the report
    # ClickException, which typer brings from click or carries itself, depending on its version.
    usage_error: type[Exception] = typer.BadParameter.__mro__[2]
    try:
        status = app([each for each in given if each != DEBUG], prog_name="onnxpress", standalone_mode=False)
    except usage_error as error:
        return _wrong_usage(error)
    except typer.Abort:
        return INTERRUPTED
    except SystemExit as error:
        status = error.code
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _status_of(error, DEBUG)
    return status if isinstance(status, int) else DONE


def _status_of(error: Exception, debug: str) -> int:
    """Say in one line what went wrong, or which option shows more."""
    from onnxpress.rewriter.errors import InputError, LimitNotMet
    from onnxpress.terminal import complain

    if isinstance(error, InputError):
        complain(str(error))
        return WRONG_INPUT
    if isinstance(error, LimitNotMet):
        complain(str(error), kind="limit not met")
        return LIMIT_NOT_MET
    if isinstance(error, OSError) and error.errno in _REFUSED:
        place = f"{error.filename}: " if error.filename else ""
        complain(f"{place}{error.strerror}")
        return WRONG_INPUT
    text = str(error).partition("\n")[0]
    complain(
        f"{type(error).__name__}: {text}. This is a bug in onnxpress: please report it with what the same command "
        f"prints with {debug}",
        kind="bug",
    )
    return BUG


def _wrong_usage(error: Exception) -> int:
    from onnxpress.terminal import complain

    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "onnxpress"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    complain(f"{message.rstrip('.')}; see {command} --help")
    return WRONG_INPUT


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """End as an error would, so that unfinished files go."""
    raise _Terminated
