"""The ways to store a weight, and what each would take, before anything is built.

A plan is a layout (where the elements lie) and a coding (how the elements that are listed are stored):

layout plain            every element, in order
       mask             one bit an element, and the elements that are not zero
       gaps4, gaps8     4 or 8 bits from one element that is not zero to the next, and these elements
       fill             one element for all
coding None             as they are
       1 to 6, 8        a code of so many bits each, and the distinct elements
       a dtype          a narrower floating-point type, where that loses nothing
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from onnxpress.passes.kernels.packing import Survey, packed_bytes

Layout: TypeAlias = Literal["plain", "mask", "gaps4", "gaps8", "fill"]
Coding: TypeAlias = int | np.dtype | None

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
CODE_BITS = (1, 2, 3, 4, 5, 6, 8)
PLANES = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 8: (8,)}
"""How codes are packed: the low bits of all of them, then the high ones, so that each part fills whole bytes."""
GAP_BITS: dict[Layout, int] = {"gaps4": 4, "gaps8": 8}
MOST_DISTINCT = 257
"""Distinct elements of interest: 256 that have codes of 8 bits, and the zero that a mask does without."""

TENSOR = 24
"""Bytes of a small tensor's name (about 8), dtype, sizes and tags."""
CALL = 28
"""Bytes of a call of a decoding function: its name and domain, the name of its result, tags."""
ARGUMENT = 10
"""Bytes of the name of an input."""
LARGEST_MESSAGE = 1_900_000_000
"""Bytes from which ONNX Runtime cannot be given an encoded weight in one message."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a weight is stored.

    Attributes:
        layout: where the elements lie.
        coding: how those that are listed are stored.
    """

    layout: Layout
    coding: Coding = None

    def __str__(self) -> str:
        places = {"plain": "", "mask": "bit mask", "gaps4": "gaps of 4 bits", "gaps8": "gaps of 8 bits"}
        if self.layout == "fill":
            return "one value"
        if isinstance(self.coding, int):
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


@dataclass(frozen=True, slots=True)
class Option:
    """A plan for one weight.

    Attributes:
        plan: None leaves the weight dense.
        nbytes: what the weight then takes, its nodes and the names of its parts included.
        needs: functions and shared tensors that the whole model stores once.
    """

    plan: Plan | None
    nbytes: int
    needs: frozenset[str] = frozenset()


def options(facts: Facts, layouts: Collection[str] = LAYOUTS) -> list[Option]:
    """Dense, and every plan that fits a weight; none fits a scalar or an empty one.

    ONNX Runtime has no Expand for bfloat16, so relative indices and `fill` are not for it.

    Args:
        facts: of the weight.
        layouts: those that may be taken.
    """
    found = [Option(None, facts.stored + TENSOR + 3 * facts.rank)]
    if facts.rank == 0 or facts.survey.count == 0:
        return found
    for plan in _fitting(facts, layouts):
        nbytes, needs = _cost(facts, plan)
        if nbytes < LARGEST_MESSAGE:
            found.append(Option(plan, nbytes, frozenset(needs)))
    return found


def stream_unit(plan: Plan) -> int:
    """Entries of a listed stream must be a multiple of this, so that codes and gaps fill whole bytes."""
    widths = PLANES[plan.coding] if isinstance(plan.coding, int) else (8,)
    return 8 // min(*widths, GAP_BITS.get(plan.layout, 8))


