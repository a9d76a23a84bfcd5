"""Even out the channels of activations before they become codes: their size moves into the weights that read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from onnxpress.calibration.observers import MinMax, Rows
from onnxpress.calibration.views import View
from onnxpress.passes.balance.absorb import Absorber
from onnxpress.passes.balance.factors import Target, absorb
from onnxpress.passes.balance.fans import Fan, Reader, find_fans
from onnxpress.passes.base import Workbench
from onnxpress.passes.inputs import Reading, in_parts, observe_readings
from onnxpress.passes.kernels.smoothing import Found, Layer, Trial, decibels, search
from onnxpress.passes.quantize.options import check_flag, check_number
from onnxpress.passes.report import Report
from onnxpress.passes.selection import RefusalError, SitePass, wrong
from onnxpress.rewriter.edits import add_node, set_input, sweep
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import infer_shapes
from onnxpress.rewriter.weights import Array

ROWS = 256
"""Rows of an activation on which factors are tried, at most."""

MEMORY = 2**28
"""Bytes of samples that are held at once; more tensors take more walks through the samples."""


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Where factors of a tensor would go.

    Attributes:
        fan: the tensor and its readers.
        targets: the constants that take 1/s; none where a Mul does.
    """

    fan: Fan
    targets: tuple[Target, ...]


