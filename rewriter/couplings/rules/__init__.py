"""What each operator does with the axes of what it reads and writes: one table per file, assembled here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from onnxpress.rewriter.couplings.links import Rule
from onnxpress.rewriter.couplings.rules import (
    attention,
    control,
    elementwise,
    fused,
    linear,
    movement,
    normalization,
    parts,
    pooling,
    recurrent,
    scaling,
)

RULES: Mapping[tuple[str, str], Rule] = MappingProxyType(
    {
        **linear.RULES,
        **elementwise.RULES,
        **normalization.RULES,
        **pooling.RULES,
        **movement.RULES,
        **parts.RULES,
        **scaling.RULES,
        **attention.RULES,
        **recurrent.RULES,
        **control.RULES,
        **fused.RULES,
    }
)
"""By domain ("" for the standard one) and operator; an operator without a rule freezes what it touches."""