def entries(facts: Facts, plan: Plan) -> int:
    """Elements that `plan` lists, what fills the last byte included."""
    if plan.layout == "plain":
        return facts.survey.count
    bits = GAP_BITS.get(plan.layout)
    listed = facts.survey.nonzeros if bits is None else facts.survey.entries[bits]
    unit = stream_unit(plan)
    return -(-listed // unit) * unit


def _fitting(facts: Facts, wanted: Collection[str]) -> Iterator[Plan]:
    survey, brain = facts.survey, facts.dtype.name == "bfloat16"
    if "fill" in wanted and survey.values is not None and survey.values.size == 1 and not brain:
        yield Plan("fill")
    indexable = survey.count < 1 << 31  # positions are 32-bit
    sparse = 0 < survey.nonzeros < survey.count and indexable
    layouts: dict[Layout, bool] = {"plain": True, "mask": sparse, "gaps4": sparse, "gaps8": sparse}
    for layout, fits in layouts.items():
        if not fits or layout not in wanted or (brain and layout in GAP_BITS):
            continue
        for coding in (None, *CODE_BITS, *facts.narrow):
            plan = Plan(layout, coding)
            if plan != Plan("plain") and _codes_suffice(facts, plan) and entries(facts, plan) <= survey.count:
                yield plan


def _codes_suffice(facts: Facts, plan: Plan) -> bool:
    if not isinstance(plan.coding, int):
        return True
    values = facts.survey.values
    if values is None or plan.coding >= 8 * facts.dtype.itemsize:
        return False
    without_zero = plan.layout == "mask"
    return values.size - without_zero <= 1 << plan.coding


def _cost(facts: Facts, plan: Plan) -> tuple[int, set[str]]:
    shape = TENSOR + 8 * facts.rank
    if plan.layout == "fill":
        return CALL + 2 * ARGUMENT + TENSOR + facts.dtype.itemsize + shape + _declaration(facts), {"Fill"}
    listed, needs = _stream_cost(facts, plan)
    nbytes = listed + _declaration(facts)
    zero = f"zero {facts.dtype.name}"
    if plan.layout == "mask":
        nbytes += CALL + 7 * ARGUMENT + TENSOR + packed_bytes(facts.survey.count, 1) + shape
        needs |= {"Mask", "Ranks", "Digits", "digits 1", zero}
        if facts.survey.count % 8:
            nbytes += _join_cost(facts, facts.survey.count % 8)
            needs |= {"Join"}
    if (bits := GAP_BITS.get(plan.layout)) is not None:
        nbytes += CALL + 4 * ARGUMENT + TENSOR + packed_bytes(entries(facts, plan), bits) + shape
        needs |= {"Gaps", zero}
        if bits < 8:
            nbytes += CALL + 4 * ARGUMENT
            needs |= {"Codes", "Digits", f"digits {bits}", f"steps {bits}", "flat"}
    return nbytes, needs


def _stream_cost(facts: Facts, plan: Plan) -> tuple[int, set[str]]:
    """Bytes of the listed elements."""
    count, item, coding = entries(facts, plan), facts.dtype.itemsize, plan.coding
    plain = plan.layout == "plain"
    if coding is None:
        return TENSOR + count * item, set()
    if not isinstance(coding, int):
        return CALL + ARGUMENT + TENSOR + count * coding.itemsize, {"Widen"}
    values = facts.survey.values
    distinct = 0 if values is None else values.size
    if coding == 8:
        return CALL + 2 * ARGUMENT + 2 * TENSOR + count + distinct * item, {"Lookup"}
    planes = PLANES[coding]
    packed = sum(CALL + 4 * ARGUMENT + TENSOR + packed_bytes(count, bits) for bits in planes)
    nbytes = packed + TENSOR + (item << coding if len(planes) == 1 else item * distinct)
    needs = {"Codes", "Digits", *(f"digits {bits}" for bits in planes)}
    if len(planes) > 1:
        nbytes += CALL + 3 * ARGUMENT
        needs |= {"Planes", f"steps {planes[0]}", f"high {coding}"}
    rest = count % stream_unit(plan)
    if not plain or rest:
        needs |= {"flat"}
    if plain:
        nbytes += TENSOR + 8 * facts.rank
    if plain and rest:
        nbytes += _join_cost(facts, rest)
        needs |= {"Join"}
    return nbytes, needs


def _join_cost(facts: Facts, rest: int) -> int:
    return CALL + 3 * ARGUMENT + TENSOR + rest * facts.dtype.itemsize


def _declaration(facts: Facts) -> int:
    """The dtype and shape that the graph goes on to declare."""
    return TENSOR + 4 * facts.rank
