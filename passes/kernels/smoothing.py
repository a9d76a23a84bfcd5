"""Factors that even out the channels of an activation, so that one scale for all of them wastes fewer codes.

    X Wᵀ = (X / s) (W · s)ᵀ

SmoothQuant (Xiao et al., 2023, https://arxiv.org/abs/2211.10438) takes s_c = max|X_c|^a / max|W_c|^(1−a) with a = 0.5.
Which s is best differs from tensor to tensor, and a bad one is worse than none, so candidates are tried on samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.kernels.affine import Floats

Doubles = NDArray[np.float64]

STRENGTHS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""How far the range of activations is migrated, 1 being all of it."""

CAPS = (0.7, 0.5, 0.35, 0.25, 0.17, 0.12, 0.08, 0.05)
"""Shares of the widest channel's range to which wider channels are brought; the others keep theirs."""

OUTPUTS = 2048
"""Outputs of a layer that are looked at, at most, spread evenly."""

_FLOOR = 1e-3
"""Of the widest channel: narrower ones count as this wide, so that what samples hardly show is not blown up."""

_CODES = 255
_MOST = 127


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A linear layer on samples of what it reads.

    Attributes:
        rows: samples, float32 [groups, n, k].
        folds: which of the ranges the codes of each sample are made with, int64 [n].
        weight: float32 [groups, out, k]; the layer computes rows · weightᵀ.
        channels: which channel of the tensor an entry of a row belongs to, [groups, k].
    """

    rows: Floats
    folds: NDArray[np.int64]
    weight: Floats
    channels: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The best factors.

    Attributes:
        scale: s, float64 [channels], positive, of geometric mean 1.
        how: what made them: `alpha 0.8` or `channels above 12 % of the range`.
        before: the error without, the mean over layers of ‖XWᵀ − Q(X)Q(W)ᵀ‖² / ‖XWᵀ‖².
        after: the error with them.
    """

    scale: Doubles
    how: str
    before: float
    after: float

    @property
    def gain(self) -> float:
        """How much the error shrinks, in dB."""
        return decibels(self.after) - decibels(self.before)


def decibels(error: float) -> float:
    """A relative squared error as signal-to-noise ratio."""
    return float(-10 * np.log10(max(error, 1e-30)))


