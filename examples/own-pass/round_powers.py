"""Round weights to powers of two (Zhou et al., 2017, "Incremental Network Quantization", without the training).

Products with them are shifts on hardware that has none but those, and `encode` stores them in few bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.base import Workbench
from onnxpress.passes.report import Report
from onnxpress.passes.selection import SitePass, check_count, check_fraction
from onnxpress.rewriter.model import Model


@dataclass(frozen=True, kw_only=True)
class RoundPowers(SitePass):
    """Round every weight to the nearest of 0, ±2^k, ±2^(k-1), and so on.

    Attributes:
        levels: powers of two a weight tensor may have, counted from its largest; 7 take 4 bits with sign and zero.
        max_error: a tensor stays as it is where ‖W − W'‖ / ‖W‖ would be more, in (0, 1].
    """

    name: ClassVar[str] = "round-powers"
    levels: int = 7
    max_error: float = 1.0

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_count(self, "levels")
        check_fraction(self, "max_error")

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Round the weights of every site that the options choose."""
        report = self.report()
        for site in self.candidates(model, report):
            weight = site.array()
            if not weight.any() or not np.isfinite(weight).all():
                report.skip(site.name, "is zero throughout, or holds NaN or infinite numbers")
                continue
            rounded = nearest_powers(weight, levels=self.levels)
            error = float(np.linalg.norm(weight - rounded) / np.linalg.norm(weight))
            if error > self.max_error:
                report.skip(site.name, f"error {error:.1%} is above max_error {self.max_error:.1%}; give more levels")
                continue
            model.replace_weight(site.weight, rounded.astype(weight.dtype))
            values = np.unique(rounded).size
            report.change(site.name, f"{values} values", bytes_before=site.nbytes, bytes_after=site.nbytes, error=error)
        return report


def nearest_powers(weight: NDArray[Any], *, levels: int) -> NDArray[np.float64]:
    """The nearest of 0 and of ± `levels` powers of two, of which the largest is that nearest to the largest weight.

    Args:
        weight: any shape, finite, not all zero.
        levels: at least 1.
    """
    size = np.abs(weight.astype(np.float64))
    # 2^k is nearer than its neighbours from 3/4 of it on, and up to 3/2 of it.
    exponent = np.floor(np.log2(size * 4 / 3, where=size > 0, out=np.full(size.shape, -np.inf)))
    lowest = exponent.max() - levels + 1
    power = np.exp2(np.maximum(exponent, lowest))
    return np.where(size >= np.exp2(lowest - 1), np.sign(weight) * power, 0.0)
