"""The ways to store a weight.

A plan is a layout (where the elements lie) and a coding (how the elements that are listed are stored):

layout plain            every element, in order
       mask             one bit an element, and the elements that are not zero
       gaps4, gaps8     4 or 8 bits from one element that is not zero to the next, and these elements
       gaps             the same of up to 2 to 8 bits, each with a Huffman code
       fill             one element for all
       sparse           a sparse initializer: the elements that are not zero, as they are, and their positions
coding None             as they are
       1 to 8           a code of so many bits each, and the distinct elements
       huffman          a Huffman code for each, and the distinct elements
       a dtype          a narrower floating-point type, where that loses nothing
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from onnxpress.passes.kernels.packing import Survey

Layout: TypeAlias = Literal["plain", "mask", "gaps4", "gaps8", "gaps", "fill", "sparse"]
Coding: TypeAlias = int | np.dtype | Literal["huffman"] | None

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
DECODED: tuple[Layout, ...] = tuple(each for each in LAYOUTS if each != "sparse")
"""Those that nodes decode; ONNX Runtime itself reads sparse initializers."""
CODE_BITS = range(1, 9)
HUFFMAN: Literal["huffman"] = "huffman"
PLANES = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1), 8: (8,)}
"""How codes are packed: the low bits of all of them, then higher ones, so that each part fills whole bytes."""
GAP_BITS: dict[Layout, int] = {"gaps4": 4, "gaps8": 8}
MOST_DISTINCT = 257
"""Distinct elements of interest: 256 that have codes of 8 bits, and the zero that a mask does without."""
STEP_BITS = range(2, 9)
"""Widths of steps that have Huffman codes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a weight is stored.

    Attributes:
        layout: where the elements lie.
        coding: how those that are listed are stored.
        steps: for `gaps`, bits of the longest step.
    """

    layout: Layout
    coding: Coding = None
    steps: int = 0

    @property
    def step_bits(self) -> int | None:
        """Bits of the longest step; None for layouts without steps."""
        return self.steps or GAP_BITS.get(self.layout)

    def __str__(self) -> str:
        places = {"plain": "", "mask": "bit mask", "gaps4": "gaps of 4 bits", "gaps8": "gaps of 8 bits"}
        places["gaps"] = f"Huffman-coded gaps below {1 << self.steps}"
        if self.layout == "fill":
            return "one value"
        if self.layout == "sparse":
            return "sparse initializer"
        if self.coding == HUFFMAN:
            values = "Huffman codes"
        elif isinstance(self.coding, int):
            values = f"codes of {self.coding} bit{'s' * (self.coding > 1)}"
        else:
            values = "" if self.coding is None else f"{self.coding.name} values"
        return ", ".join(part for part in (places[self.layout], values) if part) or "dense"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a weight when plans are compared.

    Attributes:
        shape: sizes.
        dtype: of the elements.
        survey: counts.
        narrow: floating-point types that hold every element exactly.
        stored: bytes it takes now.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    survey: Survey
    narrow: tuple[np.dtype, ...]
    stored: int

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)


def stream_unit(plan: Plan) -> int:
    """Entries of a listed stream must be a multiple of this, so that codes and gaps fill whole bytes."""
    widths = PLANES[plan.coding] if isinstance(plan.coding, int) else (8,)
    return 8 // min(*widths, GAP_BITS.get(plan.layout, 8))


def entries(facts: Facts, plan: Plan) -> int:
    """Elements that `plan` lists, what fills the last byte included."""
    if plan.layout == "plain":
        return facts.survey.count
    listed = facts.survey.nonzeros if plan.step_bits is None else facts.survey.entries(plan.step_bits)
    unit = stream_unit(plan)
    return -(-listed // unit) * unit
