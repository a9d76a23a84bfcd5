"""Cells of tables that can be sorted."""

from __future__ import annotations

import math

from onnxpress.passes.shown import clean


def figure(value: float | None, text: str) -> str:
    """A figure with the value it is sorted by; what is no number comes last."""
    if value is None or math.isnan(value):
        key = ""
    else:
        key = f"{value:.6g}" if math.isfinite(value) else f"{'-' if value < 0 else ''}Infinity"
    return f'<td class="right" data-v="{key}">{clean(text)}</td>'


def heading(text: str) -> str:
    """A heading; one that starts with `>` stands at the right."""
    return f'<th class="right">{clean(text[1:])}</th>' if text.startswith(">") else f"<th>{clean(text)}</th>"
