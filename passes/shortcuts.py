"""What is added behind a layer: the other operand of an Add, which a pruned model may give otherwise than the original.

Where y = W·x + r and r is no longer what it was, the weight can make up for that, too: W·x should give what is missing
of the original's y (He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", 2017, section 3.3).
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxpress.calibration.views import LastAxis, Patches, View
from onnxpress.passes.inputs import Reading
from onnxpress.rewriter.edits import output_ids
from onnxpress.rewriter.model import DEFAULT_DOMAINS, Model
from onnxpress.rewriter.sites import Site, Use


def shortcut_of(model: Model, site: Site) -> Reading | None:
    """The activation that is added to what a layer gives, before anything else is done with it; None if there is none.

    Between the two there may be constants that are added, such as a bias.

    Args:
        model: holds the site.
        site: of a weight that `passes.inputs.view_of` sees as rows.

    Returns:
        The tensor, seen as rows of one group with an entry for each output of the layer.
    """
    if len(site.uses) != 1 or site.uses[0].graph is not model.graph:
        return None
    view = outputs_view(site.uses[0])
    outputs, tensor = output_ids(model), site.uses[0].node.outputs[0]
    while view is not None and len(tensor.outputs) == 1 and id(tensor) not in outputs:
        node = tensor.outputs[0]
        if node.op != "Add" or (node.domain or "") not in DEFAULT_DOMAINS:
            return None
        other = node.inputs[1] if node.inputs[0] is tensor else node.inputs[0]
        if not isinstance(other, gs.Constant):
            return Reading(str(other.name), view)
        tensor = node.outputs[0]
    return None


def outputs_view(use: Use) -> View | None:
    """What a layer gives, as rows of one group with an entry for each output; None where that is no plain product."""
    attrs, op = use.node.attrs, str(use.node.op)
    if op == "Conv":
        ones = (1,) * (len(use.axes) - 2)
        return Patches(kernel=ones, strides=ones, pads=(0,) * (2 * len(ones)), dilations=ones)
    plain = op == "MatMul" or (op == "Gemm" and attrs.get("alpha", 1.0) == 1.0 and not attrs.get("transA"))
    return LastAxis() if plain and use.index == 1 else None
