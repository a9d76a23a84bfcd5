"""Gemm, MatMul and what multiplies rows like them as chains of such."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.factorize.chain import Attributes, Link
from onnxpress.passes.factorize.recurrent import RECURRENT, recurrent_links
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site

_BIAS_OPTIONAL = 11
"""Opset from which Gemm may go without its third input."""


def matrix_links(op: str, layout: Layout, suffixes: Sequence[str], matrices: Sequence[Array]) -> tuple[Link, ...]:
    """The layers for matrices [out, in], in the order of computation.

    Args:
        op: `MatMul`, `Gemm`, `Gather` of rows, or a recurrent layer.
        layout: of the weight they replace.
        suffixes: of their names.
        matrices: their product, from the last to the first, is the weight as [out, in].
    """
    named = list(zip(suffixes, matrices, strict=True))
    if op == "Gemm":
        return _gemm(layout, named)
    if op in RECURRENT:
        return recurrent_links(layout, suffixes, matrices)
    if op == "Gather":
        return _lookup(named)
    ones = (1,) * (len(layout.shape) - 2)
    if layout.axes[-1] == "in":  # W·x = L·(R·x)
        return tuple(Link(suffix, each.reshape(*ones, *each.shape), left=True) for suffix, each in named)
    return tuple(Link(suffix, each.T.reshape(*ones, *each.T.shape)) for suffix, each in named)


def _gemm(layout: Layout, named: Sequence[tuple[str, Array]]) -> tuple[Link, ...]:
    """alpha·x·W + beta·C = alpha·(x·R)·L + beta·C, with a transposed x transposed in the first."""
    *before, (suffix, last) = named
    links = [Link(name, np.ascontiguousarray(each.T), op="MatMul") for name, each in before]
    name, first = before[0]
    links[0] = Link(name, np.ascontiguousarray(first.T), _turned, op=_first)
    return (*links, Link(suffix, last if layout.axes[0] == "out" else last.T, _scaled))


def _lookup(named: Sequence[tuple[str, Array]]) -> tuple[Link, ...]:
    """A narrow row of a table of [in, rank], multiplied."""
    (name, first), *behind = named
    links = [Link(name, np.ascontiguousarray(first.T), left=True)]
    return (*links, *(Link(name, np.ascontiguousarray(each.T), op="MatMul") for name, each in behind))


def _first(node: gs.Node) -> str:
    return "Gemm" if node.attrs.get("transA", 0) else "MatMul"


def _turned(node: gs.Node) -> Attributes:
    return {"transA": 1} if node.attrs.get("transA", 0) else {}


def _scaled(node: gs.Node) -> Attributes:
    return {name: value for name, value in node.attrs.items() if name != "transA"}


def refuse_old(model: Model, site: Site) -> None:
    """Refuse what needs a Gemm without bias where the opset has none.

    Raises:
        RefusalError: names the opset.
    """
    turned = site.op == "Gemm" and any(use.node.attrs.get("transA", 0) for use in site.uses)
    if turned and model.opset < _BIAS_OPTIONAL:
        raise RefusalError(f"needs a Gemm without bias, which opset {model.opset} lacks: raise it to {_BIAS_OPTIONAL}")
