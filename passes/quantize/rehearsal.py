"""A model on codes that computes nothing of use and takes as long as one that does."""

from __future__ import annotations

from onnxpress.passes.base import Workbench
from onnxpress.passes.normalise import Normalise
from onnxpress.passes.quantize.host import detect
from onnxpress.passes.quantize.plan import survey
from onnxpress.passes.quantize.ranges import Range
from onnxpress.passes.quantize.targets import own_target
from onnxpress.passes.quantize.writing import write
from onnxpress.passes.report import Report
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.opset import raise_opset
from onnxpress.rewriter.sites import find_sites

_RANGE = Range(-1.0, 1.0)


def rehearsed(model: Model) -> Model:
    """What `quantize-static` would make of a model on this machine, with ranges made up, so that no sample is run.

    Time does not depend on them. A model that stays in float there, as one without layers that can compute on codes,
    does so here, too.

    Args:
        model: in float; it is not changed.

    Raises:
        ModelError: its opset is too old for codes, and cannot be raised.
    """
    copy, target = model.clone(), own_target(detect())
    if copy.opset < target.opset:
        raise_opset(copy, target.opset)
        # What was an attribute may be an input now, and comes as a Constant node.
        Normalise(fix_defaults=False, inline_functions=False).apply(copy, Workbench())
    plan = survey(copy, find_sites(copy), target=target, per_channel=True)
    plan.ranges.update({each.tensor.name: _RANGE for each in plan.place(copy).tensors})
    write(copy, plan, Report("rehearsal"))
    return copy
