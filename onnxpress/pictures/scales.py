"""Axes of plots: where a value stands, and which values are named."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis.

    Attributes:
        low: value at its beginning, finite.
        high: value at its end, larger.
        log: equal ratios take equal room; `low` is above zero then.
    """

    low: float
    high: float
    log: bool = False

    @classmethod
    def over(cls, values: Iterable[float], *, log: bool = False, zero: bool = False, pad: float = 0.06) -> Scale:
        """An axis with room for values; those that are not finite are left out.

        Args:
            values: any number of them.
            log: take a logarithmic axis where all are above zero and they lie far apart.
            zero: begin at zero.
            pad: part of the axis that stays free at each end.
        """
        found = [each for each in values if math.isfinite(each)] or [0.0, 1.0]
        low, high = min(found), max(found)
        if log and low > 0 and high / low > 6:
            room = (high / low) ** pad
            return cls(low / room, high * room, log=True)
        room = (high - low or abs(high) or 1.0) * pad
        return cls(0.0 if zero and low >= 0 else low - room, high + room)

    def at(self, value: float) -> float:
        """Where a value stands, from 0 to 1; beyond the ends it stands at the end."""
        if self.log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(max(share, 0.0), 1.0)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values to name, ascending."""
        if self.log:
            return self._powers(most)
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * each for each in (1, 2, 5, 10) if power * each >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(k * step, 12) for k in range(first, last + 1)]

    def _powers(self, most: int) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for steps in ((1, 2, 5), (1, 3), (1,)):
            found = [m * 10.0**d for d in decades for m in steps if self.low <= m * 10.0**d <= self.high]
            if len(found) <= most:
                return found
        return found[:: math.ceil(len(found) / most)]


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale with its name and the way its values are written."""

    scale: Scale
    title: str
    written: Callable[[float], str]


HEIGHT = 280
"""Pixels that a plot is high."""


def plot(content: str, x: Axis, y: Axis, *, told: str) -> str:
    """Axes around what was drawn, as wide as there is room: across, places are percentages, letters keep their size.

    Args:
        content: SVG, across in percent, down in pixels of `HEIGHT`.
        x: the axis across.
        y: the axis upward.
        told: what is drawn, in words, escaped.
    """
    lines = []
    for tick in y.scale.ticks(5):
        at = down(y.scale, tick)
        lines.append(f'<line class="grid" x1="0" x2="100%" y1="{at}" y2="{at}"/>')
        lines.append(f'<text x="-8" y="{at + 4:.1f}" text-anchor="end">{y.written(tick)}</text>')
    for tick in x.scale.ticks(4):
        place = across(x.scale, tick)
        lines.append(f'<line class="axis" x1="{place}" x2="{place}" y1="{HEIGHT}" y2="{HEIGHT + 5}"/>')
        lines.append(f'<text x="{place}" y="{HEIGHT + 18}" text-anchor="middle">{x.written(tick)}</text>')
    lines.append(f'<line class="axis" x1="0" x2="100%" y1="{HEIGHT}" y2="{HEIGHT}"/>')
    lines.append(f'<text x="-46" y="-12">{y.title}</text>')
    lines.append(f'<text x="100%" y="{HEIGHT + 36}" text-anchor="end">{x.title}</text>')
    return f'<svg class="plot" height="{HEIGHT}" role="img" aria-label="{told}">{"".join(lines)}{content}</svg>'


def across(scale: Scale, value: float) -> str:
    """Where a value stands across, in percent."""
    return f"{100 * scale.at(value):.2f}%"


def down(scale: Scale, value: float) -> float:
    """Where a value stands upward, in pixels from above."""
    return round(HEIGHT * (1 - scale.at(value)), 1)
