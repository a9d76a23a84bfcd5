"""The plans that fit a weight, and what each would take, before anything is built."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from onnxpress.passes.encode.costs import NAMED, cost
from onnxpress.passes.encode.loads import Load, load
from onnxpress.passes.encode.plans import CODE_BITS, GAP_BITS, HUFFMAN, LAYOUTS, STEP_BITS, Facts, Layout, Plan, entries

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


def options(facts: Facts, layouts: Collection[str] = LAYOUTS, *, huffman: bool = True) -> list[Option]:
    """Dense, and every plan that fits a weight; none fits a scalar or an empty one.

    ONNX Runtime has no Expand for bfloat16, so relative indices and `fill` are not for it.

    Args:
        facts: of the weight.
        layouts: those that may be taken.
        huffman: whether Huffman codes may be.
    """
    found = [Option(None, facts.stored + NAMED + 3 * facts.rank)]
    if facts.rank == 0 or facts.survey.count == 0:
        return found
    for plan in _fitting(facts, layouts):
        if not huffman and (plan.coding == HUFFMAN or plan.layout == "gaps"):
            continue
        nbytes, needs = cost(facts, plan)
        taken = load(facts, plan)
        if nbytes < LARGEST_MESSAGE and 4 * taken.bits < LARGEST_MESSAGE:  # a position of 32 bits for each
            found.append(Option(plan, nbytes, frozenset(needs), taken))
    return found


def _fitting(facts: Facts, wanted: Collection[str]) -> Iterator[Plan]:
    survey, brain = facts.survey, facts.dtype.name == "bfloat16"
    if "fill" in wanted and survey.values is not None and survey.values.size == 1 and not brain:
        yield Plan("fill")
    indexable = survey.count < _INDEXABLE
    sparse = 0 < survey.nonzeros < survey.count and indexable
    layouts: dict[Layout, bool] = {"plain": indexable, "mask": sparse, "gaps4": sparse, "gaps8": sparse}
    for layout, fits in layouts.items():
        if not fits or layout not in wanted or (brain and layout in GAP_BITS):
            continue
        for coding in (None, *CODE_BITS, *facts.narrow, HUFFMAN):
            plan = Plan(layout, coding)
            if plan != Plan("plain") and _codes_suffice(facts, plan) and entries(facts, plan) <= survey.count:
                yield plan
    if sparse and "gaps" in wanted and not brain:
        yield from _coded_gaps(facts)


def _coded_gaps(facts: Facts) -> Iterator[Plan]:
    """Steps of every width that makes a difference."""
    longest = int(facts.survey.gaps[0].max())
    for bits in STEP_BITS:
        for coding in (None, *CODE_BITS, *facts.narrow, HUFFMAN):
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
