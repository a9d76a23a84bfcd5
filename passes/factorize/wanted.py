"""What the factors of one layer are sought for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxpress.passes.factorize.schemes.base import Factors, Ranks, Scheme
from onnxpress.passes.kernels.arrays import Float64Array
from onnxpress.rewriter.sites import Site


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """What factors are sought for.

    Attributes:
        site: gives the geometry.
        target: T, [groups·out, in·∏ sides].
        metric: H, [groups, k, k]; None for the identity.
        seed: of what is random.
    """

    site: Site
    target: Float64Array
    metric: Float64Array | None
    seed: int

    def fit(self, scheme: Scheme, ranks: Ranks, start: Factors | None = None) -> Factors:
        """Factors of some ranks, perhaps from others that are near.

        Raises:
            RefusalError: they do not converge.
        """
        return scheme.fit(self.site, self.target, self.metric, ranks, self.seed, start)

    def kept(self, factors: Factors) -> float:
        """The part of the energy tr(T·H·Tᵀ) that factors keep."""
        lost, whole = self._energy(self.target - factors.dense()), self._energy(self.target)
        return 1 - lost / whole if whole else 1.0

    def _energy(self, rows: Float64Array) -> float:
        if self.metric is None:
            return float(np.square(rows).sum())
        parts = rows.reshape(len(self.metric), -1, rows.shape[1])
        return float(((parts @ self.metric) * parts).sum())
