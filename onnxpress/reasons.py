"""Reasons that say the same of several sites, as one line: a table of a hundred layers is read by nobody."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NAME = r"(?<!\w)'[^']*'(?!\w)"
_FIGURE = r"(?:(?<= )|^)-?(?:\d+(?:,\d{3})*(?:\.\d+)?|inf)(?=[\s,;)%]|$)"
_VARYING = re.compile(f"{_NAME}|{_FIGURE}")
"""Names in quotes, and figures; a figure inside a name has no space before it."""


def words(reason: str) -> tuple[str, ...]:
    """What is left without names and figures; reasons of the same words are one."""
    return tuple(_VARYING.split(reason))


def joint(reasons: Sequence[str]) -> str:
    """Reasons of the same words as one: `has 144 to 576 weights`, `… is an input`.

    Args:
        reasons: at least one.
    """
    first = words(reasons[0])
    columns = zip(*(_VARYING.findall(reason) for reason in reasons), strict=True)
    return first[0] + "".join(_span(column) + after for column, after in zip(columns, first[1:], strict=True))


def _span(texts: Sequence[str]) -> str:
    """A name or figure where all have the same, else `…` or the range."""
    if len(set(texts)) == 1:
        return texts[0]
    if texts[0].startswith("'"):
        return "…"
    low, high = min(texts, key=_value), max(texts, key=_value)
    return low if _value(low) == _value(high) else f"{low} to {high}"


def _value(figure: str) -> float:
    return float(figure.replace(",", ""))