class _Seen:
    """What layers read, in two folds: batches in turn give samples to one and ranges to the other.

    So no sample is judged by a range that it made itself, as it will be when the model is used.

    Attributes:
        rows: samples of each fold.
        ranges: of each channel, for the samples of each fold.
    """

    def __init__(self, view: View, *, axis: int, seed: int) -> None:
        """Start with nothing seen."""
        self.rows = tuple(Rows(view=view, count=ROWS // 2, seed=seed) for _ in range(2))
        self.ranges = tuple(MinMax(axis=axis) for _ in range(2))
        self._batches = 0

    def update(self, array: Array, /) -> None:
        """Look at the tensor of one batch."""
        fold = self._batches % 2
        self.rows[fold].update(array)
        self.ranges[1 - fold].update(array)
        self._batches += 1

    def merge(self, other: Self, /) -> None:
        """Take in what another one saw."""
        for rows, others in zip(self.rows, other.rows, strict=True):
            rows.merge(others)
        for ranges, theirs in zip(self.ranges, other.ranges, strict=True):
            ranges.merge(theirs)
        self._batches += other._batches

    def state(self) -> dict[str, Array]:
        """All that was seen."""
        parts = [*(each.state() for each in self.rows), *(each.state() for each in self.ranges)]
        return {f"{place}/{key}": value for place, part in enumerate(parts) for key, value in part.items()}

    def check(self, channels: int) -> None:
        """Refuse what factors cannot be tried on.

        Raises:
            RefusalError: nothing was seen, or NaN or infinities.
        """
        if any(each.ignored for each in self.ranges):
            raise RefusalError("it held NaN or infinities")
        if self._batches == 1:  # its own range must do
            self.ranges = (self.ranges[1], self.ranges[1])
        if all(each.empty for each in self.rows) or any(each.low.shape != (channels,) for each in self.ranges):
            raise RefusalError("the samples show nothing of it")

    def layer(self, reader: Reader) -> Layer:
        """A layer on the samples."""
        kept = [(fold, each.rows) for fold, each in enumerate(self.rows) if not each.empty]
        folds = np.concatenate([np.full(rows.shape[1], fold) for fold, rows in kept])
        return Layer(np.concatenate([rows for _, rows in kept], axis=1), folds, reader.matrices(), reader.channels)


@dataclass(frozen=True, kw_only=True)
class Smooth(SitePass):
    """Divide activations by a factor a channel and multiply the weights that read them by it (SmoothQuant).

    X Wᵀ = (X / s) (W · s)ᵀ, exact but for rounding (Xiao et al., 2023, https://arxiv.org/abs/2211.10438). X / s has
    channels of like range, so 8-bit codes with one scale for the tensor lose less. The division goes into the node
    that gives X where that is free and nobody else reads X; else a Mul is put before the layers, and other readers
    keep X. Before convolutions no Mul is put, since it would part layers that run on codes without a break.

    The factors of each tensor are those with the least error of its readers on codes, tried on samples; where they
    gain little, the tensor is left alone.

    Attributes:
        strength: part of the range that moves, in [0, 1]: s = max|X|^a / max|W|^(1−a); None searches factors.
        min_gain: dB by which the error must shrink, else the tensor is left alone.
        enough: dB of signal to noise at which a tensor's readers are left alone, as others will limit the result.
        insert: whether a Mul may be put before MatMul and Gemm.
    """

    name: ClassVar[str] = "smooth"
    strength: float | None = None
    min_gain: float = 2.0
    enough: float = 40.0
    insert: bool = True

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if self.strength is not None and not (_is_number(self.strength) and 0 <= self.strength <= 1):
            raise wrong(self, "strength", "lie in [0, 1], or be left out to be searched")
        check_number(self, "min_gain")
        check_number(self, "enough")
        check_flag(self, "insert")

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Find tensors, try factors on samples, rewrite.

        Raises:
            FeedError: no samples.
        """
        if bench.feed is None:
            raise FeedError("smoothing tries factors on samples; give some with --data")
        report = self.report()
        places = self._places(model, find_fans(model, self.candidates(model, report), report), report)
        chosen = []
        for part in in_parts(places, MEMORY, sizes=_sizes):
            seen = _observe(model, part, bench)
            for place in part:
                found = self._search(place.fan, seen, report)
                if found is not None:
                    chosen.append((place, found))
        for place, found in chosen:
            where = _rewrite(model, place, found)
            size = place.fan.nbytes
            report.change(place.fan.name, f"{_text(found)}; {where}", bytes_before=size, bytes_after=size)
        sweep(model)
        return report

    def _places(self, model: Model, fans: Sequence[Fan], report: Report) -> list[_Place]:
        absorber = Absorber(model, infer_shapes(model))
        found = []
        for fan in fans:
            readers = {id(node) for node in fan.nodes}
            try:
                found.append(_Place(fan, absorber.plan(fan.tensor, fan.channels, readers=readers)))
            except RefusalError as refusal:
                if self.insert and fan.axis == -1:
                    found.append(_Place(fan, ()))
                else:
                    report.skip(fan.name, f"{refusal}, so it would take a Mul, which costs more before these layers")
        return found

    def _search(self, fan: Fan, seen: dict[Reading, _Seen], report: Report) -> Found | None:
        """The factors of a tensor; None, with a skip, where it is left alone."""
        try:
            trial = _trial(fan, seen)
            if (sqnr := decibels(trial.plain)) >= self.enough:
                raise RefusalError(f"{sqnr:.1f} dB are enough as they are ({self.enough:g} dB)")
            found = search(trial, strength=self.strength)
            if found.gain < self.min_gain:
                raise RefusalError(f"{_text(found)} gains less than min_gain {self.min_gain:g} dB")
        except RefusalError as refusal:
            report.skip(fan.name, str(refusal))
            return None
        return found


def _text(found: Found) -> str:
    return f"{found.how}, {decibels(found.before):.1f} → {decibels(found.after):.1f} dB"


def _sizes(place: _Place) -> dict[Reading, int]:
    """Bytes of the samples of each reading."""
    return {reader.reading: 4 * ROWS * reader.channels.size for reader in place.fan.readers}


def _observe(model: Model, places: Sequence[_Place], bench: Workbench) -> dict[Reading, _Seen]:
    """What the samples show of what layers read."""
    seen = {
        reader.reading: _Seen(reader.reading.view, axis=place.fan.axis, seed=bench.seed)
        for place in places
        for reader in place.fan.readers
    }
    observe_readings(model, seen, bench)
    return seen


def _trial(fan: Fan, seen: dict[Reading, _Seen]) -> Trial:
    """The layers of a fan on samples.

    Raises:
        RefusalError: there are no usable ones.
    """
    samples = [seen[reader.reading] for reader in fan.readers]
    for each in samples:
        each.check(fan.count)
    ranges = samples[0].ranges
    low, high = np.stack([each.low for each in ranges]), np.stack([each.high for each in ranges])
    layers = [each.layer(reader) for each, reader in zip(samples, fan.readers, strict=True)]
    try:
        return Trial(layers, low=low, high=high)
    except ValueError as error:
        raise RefusalError("a weight that reads it holds NaN or infinities; train or export it again") from error


def _rewrite(model: Model, place: _Place, found: Found) -> str:
    """Move the factors; tells where the division went."""
    fan = place.fan
    if place.targets:
        absorb(model, place.targets, 1 / found.scale)
        told = "absorbed by " + ", ".join(dict.fromkeys(str(target.node.op) for target in place.targets))
    else:
        factors = model.add_weight(f"{fan.name}_smooth", (1 / found.scale).astype(np.float32))
        smoothed = add_node(model, model.graph, "Mul", [fan.tensor, factors], hint=f"{fan.name}_smoothed")
        for node in fan.nodes:
            set_input(node, 0, smoothed)
        told = f"a Mul before {len(fan.nodes)} layer" + "s" * (len(fan.nodes) > 1)
    fan.scale_weights(model, found.scale)
    return told


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
