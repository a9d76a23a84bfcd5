"""How often each weight of a model is multiplied in one run."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.calibration.session import Runner
from onnxpress.passes.base import Workbench
from onnxpress.rewriter.edits import add_node
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import infer_shapes
from onnxpress.rewriter.sites import Use, find_sites


def work_of(model: Model, bench: Workbench) -> dict[str, float]:
    """Multiply-adds of each weight of a site, by name of the site, summed over the nodes that use it.

    Sizes are those of the first batch of samples; without samples those that are fixed, with 1 for the others. Of
    subgraphs nothing is counted.

    Args:
        model: is not changed.
        bench: brings the samples.
    """
    uses = [(site.name, use) for site in find_sites(model) for use in site.uses if use.graph is model.graph]
    told = [(name, *_telling(use)) for name, use in uses if use.node.op != "Gather"]
    tensors = {str(tensor.name): tensor for _, tensor, _ in told}
    sizes = _declared(model, tensors.values()) if bench.feed is None else _measured(model, list(tensors), bench)
    work: dict[str, float] = {}
    for name, tensor, entries in told:
        work[name] = work.get(name, 0.0) + sizes.get(str(tensor.name), 0) / max(1, entries)
    return work


def _telling(use: Use) -> tuple[gs.Tensor, int]:
    """A tensor whose size tells how often a node uses each of its weights, and how many entries belong to one time."""
    node, shape = use.node, dict(zip(use.axes, use.node.inputs[use.index].shape, strict=True))
    if node.op in ("Conv", "FusedConv"):
        return node.outputs[0], shape["out"]
    if node.op in ("LSTM", "GRU", "RNN"):  # both weights are used in each step
        return node.inputs[0], node.inputs[1].shape[2]
    batches = prod(s for s, axis in zip(node.inputs[use.index].shape, use.axes, strict=True) if axis == "batch")
    return node.inputs[0 if use.index else 1], shape["in"] * batches


def _declared(model: Model, tensors: Iterable[gs.Tensor]) -> dict[str, int]:
    shapes = infer_shapes(model)
    known = {str(tensor.name): shapes.shape(tensor) for tensor in tensors}
    return {
        name: prod(size if isinstance(size, int) else 1 for size in shape)
        for name, shape in known.items()
        if shape is not None
    }


def _measured(model: Model, tensors: list[str], bench: Workbench) -> dict[str, int]:
    copy = model.clone()
    by_name = {t.name: t for t in copy.graph.inputs} | {t.name: t for n in copy.graph.nodes for t in n.outputs}
    sizes = {}
    for name in tensors:
        if name in by_name:
            size = add_node(copy, copy.graph, "Size", [by_name[name]], hint="size")
            size.dtype, size.shape = np.dtype(np.int64), []
            copy.graph.outputs.append(size)
            sizes[str(size.name)] = name
    if not sizes:
        return {}
    with TemporaryDirectory(prefix="onnxpress-") as folder:
        path = Path(folder) / "model.onnx"
        copy.save(path)
        with Runner(path, providers=bench.providers, threads=bench.threads) as runner:
            found = runner.run(next(iter(bench.feed or ())), outputs=list(sizes))
    return {sizes[name]: int(count) for name, count in found.items()}
