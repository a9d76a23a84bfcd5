"""Where a linear layer adds a constant to each of its outputs, and how that constant is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.selection import Layout
from onnxpress.passes.storing import narrowed
from onnxpress.rewriter.edits import output_ids, set_input
from onnxpress.rewriter.model import DEFAULT_DOMAINS, Model
from onnxpress.rewriter.sites import FLOATS, Site, Use
from onnxpress.rewriter.weights import values_of

_OWN = frozenset({"Conv", "FusedConv", "Gemm", "FusedGemm", "Attention"})
"""Operators with a bias among their inputs, at index 2."""

_OPTIONAL = frozenset({"Conv", "FusedConv", "Gemm", "FusedGemm"})
"""Those of them that may go without, and be given one."""

_OMITTED = 11
"""Version of the standard operators from which Gemm may go without its bias."""


@dataclass(frozen=True, slots=True, eq=False)
class Intercept:
    """The bias of a linear layer, its own or that of an Add behind it.

    Attributes:
        node: reads it.
        index: at which input.
        factor: what one unit of the layer's product W·x is worth in units of the bias: alpha / beta of a Gemm.
        shape: of the constant.
        dtype: of the constant.
    """

    node: gs.Node
    index: int
    factor: float
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    def read(self, model: Model) -> Float64Array:
        """The bias in units of the product W·x, [out]; zeros where there is none yet."""
        constant = _input(self.node, self.index)
        if constant is None:
            return np.zeros(int(np.prod(self.shape)))
        return model.array(constant).reshape(-1).astype(np.float64) / self.factor

    def add(self, model: Model, delta: Array) -> None:
        """Add to the bias; others that read the constant keep theirs.

        Args:
            model: holds the layer.
            delta: in units of the product W·x, [out].

        Raises:
            RefusalError: the type of the constant cannot hold the sum; nothing was changed.
        """
        constant = _input(self.node, self.index)
        wide = (self.read(model) + delta) * self.factor
        changed = narrowed(wide.reshape(self.shape), self.dtype, what="bias")
        if constant is not None and len(constant.outputs) == 1 and id(constant) not in output_ids(model):
            model.replace_weight(constant, changed)
            return
        hint = f"{self.node.name or self.node.op}_bias" if constant is None else constant.name
        set_input(self.node, self.index, model.add_weight(hint, changed))


def intercept_of(model: Model, site: Site) -> Intercept | None:
    """The bias of a layer that alone uses its weight; None where it has none, nor room for one.

    Args:
        model: holds the site.
        site: of a weight that `passes.inputs.view_of` sees as rows.
    """
    if len(site.uses) != 1 or site.uses[0].graph is not model.graph:
        return None
    use = site.uses[0]
    op = str(use.node.op)
    if op in _OWN:
        return _own(model, site, use)
    return _behind(model, site, use) if op in ("MatMul", "FusedMatMul") else None


def _own(model: Model, site: Site, use: Use) -> Intercept | None:
    node, out = use.node, Layout.of(site).rows
    attrs = node.attrs
    factor = float(attrs.get("alpha", 1.0)) / (float(attrs.get("beta", 1.0)) or 1.0) if "Gemm" in str(node.op) else 1.0
    constant = _input(node, 2)
    if constant is None:
        standard = (node.domain or "") in DEFAULT_DOMAINS
        free = node.op in _OPTIONAL and not (node.op == "Gemm" and standard and model.opset < _OMITTED)
        missing = len(node.inputs) <= 2 or node.inputs[2].is_empty()
        if not (free and missing) or attrs.get("beta", 1.0) == 0:
            return None
        shape = (out, 1) if use.index == 0 else (out,)
        return Intercept(node, 2, factor, shape, values_of(site.weight).dtype)
    if not factor or attrs.get("beta", 1.0) == 0 or not _fits(model, constant, out, last=use.index != 0):
        return None
    return Intercept(node, 2, factor, tuple(constant.shape), values_of(constant).dtype)


def _behind(model: Model, site: Site, use: Use) -> Intercept | None:
    """The constant of an Add that alone reads what a product of matrices gives."""
    product, out = use.node.outputs[0], Layout.of(site).rows
    if len(product.outputs) != 1 or id(product) in output_ids(model):
        return None
    node = product.outputs[0]
    if node.op != "Add" or (node.domain or "") not in DEFAULT_DOMAINS or len(node.inputs) != 2:
        return None
    if all(each is not node for each in model.graph.nodes):
        return None
    index = 1 if node.inputs[0] is product else 0
    constant = _input(node, index)
    factor = float(use.node.attrs.get("alpha", 1.0))
    if constant is None or not factor or not _fits(model, constant, out, last=use.index != 0):
        return None
    return Intercept(node, index, factor, tuple(constant.shape), values_of(constant).dtype)


def _input(node: gs.Node, index: int) -> gs.Constant | None:
    tensor = node.inputs[index] if index < len(node.inputs) else None
    return tensor if isinstance(tensor, gs.Constant) else None


def _fits(model: Model, constant: gs.Constant, out: int, *, last: bool) -> bool:
    """Whether a constant of floats, which no caller may replace, has one value for each output."""
    if values_of(constant).dtype.name not in FLOATS or any(each is constant for each in model.graph.inputs):
        return False
    shape: Sequence[int] = tuple(constant.shape)
    axis = -1 if last else -2
    return len(shape) >= -axis and shape[axis] == out and int(np.prod(shape, dtype=np.int64)) == out
