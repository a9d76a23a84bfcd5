"""Checks of options that the passes of this family share."""

from __future__ import annotations

import math
from collections.abc import Iterable

from onnxpress.passes.base import Pass
from onnxpress.passes.selection import wrong


def check_flag(owner: Pass, field: str, *, optional: bool = False) -> None:
    """Refuse what is neither true nor false, nor None where that is allowed.

    Raises:
        ConfigError: names the field.
    """
    value = getattr(owner, field)
    if not isinstance(value, bool) and not (optional and value is None):
        raise wrong(owner, field, "be true or false" + (", or left out" if optional else ""))


def check_names(owner: Pass, field: str, known: Iterable[str]) -> None:
    """Make a list, as it comes from a recipe, a tuple; refuse what is no list of known names, unless it is None.

    Raises:
        ConfigError: names the field.
    """
    value, names = getattr(owner, field), tuple(known)
    if isinstance(value, list):
        value = tuple(value)
        object.__setattr__(owner, field, value)
    if value is not None and not (isinstance(value, tuple) and all(each in names for each in value)):
        raise wrong(owner, field, f"be a list of {', '.join(names)}")


def check_number(owner: Pass, field: str, *, most: float = math.inf, above: bool = False) -> None:
    """Refuse what is no finite number of at least zero.

    Args:
        owner: the pass.
        field: the option.
        most: what it may be at most.
        above: zero is refused, too.

    Raises:
        ConfigError: names the field.
    """
    value = getattr(owner, field)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < math.inf or value > most or (above and value == 0):
        least = "above 0" if above else "of at least 0"
        raise wrong(owner, field, f"be a number {least}" + (f" and at most {most:g}" if most < math.inf else ""))


def check_path(owner: Pass, field: str) -> None:
    """Refuse what is no path, unless it is None.

    Raises:
        ConfigError: names the field.
    """
    value = getattr(owner, field)
    if value is not None and not (isinstance(value, str) and value):
        raise wrong(owner, field, "be the path of a file, or left out")