class Trial:
    """Layers that read one tensor, as they would compute on 8-bit codes of it and of their weights.

    Activations have one scale for the tensor, which spreads its range over 256 codes; weights one a channel. Where the
    range of a sample comes from other samples, factors are judged by what they do to samples not seen before.
    """

    def __init__(self, layers: Sequence[Layer], *, low: Doubles, high: Doubles) -> None:
        """Compute what the layers should give.

        Args:
            layers: at least one.
            low: least entry of each channel of the tensor, [folds, channels].
            high: the greatest, likewise.

        Raises:
            ValueError: an entry of a range or a layer is not finite.
        """
        finite = [np.isfinite(each.rows).all() and np.isfinite(each.weight).all() for each in layers]
        if not (all(finite) and np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError("only finite activations and weights can be smoothed")
        self.low, self.high = np.minimum(low, 0.0), np.maximum(high, 0.0)
        self.peaks: Doubles = np.zeros(self.low.shape[1])
        for layer in layers:
            np.maximum.at(self.peaks, layer.channels, np.abs(layer.weight).max(axis=1, initial=0))
        self.layers = [_thinned(layer) for layer in layers]
        self._wanted = [each.rows @ each.weight.transpose(0, 2, 1) for each in self.layers]

    @cached_property
    def plain(self) -> float:
        """The error without factors."""
        return self.error(np.ones_like(self.peaks))

    def error(self, scale: Doubles) -> float:
        """The relative squared error of the layers' results, on average.

        Args:
            scale: s, [channels], positive.
        """
        low, high = (self.low / scale).min(axis=1), (self.high / scale).max(axis=1)
        step = (high - low) / _CODES
        step[step == 0] = 1
        origin = np.rint(-low / step)
        errors = [_error(*each, scale, (step, origin)) for each in zip(self.layers, self._wanted, strict=True)]
        return sum(errors) / len(errors)

    def power(self, strength: float) -> Doubles:
        """The factors of SmoothQuant, s_c = max|X_c|^a / max|W_c|^(1−a)."""
        spans, peaks = self._spans, _floored(self.peaks)
        return _normalised(np.exp(strength * np.log(spans) - (1 - strength) * np.log(peaks)))

    def cap(self, share: float) -> Doubles:
        """Factors that bring channels wider than a share of the widest one to just that; others stay as they are."""
        return _normalised(np.maximum(1.0, self._spans / (share * self._spans.max())))

    @cached_property
    def _spans(self) -> Doubles:
        return _floored(np.maximum(-self.low, self.high).max(axis=0))


def search(trial: Trial, *, strength: float | None = None) -> Found:
    """The factors with the least error on samples.

    Two families are tried, each coarsely and then between the neighbours of its best: powers (`Trial.power`), which
    even out everything, and caps (`Trial.cap`), which touch outliers alone; no factors at all is the third choice.

    Args:
        trial: the layers.
        strength: the only power to try; None searches.
    """
    if strength is not None:
        scale = trial.power(strength)
        return Found(scale, f"alpha {strength:g}", trial.plain, trial.error(scale))
    powers = _best(trial.error, trial.power, STRENGTHS)
    caps = _best(trial.error, trial.cap, CAPS)
    if powers[0] <= caps[0]:
        return Found(trial.power(powers[1]), f"alpha {powers[1]:.2g}", trial.plain, powers[0])
    return Found(trial.cap(caps[1]), f"channels above {caps[1]:.0%} of the widest", trial.plain, caps[0])


def _best(
    error: Callable[[Doubles], float], make: Callable[[float], Doubles], grid: Sequence[float]
) -> tuple[float, float]:
    """Error and parameter of the best factors of a family: the best of the grid, or between it and its neighbours."""

    def tried(parameters: Iterable[float]) -> list[tuple[float, float]]:
        return [(error(make(each)), each) for each in parameters]

    coarse = min(tried(grid))
    place = grid.index(coarse[1])
    near = [grid[i] for i in (place - 1, place + 1) if 0 <= i < len(grid)]
    return min([coarse, *tried((each + coarse[1]) / 2 for each in near)])


def _error(layer: Layer, wanted: Floats, scale: Doubles, grid: tuple[Doubles, Doubles]) -> float:
    """‖Y − Y'‖² / ‖Y‖² of one layer, 0 for a layer that gives nothing."""
    step, origin = (each[layer.folds, np.newaxis].astype(np.float32) for each in grid)
    own = scale[layer.channels].astype(np.float32)[:, np.newaxis]
    codes = np.rint(layer.rows / (own * step))
    np.clip(codes, -origin, _CODES - origin, out=codes)
    codes *= step
    weight = layer.weight * own
    steps = np.abs(weight).max(axis=2, keepdims=True, initial=0) / np.float32(_MOST)
    steps[steps == 0] = 1
    weight = np.rint(weight / steps) * steps
    noise = codes @ weight.transpose(0, 2, 1)
    noise -= wanted
    signal = float(np.vdot(wanted, wanted))
    return float(np.vdot(noise, noise)) / signal if signal else 0.0


def _thinned(layer: Layer) -> Layer:
    """A layer with some of its outputs."""
    groups, outputs = layer.weight.shape[:2]
    step = -(-outputs * groups // OUTPUTS)
    return Layer(layer.rows, layer.folds, layer.weight[:, ::step], layer.channels) if outputs > step > 1 else layer


def _floored(spans: Doubles) -> Doubles:
    widest = float(spans.max(initial=0))
    return np.maximum(spans, widest * _FLOOR) if widest else np.ones_like(spans)


def _normalised(scale: Doubles) -> Doubles:
    """Of geometric mean 1, which the error does not depend on."""
    return np.asarray(scale / np.exp(np.log(scale).mean()))
