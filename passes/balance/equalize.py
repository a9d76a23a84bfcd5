"""Even out the ranges of channels between consecutive layers, without samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxpress.passes.balance.absorb import Absorber
from onnxpress.passes.balance.factors import Target, absorb
from onnxpress.passes.balance.fans import Fan, find_fans
from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.equalization import equalizing, noise
from onnxpress.passes.quantize.options import check_number
from onnxpress.passes.report import Report
from onnxpress.passes.selection import RefusalError, SitePass, check_count
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import infer_shapes
from onnxpress.rewriter.weights import Array, read

Doubles = NDArray[np.float64]

_STILL = 1.01
"""A round in which no factor is beyond this, or its inverse, is the last."""


class _Factors:
    """What every weight is to be multiplied by; the weights themselves stay until all is settled."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._of: dict[int, dict[int, Array]] = {}

    def set(self, weight: gs.Constant, pair: _Pair, factors: Array) -> None:
        """Note what a pair multiplies a weight by, instead of what it did before."""
        self._of.setdefault(id(weight), {})[id(pair)] = factors

    def magnitudes(self, weight: gs.Constant) -> Array:
        """|weight| with all its factors."""
        found: Array = np.abs(read(weight))
        for factors in self._of.get(id(weight), {}).values():
            found = found * factors
        return found


@dataclass(slots=True, eq=False)
class _Pair:
    """Layers that give the channels of a tensor, and layers that read them.

    Attributes:
        fan: the tensor, read by nobody else.
        targets: the constants that its channels come from.
        scale: s, [channels].
    """

    fan: Fan
    targets: tuple[Target, ...]
    scale: Doubles

    def given(self, factors: _Factors) -> Doubles:
        """The range of each channel in the weights that give it."""
        ranges = np.zeros(self.fan.count)
        for target in self.targets:
            if target.is_weight:
                weight = factors.magnitudes(target.constant)
                np.maximum.at(ranges, target.channels, _peaks(weight, target.channels.shape))
        return ranges

    def taken(self, factors: _Factors) -> Doubles:
        """The range of each channel in the weights that read it."""
        ranges = np.zeros(self.fan.count)
        for reader in self.fan.readers:
            weight = reader.matrices(factors.magnitudes(reader.site.weight))
            np.maximum.at(ranges, reader.channels, weight.max(axis=1, initial=0))
        return ranges

    def noise(self, factors: _Factors) -> float:
        """What one scale for each weight adds to the result, in dB."""
        return noise(self.given(factors), self.taken(factors))

    def step(self, factors: _Factors) -> float:
        """Equalize once; gives the largest factor, or the inverse of the smallest."""
        scale = equalizing(self.given(factors), self.taken(factors))
        self.scale = self.scale * scale
        for target in self.targets:
            factors.set(target.constant, self, target.spread(1 / self.scale))
        for reader in self.fan.readers:
            factors.set(reader.site.weight, self, reader.spread(self.scale))
        return float(np.exp(np.abs(np.log(scale)).max(initial=0)))


@dataclass(frozen=True, kw_only=True)
class Equalize(SitePass):
    """Divide the channels that a layer gives by factors and multiply the next layer by them (Nagel et al., 2019).

    Exact but for rounding where between both is nothing, or what is positively homogeneous and keeps channels apart:
    Relu, LeakyRelu, PRelu, pooling, Transpose and the like; Clip (Relu6) is not. s = √(r₁ / r₂) for the ranges r₁ and
    r₂ of a channel in both weights, in rounds until nothing moves. It makes one scale for a whole weight lose less
    (`per_channel: false`), depthwise convolutions above all. With one scale for each output channel it only shifts what
    columns of weights and activations lose, as often for the worse; then `smooth`, which looks at samples, is better.

    Attributes:
        rounds: through all pairs, at most.
        min_gain: dB by which the error of one scale for each weight must shrink, by the ranges of the channels, else a
            pair is left alone.
    """

    name: ClassVar[str] = "equalize"
    rounds: int = 10
    min_gain: float = 0.5

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_count(self, "rounds")
        check_number(self, "min_gain")

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Find pairs, equalize them in rounds, report."""
        report = self.report()
        pairs = self._pairs(model, find_fans(model, self.candidates(model, report), report), report)
        factors, none = _Factors(), _Factors()
        for _ in range(self.rounds):
            if max((pair.step(factors) for pair in pairs), default=1.0) < _STILL:
                break
        gains = [pair.noise(none) - pair.noise(factors) for pair in pairs]
        for pair, gain in zip(pairs, gains, strict=True):
            size, spread = pair.fan.nbytes, float(pair.scale.max() / pair.scale.min())
            absorb(model, pair.targets, 1 / pair.scale)
            pair.fan.scale_weights(model, pair.scale)
            action = f"one scale for each weight loses {gain:.1f} dB less, factors up to {spread:.3g}x apart"
            report.change(pair.fan.name, action, bytes_before=size, bytes_after=pair.fan.nbytes)
        sweep(model)
        return report

    def _pairs(self, model: Model, fans: Sequence[Fan], report: Report) -> list[_Pair]:
        absorber = Absorber(model, infer_shapes(model))
        found = []
        for fan in fans:
            try:
                found.append(self._pair(absorber, fan))
            except RefusalError as refusal:
                report.skip(fan.name, str(refusal))
        return found

    def _pair(self, absorber: Absorber, fan: Fan) -> _Pair:
        """Both sides of a tensor.

        Raises:
            RefusalError: its channels cannot be moved between layers, or nothing is gained.
        """
        targets = absorber.plan(fan.tensor, fan.channels, readers={id(node) for node in fan.nodes})
        if not any(target.is_weight for target in targets):
            raise RefusalError(f"'{fan.name}' comes from {targets[0].node.op}, which has no weight to equalize with")
        pair, none = _Pair(fan, targets, np.ones(fan.count)), _Factors()
        given, taken = pair.given(none), pair.taken(none)
        try:
            scale = equalizing(given, taken)
        except ValueError as error:
            raise RefusalError("a weight holds NaN or infinities; train or export it again") from error
        gain = noise(given, taken) - noise(given / scale, taken * scale)
        if np.isnan(gain):
            raise RefusalError("both sides have no channel in common that is not zero")
        if gain < self.min_gain:
            told = f"factors gain {gain:.1f} of min_gain {self.min_gain:g} dB"
            raise RefusalError(f"its channels are even enough: {told}")
        return pair


def _peaks(weight: Array, shape: tuple[int, ...]) -> Array:
    """The greatest entries along the axes that something of a shape broadcasts over."""
    full = (1,) * (weight.ndim - len(shape)) + shape
    axes = tuple(axis for axis, size in enumerate(full) if size == 1)
    return np.asarray(weight.max(axis=axes, keepdims=True, initial=0).reshape(shape))
