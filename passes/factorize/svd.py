"""Layers as two thinner ones, by singular values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_graphsurgeon as gs

from onnxpress.passes.base import Workbench
from onnxpress.passes.factorize.chain import Attributes, FactorizePass, Link, Plan, finite
from onnxpress.passes.factorize.conv import along, conv_kernel
from onnxpress.passes.factorize.matrix import Split, split_matrix
from onnxpress.passes.factorize.rank import Cost, Products, RankedPass
from onnxpress.passes.factorize.spatial import has_two_sides, plan_spatial
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.selection import Layout, RefusalError, check_choice
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site

_STANDARD = (None, "", "ai.onnx")
_BIAS_OPTIONAL = 11
"""Opset from which Gemm may go without its third input."""


@dataclass(frozen=True, kw_only=True)
class FactorizeSVD(FactorizePass):
    """Split each layer in two by its singular values, the best approximation of a rank (Eckart and Young, 1936).

    MatMul and Gemm become two; a Conv of 1x1 becomes two (Denton et al., 2014).

    Attributes:
        conv: what other convolutions become: `spatial`, k x 1 and 1 x k (Jaderberg et al., 2014; Tai et al., 2016),
            where the kernel has two sides, else as `channel`: k x k with few outputs, then 1x1 (Zhang et al., 2016).
            `none` leaves all convolutions alone.
    """

    name: ClassVar[str] = "factorize-svd"
    conv: Literal["spatial", "channel", "none"] = "spatial"

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_choice(self, "conv", ("spatial", "channel", "none"))

    def plan(self, site: Site, model: Model, bench: Workbench) -> Plan:
        """The two layers for one site."""
        if site.op == "Gather":
            raise RefusalError("is an embedding: a look-up needs no multiply-adds, its factors would")
        if site.op not in ("Conv", "Gemm", "MatMul") or site.node.domain not in _STANDARD:
            raise RefusalError(f"is a weight of {site.op}; only Conv, Gemm and MatMul are split")
        if site.op == "Conv":
            return self._conv(site)
        split = _split_matrix(self, site)
        return Plan(split.action, _gemm(site, model, split) if site.op == "Gemm" else _matmul(site, split), split.error)

    def _conv(self, site: Site) -> Plan:
        if self.conv == "none":
            raise RefusalError("is a Conv, which conv 'none' leaves alone")
        kernel = conv_kernel(site)
        if self.conv == "spatial" and has_two_sides(kernel):
            return plan_spatial(self, site, kernel)
        return _plan_channel(self, kernel)


def _plan_channel(rule: RankedPass, kernel: Array) -> Plan:
    """A narrow convolution and a pointwise one for a kernel [out, in, *k]; the narrow one strides."""
    out, channels, *sides = kernel.shape
    split = split_matrix(rule, kernel.reshape(out, -1), lambda rank: _cost(out, (channels, *sides), rank))
    axes = range(len(sides))
    links = (
        Link("narrow", split.right.reshape(split.rank, channels, *sides), along(tuple(sides), *axes)),
        Link("wide", split.left.reshape(out, split.rank, *(1 for _ in axes)), along(tuple(sides))),
    )
    return Plan(split.action, links, split.error)


def _split_matrix(rule: RankedPass, site: Site) -> Split:
    """Factors of a Gemm's or MatMul's weight as [out, in]."""
    if "batch" in site.axes:
        raise RefusalError(f"holds {math.prod(site.shape[:-2])} independent matrices")
    matrix = Layout.of(site).to_rows(finite(site))
    out, channels = matrix.shape
    return split_matrix(rule, matrix, lambda rank: _cost(out, (channels,), rank))


def _cost(out: int, inner: tuple[int, ...], rank: int) -> Cost:
    both = Products((inner, (out,)), rank)
    return Cost(dense=Products(((*inner, out),)), parameters=both, multiply_adds=both)


def _matmul(site: Site, split: Split) -> tuple[Link, Link]:
    if site.uses[0].index == 0:  # W·x = L·(R·x)
        return Link("narrow", split.right, left=True), Link("wide", split.left, left=True)
    return Link("narrow", split.right.T), Link("wide", split.left.T)


def _gemm(site: Site, model: Model, split: Split) -> tuple[Link, Link]:
    """alpha·x·W + beta·C = alpha·(x·R)·L + beta·C, with a transposed x transposed in the first."""
    if site.uses[0].index == 0:
        raise RefusalError("is the left operand of a Gemm; only the right one is split")
    right, left = split.right.T, split.left
    turned = any(use.node.attrs.get("transA", 0) for use in site.uses)
    if turned and model.opset < _BIAS_OPTIONAL:
        raise RefusalError(f"needs a Gemm without bias, which opset {model.opset} lacks: raise it to {_BIAS_OPTIONAL}")
    last = left if site.node.attrs.get("transB", 0) else left.T
    first = Link("narrow", right, _transposed, op="Gemm") if turned else Link("narrow", right, op="MatMul")
    return first, Link("wide", last, _scaled)


def _transposed(node: gs.Node) -> Attributes:
    return {"transA": int(node.attrs.get("transA", 0))}


def _scaled(node: gs.Node) -> Attributes:
    return {name: value for name, value in node.attrs.items() if name != "transA"}
