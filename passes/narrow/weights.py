"""Weights that are stored in 16 bits: which can be, and how they are float32 again when the model computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxpress.passes.encode.functions import bring_in
from onnxpress.passes.kernels.narrow import Format, Loss, loss, narrow, narrowed
from onnxpress.passes.narrow.types import is_standard
from onnxpress.passes.report import Report
from onnxpress.passes.selection import LAZY, RefusalError
from onnxpress.rewriter.edits import add_node, output_ids, set_input, set_output
from onnxpress.rewriter.functions import DECODING_DOMAIN
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import FLOATS, find_sites
from onnxpress.rewriter.walk import graphs
from onnxpress.rewriter.weights import Dense, SparseForm, Streamed, Values, values_of

OVERHEAD = 96
"""Bytes that the node and the names around one narrow weight take in a file."""

WORST = 4
"""The relative error of a weight that is borne, as a multiple of the greatest one of numbers with all their digits."""

SCALED = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})

NOTHING: Mapping[int, gs.Constant] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A constant of floating-point numbers, with the graph that holds it and the names it is known by."""

    name: str
    constant: gs.Constant
    graph: gs.Graph
    names: tuple[str, ...]

    @property
    def values(self) -> Values:
        """Its values as they are now."""
        return values_of(self.constant)

    def matches(self, globs: Sequence[str]) -> bool:
        """Whether one of its names, or of the operators that read it, matches a glob."""
        return any(fnmatchcase(name, glob) for name in self.names for glob in globs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """How weights become 16 bits.

    Attributes:
        kind: the format.
        clip: weights beyond its range become its greatest number instead of staying float32.
        min_size: weights with fewer elements are left alone.
    """

    kind: Format
    clip: bool = False
    min_size: int = 1

    def check(self, values: Values) -> Loss:
        """Survey a weight.

        Raises:
            RefusalError: it would lose too much.
        """
        found, kind = loss(values.load(), self.kind), self.kind
        if found.beyond and not self.clip:
            raise RefusalError(
                f"{found.beyond} of its {found.size} weights exceed {kind.largest:.6g}, the largest is "
                f"{found.largest:.3g}: {kind.name} would make them infinite; set clip to cut them off, or use bfloat16"
            )
        if found.error > WORST * kind.rounding:
            raise RefusalError(
                f"{found.short} of its {found.size} weights are below {kind.normal:.2g}, where {kind.name} loses "
                f"digits: its relative error would be {found.error:.2g}; bfloat16 has their range"
            )
        return found

    def values(self, old: Values) -> Values:
        """The narrow values; of a large weight computed piece by piece when they are written."""
        if old.nbytes < LAZY:
            return Dense(narrow(old.load(), self.kind, clip=self.clip))
        return Streamed(old.shape, self.kind.dtype, lambda: narrowed(old.load(), self.kind, clip=self.clip))


def weights_of(model: Model) -> Iterator[Weight]:
    """Constants of floating-point numbers that ordinary nodes read, in every graph."""
    sites = {id(site.weight): site.name for site in find_sites(model)}
    for graph in graphs(model.graph):
        for constant in model.constants() if graph is model.graph else list(graph.constants):
            readers = constant.outputs
            if values_of(constant).dtype.name not in FLOATS or not readers:
                continue
            if any(node.domain == DECODING_DOMAIN for node in readers):
                continue
            name = sites.get(id(constant), constant.name)
            known = [each for node in readers for each in (node.name, str(node.op)) if each]
            yield Weight(name, constant, graph, (name, constant.name, *known))


def store_weights(
    model: Model,
    weights: Sequence[Weight],
    narrowing: Narrowing,
    report: Report,
    *,
    known: Mapping[int, gs.Constant] = NOTHING,
) -> None:
    """Store weights in 16 bits that all readers see in float32, where the file gets smaller by it.

    Args:
        model: holds the weights.
        weights: that the options choose.
        narrowing: how.
        report: gets the changes and the skips.
        known: weights that are in the model in 16 bits already, by the identity of the float32 ones.
    """
    fixed, small = _fixed(model), 0
    for weight in weights:
        values = weight.values
        if values.dtype == np.float32 and values.nbytes // 2 <= OVERHEAD:
            small += 1
            continue
        try:
            _check(weight, fixed, narrowing)
            found = narrowing.check(values)
        except RefusalError as refusal:
            report.skip(weight.name, str(refusal))
            continue
        half = known.get(id(weight.constant))
        _store(model, weight, model.add_weight("w", narrowing.values(values)) if half is None else half)
        report.change(
            weight.name,
            f"{narrowing.kind.name} in the file, float32 when it runs" + _cut(found),
            bytes_before=values.nbytes,
            bytes_after=values.nbytes // 2 if half is None else 0,
            error=found.error,
        )
    if small:
        report.skip("graph", f"{small} constants of at most {2 * OVERHEAD} bytes: a node that widens them takes more")


def _cut(found: Loss) -> str:
    return f", {found.beyond} weights cut off" if found.beyond else ""


def _fixed(model: Model) -> set[int]:
    """Identities of constants that somebody outside reads or may replace."""
    return output_ids(model) | {id(t) for graph in graphs(model.graph) for t in graph.inputs}


def _check(weight: Weight, fixed: set[int], narrowing: Narrowing) -> None:
    values = weight.values
    if values.dtype != np.float32:
        raise RefusalError(f"its weight is {values.dtype.name}; only float32 is converted")
    if id(weight.constant) in fixed:
        raise RefusalError("a caller reads it or may replace it: normalise with fix_defaults first")
    if any(node.op in SCALED for node in weight.constant.outputs):
        raise RefusalError("holds the scales of codes, which stay float32")
    if isinstance(values, SparseForm):
        raise RefusalError("is stored as a sparse tensor; normalise first")
    if (size := values.nbytes // 4) < narrowing.min_size:
        raise RefusalError(f"has {size} weights, fewer than min_size {narrowing.min_size}")


def _store(model: Model, weight: Weight, half: gs.Constant) -> None:
    """Let all readers of a weight read its narrow values, widened; tables row by row as they are asked for."""
    uses = [(n, i) for n in {id(n): n for n in weight.constant.outputs}.values() for i, t in _reads(n, weight.constant)]
    wide: gs.Tensor | None = None
    if weight.graph is not model.graph and not half.outputs:
        weight.graph.constants.append(half)
    for node, index in uses:
        if node.op == "Gather" and index == 0 and is_standard(node) and (home := _home(model, node)) is not None:
            out, rows = node.outputs[0], gs.Variable(model.names.fresh("g"))
            set_input(node, 0, half)
            set_output(node, 0, rows)
            add_node(model, home, "Cast", [rows], hint="c", attrs={"to": int(onnx.TensorProto.FLOAT)}, outputs=[out])
            continue
        if wide is None:
            bring_in(model, "Widen")
            attrs: dict[str, object] = {"to": int(onnx.TensorProto.FLOAT)}
            wide = add_node(model, weight.graph, "Widen", [half], hint="d", attrs=attrs, domain=DECODING_DOMAIN)
        set_input(node, index, wide)


def _reads(node: gs.Node, tensor: gs.Tensor) -> Iterator[tuple[int, gs.Tensor]]:
    return ((index, each) for index, each in enumerate(node.inputs) if each is tensor)


def _home(model: Model, node: gs.Node) -> gs.Graph | None:
    """The graph a node stands in."""
    return next((graph for graph in graphs(model.graph) if any(each is node for each in graph.nodes)), None)
