"""Products with structured weights in the place of a layer, and how fast they are beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, numpy_helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.selection import RefusalError
from onnxpress.passes.stopwatch import speedups
from onnxpress.passes.structure.forms import Form, Steps, Way
from onnxpress.rewriter.edits import add_node, detach, sweep
from onnxpress.rewriter.errors import FeedError, ModelError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, Use, find_sites
from onnxpress.rewriter.weights import values_of


def check_product(site: Site) -> None:
    """Refuse a layer whose product cannot be written otherwise.

    Raises:
        RefusalError: says why.
    """
    attrs = site.node.attrs
    if len(site.uses) > 1:
        raise RefusalError(f"{len(site.uses)} layers share its weight; goal 'size' takes it")
    if site.op not in ("Gemm", "MatMul") or site.uses[0].index != 1:
        raise RefusalError(f"is {site.op}'s; only X·W of Gemm and MatMul is written otherwise, goal 'size' takes it")
    if attrs.get("transA", 0) or attrs.get("alpha", 1.0) != 1 or attrs.get("beta", 1.0) != 1:
        raise RefusalError("its Gemm transposes its input or scales; goal 'size' takes it")


def replace(model: Model, use: Use, way: Way, dtype: np.dtype[Any], out: int) -> None:
    """Put a way to compute a product in the place of a Gemm or MatMul.

    Args:
        model: holds the layer.
        use: the layer, as `check_product` lets it pass.
        way: computes X·Wᵀ.
        dtype: of its activations.
        out: outputs.
    """
    node = use.node
    rows, rest, outputs = node.inputs[0], list(node.inputs[2:]), list(node.outputs)
    steps = Steps(model, node.name or str(outputs[0].name), dtype)
    flat = str(node.op) == "Gemm"
    detach(node)
    found = way.write(steps, rows)
    target = steps.sizes(-1, out) if flat else _leading(steps, rows, out)
    if rest and not rest[0].is_empty():
        shaped = steps.node("Reshape", found, target)
        add_node(model, use.graph, "Add", [shaped, rest[0]], hint=f"{steps.hint}_add", outputs=outputs)
    else:
        add_node(model, use.graph, "Reshape", [found, target], hint=f"{steps.hint}_reshape", outputs=outputs)


def _leading(steps: Steps, rows: gs.Tensor, out: int) -> gs.Tensor:
    """The shape of an activation with another last axis."""
    shape = steps.node("Shape", rows)
    lead = steps.node("Slice", shape, steps.sizes(0), steps.sizes(-1))
    return steps.node("Concat", lead, steps.sizes(out), attrs={"axis": 0})


@dataclass(slots=True)
class Stopwatch:
    """Times ways to write a layer beside the dense one; of equal layers only the first.

    Attributes:
        bench: providers and threads.
        opset: of the model.
        measured: the best way and its speed, or why there is none, by geometry.
    """

    bench: Workbench
    opset: int
    measured: dict[tuple[object, ...], tuple[Way, float] | RefusalError] = field(default_factory=dict)

    def best(self, site: Site, form: Form, shape: tuple[int, ...]) -> tuple[str, float]:
        """Name and speed of the fastest way.

        Args:
            site: the layer.
            form: any weight of its structure.
            shape: of what it reads.

        Raises:
            RefusalError: none is faster, or can be written.
        """
        dtype = values_of(site.weight).dtype
        key = (site.op, site.shape, len(site.node.inputs), repr(sorted(site.node.attrs.items())), dtype.name, shape)
        if key not in self.measured:
            try:
                self.measured[key] = self._measure(site, form, shape, dtype)
            except RefusalError as refusal:
                self.measured[key] = refusal
        found = self.measured[key]
        if isinstance(found, RefusalError):
            raise found
        return found[0].name, found[1]

    def _measure(self, site: Site, form: Form, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Way, float]:
        dense, ways = _alone(site, shape, dtype, self.opset), form.ways()
        models = [dense, *(_written(dense, way, dtype, form.dense().shape[0]) for way in ways)]
        try:
            medians, quartiles = speedups(models, shape, dtype, self.bench)
        except (ModelError, FeedError) as error:
            raise RefusalError(f"nothing could be timed: {error}") from error
        best = int(np.argmax(medians))
        if not quartiles[best] > 1:
            raise RefusalError(
                f"is not faster: {_shown(ways, medians)} times as fast as the dense layer on {list(shape)}"
            )
        return ways[best], float(medians[best])


def _shown(ways: Sequence[Way], medians: Array) -> str:
    return ", ".join(f"{way.name} {speed:.2f}" for way, speed in zip(ways, medians, strict=True))


def _written(dense: Model, way: Way, dtype: np.dtype[Any], out: int) -> Model:
    copy = dense.clone()
    replace(copy, find_sites(copy)[0].uses[0], way, dtype, out)
    sweep(copy)
    return copy


def _alone(site: Site, shape: tuple[int, ...], dtype: np.dtype[Any], opset: int) -> Model:
    """A model of one layer."""
    element, node = helper.np_dtype_to_tensor_dtype(dtype), site.node
    tensors = [numpy_helper.from_array(np.full(site.shape, 0.01, dtype), "w")]
    if len(node.inputs) > 2 and not node.inputs[2].is_empty():
        tensors.append(numpy_helper.from_array(np.zeros(tuple(node.inputs[2].shape), dtype), "b"))
    attrs = {key: value for key, value in node.attrs.items() if value is not None}
    layer = helper.make_node(site.op, ["x", *(each.name for each in tensors)], ["y"], name="layer", **attrs)
    ends = [helper.make_tensor_value_info("x", element, shape), helper.make_tensor_value_info("y", element, None)]
    graph = helper.make_graph([layer], "alone", ends[:1], ends[1:], tensors)
    opsets = [helper.make_opsetid("", opset)]
    ir = max(helper.find_min_ir_version_for(opsets, ignore_unknown=True), onnx.IR_VERSION_2021_7_30)
    return Model.from_proto(helper.make_model(graph, ir_version=ir, opset_imports=opsets))
