"""Remove channels of a model by QONNX's PruneChannels, as its documentation says.

Options: `ratio`, the part of channels to remove; `ops`, operators whose outputs are pruned. QONNX is told which
channels go, and follows them through the graph; told here are those of least L1 norm, in each weight (Li et al., 2017).
Layers whose output is an output of the model are left out.
"""

from __future__ import annotations

import warnings
from copy import deepcopy

import numpy as np
from measure import Job, Meter
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.pruning import PruneChannels
from qonnx.util.cleanup import cleanup_model

OUT = {"Conv": 0, "MatMul": 1}
"""The axis of outputs in a weight."""


def chosen(model: ModelWrapper, ops: list[str], ratio: float) -> dict[str, dict[int, set[int]]]:
    """For each weight its channels of least L1 norm, as QONNX wants them: {weight: {axis: channels}}."""
    result = {}
    ends = {each.name for each in model.graph.output}
    for node in model.graph.node:
        weight = model.get_initializer(node.input[1]) if node.op_type in ops else None
        if weight is None or ends & _reached(model, node.output[0]):
            continue
        axis = OUT[node.op_type]
        norms = np.abs(weight).sum(axis=tuple(k for k in range(weight.ndim) if k != axis))
        count = int(ratio * norms.size)
        result[node.input[1]] = {axis: {int(k) for k in np.argsort(norms, kind="stable")[:count]}}
    return result


def _reached(model: ModelWrapper, name: str) -> set[str]:
    """Tensors that a tensor becomes before the next weight: those that no other layer could give up channels of."""
    reached, waiting = {name}, [name]
    while waiting:
        for node in model.find_consumers(waiting.pop()) or []:
            if node.op_type not in OUT and node.output[0] not in reached:
                reached.add(node.output[0])
                waiting.append(node.output[0])
    return reached


job = Job.read()
meter = Meter(job)
source = ModelWrapper(job.source)
ends = deepcopy([*source.graph.input, *source.graph.output])
model = cleanup_model(source, extract_conv_bias=True)
spec = chosen(model, list(job.options["ops"]), float(job.options["ratio"]))
before = sum(int(np.prod(each.dims)) for each in model.graph.initializer)
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    model = model.transform(PruneChannels(spec))
after = sum(int(np.prod(each.dims)) for each in model.graph.initializer)
lost = sorted({str(each.message).rpartition(" ")[2] for each in told if "propagate" in str(each.message)})
notes = [f"masks end at {', '.join(lost)}"] if lost else []
if after == before:
    notes.append("removed nothing")
# QONNX renamed inputs and outputs, and made sizes that a caller chooses 0
for given, end in zip([*model.graph.input, *model.graph.output], ends, strict=True):
    model.rename_tensor(given.name, end.name)
    given.CopyFrom(end)
del model.graph.value_info[:]
model.save(job.target)
meter.report(["qonnx", "onnx"], notes=notes)
