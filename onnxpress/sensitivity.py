"""How sensitive a model is to what is taken from each of its layers and groups: curves of error against ratio."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from onnxpress.passes.report import Curve, Report
from onnxpress.tables import decibel
from onnxpress.terminal import Table, brief

GRID = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Ratios shown where curves were measured at many."""

_MOST_COLUMNS = 8
_JUDGED = "outputs that come from a Softmax, Sigmoid or the like are judged before it, where the answer is not sure yet"
_PLACES = {"outputs": "worst output of the model", "layer": "output of the layer"}


@dataclass(frozen=True, slots=True)
class Family:
    """Curves that can be compared.

    Attributes:
        maker: the pass that measured them.
        unit: what their ratios are parts of.
        where: what their signal to noise is that of.
        curves: the most sensitive first.
    """

    maker: str
    unit: str
    where: str
    curves: tuple[Curve, ...]

    @property
    def title(self) -> str:
        """What is shown: `prune-channels: SQNR of the worst output of the model at parts of channels removed`."""
        parts = "parts of weights set to zero" if self.unit == "sparsity" else f"parts of {self.unit} removed"
        return f"{self.maker}: SQNR of the {_PLACES.get(self.where, self.where)} at {parts}"


def families(reports: Iterable[Report]) -> list[Family]:
    """All curves, those that can be compared together."""

    def kind(each: tuple[str, Curve]) -> tuple[str, str, str]:
        return each[0], each[1].unit, each[1].where

    found = sorted(((report.name, curve) for report in reports for curve in report.curves if curve.ratios), key=kind)
    return [Family(*key, ranked([curve for _, curve in each])) for key, each in groupby(found, key=kind)]


def ranked(curves: Sequence[Curve]) -> tuple[Curve, ...]:
    """The most sensitive first: least SQNR at the middle one of all ratios measured; unmeasured there last."""
    middle = float(np.median([ratio for curve in curves for ratio in curve.ratios if ratio > 0] or [0.0]))
    values = {id(curve): _nearest(curve, middle) for curve in curves}
    return tuple(sorted(curves, key=lambda each: (values[id(each)], each.site)))


def at(curve: Curve, ratio: float) -> float | None:
    """SQNR in dB at any ratio, the relative error ‖y − y'‖ / ‖y‖ taken as linear between measured ones.

    Returns:
        None where the ratio lies outside of what was measured.
    """
    if not curve.ratios or not curve.ratios[0] <= ratio <= curve.ratios[-1]:
        return None
    errors = np.array(curve.errors)
    relative = np.where(errors == np.inf, 0, 10 ** np.clip(-errors / 20, -300, 300))
    value = float(np.interp(ratio, curve.ratios, relative))
    return float("inf") if value == 0 else -20 * float(np.log10(value))


def table(reports: Sequence[Report], *, most: int = 12) -> list[Table]:
    """SQNR at each ratio for each layer or group, the most sensitive first: a table for each family of curves."""
    return [_table(family, most=most) for family in families(reports)]


def _table(family: Family, *, most: int) -> Table:
    measured = sorted({ratio for curve in family.curves for ratio in curve.ratios if ratio > 0})
    columns = measured if len(measured) <= _MOST_COLUMNS else [r for r in GRID if r <= measured[-1]]
    names = brief([curve.site for curve in family.curves[:most]])
    rows = [
        [name, *(_cell(at(curve, ratio)) for ratio in columns)]
        for name, curve in zip(names, family.curves, strict=False)
    ]
    notes = [_JUDGED] if family.where == "outputs" else []
    if columns != measured:
        notes.append("between the ratios that were measured, the relative error is taken as linear")
    if len(family.curves) > most:
        notes.append(f"and {len(family.curves) - most} less sensitive ones, in the report (--json)")
    return Table(family.title, ("site", *(f">{ratio:.3g}" for ratio in columns)), rows, notes)


def _cell(value: float | None) -> str:
    return "" if value is None else decibel(value)


def _nearest(curve: Curve, ratio: float) -> float:
    """SQNR at the ratio, or at the end of the curve that is nearest to it."""
    return at(curve, min(max(ratio, curve.ratios[0]), curve.ratios[-1])) or 0.0
