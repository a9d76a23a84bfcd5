"""The sizes of a scheme."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxpress.passes.kernels.arrays import Float64Array
from onnxpress.passes.kernels.lowrank import rank_by_energy

Ranks = tuple[int, ...]
"""How many there are depends on the scheme."""


def balanced(spectra: Sequence[Float64Array], rank: int) -> Ranks:
    """Ranks that keep as much energy as `rank` of the longest spectrum does.

    Args:
        spectra: singular values behind each rank, descending.
        rank: at least 1.
    """
    longest = max(spectra, key=len)
    if rank >= len(longest):
        return tuple(len(values) for values in spectra)
    squares = np.square(longest)
    total = float(squares.sum())
    kept = float(squares[:rank].sum()) / total if total else 1.0
    return tuple(rank if values is longest else rank_by_energy(values, min(1.0, max(kept, 1e-9))) for values in spectra)


def rounded_up(ranks: Ranks, full: Ranks, multiple: int) -> Ranks:
    """Ranks as multiples, but not above the full ones."""
    return tuple(min(-(-rank // multiple) * multiple, most) for rank, most in zip(ranks, full, strict=True))
