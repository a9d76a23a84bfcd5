"""The plans that fit a weight, and what each would take, before anything is built."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from onnxpress.passes.encode.costs import NAMED, cost
from onnxpress.passes.encode.loads import Load, load
from onnxpress.passes.encode.plans import (
    CODE_BITS,
    GAP_BITS,
    HUFFMAN,
    LAYOUTS,
    STEP_BITS,
    Coding,
    Facts,
    Layout,
    Plan,
    entries,
)

LARGEST_MESSAGE = 1_900_000_000
"""Bytes from which ONNX Runtime cannot be given an encoded weight in one message."""
_INDEXABLE = 1 << 31
"""Positions are 32-bit."""


@dataclass(frozen=True, slots=True)
class Option:
    """A plan for one weight.

    Attributes:
        plan: None leaves the weight dense.
        nbytes: what the weight then takes, its nodes and the names of its parts included.
        needs: functions and shared tensors that the whole model stores once.
        load: what loading it takes beyond what it takes dense.
    """

    plan: Plan | None
    nbytes: int
    needs: frozenset[str] = frozenset()
    load: Load = field(default_factory=Load)


def options(
    facts: Facts, layouts: Collection[str] = LAYOUTS, *, huffman: bool = True, brief: bool = False
) -> list[Option]:
    """Dense, and every plan that fits a weight; none fits a scalar or an empty one.

    A sparse initializer is for all dtypes, and for all opsets; the others are decoded by operators.

    ONNX Runtime has no Expand for bfloat16, so relative indices and `fill` are not for it.

    Args:
        facts: of the weight.
        layouts: those that may be taken.
        huffman: whether Huffman codes may be.
        brief: of Huffman-coded gaps only those that are likely to be smallest, where many weights are compared: steps
            of about the mean distance, codes of the fewest bits.
    """
    found = [Option(None, facts.stored + NAMED + 3 * facts.rank)]
    if facts.rank == 0 or facts.survey.count == 0:
        return found
    for plan in _fitting(facts, layouts, brief=brief):
        if not huffman and (plan.coding == HUFFMAN or plan.layout == "gaps"):
            continue
        nbytes, needs = cost(facts, plan)
        taken = load(facts, plan)
        if nbytes < LARGEST_MESSAGE and 4 * taken.bits < LARGEST_MESSAGE:  # a position of 32 bits for each
            found.append(Option(plan, nbytes, frozenset(needs), taken))
    return found


def _fitting(facts: Facts, wanted: Collection[str], *, brief: bool) -> Iterator[Plan]:
    survey, brain = facts.survey, facts.dtype.name == "bfloat16"
    if "fill" in wanted and survey.values is not None and survey.values.size == 1 and not brain:
        yield Plan("fill")
    if "sparse" in wanted and survey.nonzeros < survey.count:
        yield Plan("sparse")
    indexable = survey.count < _INDEXABLE
    sparse = 0 < survey.nonzeros < survey.count and indexable
    layouts: dict[Layout, bool] = {"plain": indexable, "mask": sparse, "gaps4": sparse, "gaps8": sparse}
    for layout, fits in layouts.items():
        if not fits or layout not in wanted or (brain and layout in GAP_BITS):
            continue
        for coding in _codings(facts):
            plan = Plan(layout, coding)
            if plan != Plan("plain") and _codes_suffice(facts, plan) and entries(facts, plan) <= survey.count:
                yield plan
    if sparse and "gaps" in wanted and not brain:
        yield from _coded_gaps(facts, brief=brief)


def _codings(facts: Facts, *, brief: bool = False) -> Sequence[Coding]:
    if not brief:
        return (None, *CODE_BITS, *facts.narrow, HUFFMAN)
    if facts.survey.values is None:
        return (None, *facts.narrow)
    bits = max(1, math.ceil(math.log2(facts.survey.values.size)))
    return (*dict.fromkeys(each for each in (bits - 1, bits, 8) if each in CODE_BITS), HUFFMAN)


def _coded_gaps(facts: Facts, *, brief: bool) -> Iterator[Plan]:
    """Steps of every width that makes a difference."""
    longest = int(facts.survey.gaps[0].max())
    mean = math.log2(facts.survey.count / facts.survey.nonzeros)
    for bits in STEP_BITS:
        if brief and not mean + 1 < bits < mean + 4 and bits < STEP_BITS[-1]:
            continue
        for coding in _codings(facts, brief=brief):
            plan = Plan("gaps", coding, bits)
            if _codes_suffice(facts, plan) and entries(facts, plan) <= facts.survey.count:
                yield plan
        if longest < 1 << bits:
            return


def _codes_suffice(facts: Facts, plan: Plan) -> bool:
    values = facts.survey.values
    if plan.coding == HUFFMAN:
        return values is not None
    if not isinstance(plan.coding, int):
        return True
    if values is None or plan.coding >= 8 * facts.dtype.itemsize:
        return False
    without_zero = plan.layout == "mask"
    return values.size - without_zero <= 1 << plan.coding
