"""Why a weight was not encoded."""

from __future__ import annotations

from collections.abc import Sequence

from onnxpress.passes.encode.budget import Budget
from onnxpress.passes.encode.options import Option
from onnxpress.passes.encode.plans import Facts


def why_dense(facts: Facts, choices: Sequence[Option], free: Option, budget: Budget) -> str:
    """What the smallest encoding would have taken, and what spoke against it.

    Args:
        facts: of the weight.
        choices: its options, the first of them dense.
        free: the option that would have been chosen if loading might take anything.
        budget: what loading may take.
    """
    encoded = [each for each in choices if each.plan is not None]
    if not encoded:
        return f"saves nothing: {facts.survey.count} elements, too many of them distinct, and too few zeros"
    best, dense = min(encoded, key=lambda each: each.nbytes), choices[0].nbytes
    if best.nbytes >= dense:
        return f"saves nothing: {best.plan} would take {best.nbytes:,} bytes, dense {dense:,}"
    if free.plan is not None:
        taken = f"{free.plan} would take {free.nbytes:,} of {dense:,} bytes"
        return f"{taken}, but {budget.claim(free.load)}: together the weights would take more than that"
    return f"saves too little: {best.plan} would take {best.nbytes:,} of {dense:,} bytes, and functions besides"
