"""Constants of a model that may be encoded, and why others may not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxpress.passes.encode.evaluate import is_decoding
from onnxpress.passes.encode.functions import OLDEST_OPSET
from onnxpress.passes.report import Report
from onnxpress.rewriter.functions import DECODING_DOMAIN
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites
from onnxpress.rewriter.walk import graphs
from onnxpress.rewriter.weights import element_bits, values_of

DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "uint16")
READS_CODES = ("Widen", "Channels", "Placed", "Vectors", "Turned", "Wide")
"""Decoding functions whose inputs may be encoded in turn."""
SMALL = 64
"""Bytes below which a weight is not looked at: a call of a function takes more."""
OTHERS = 1024
"""The same for dtypes that nothing decodes."""
_BYTES_ONLY = ("float8", "complex")
"""Dtypes of whole bytes of which ONNX Runtime reads no sparse initializers in all opsets."""
BFLOAT16_OPSET = 13
"""From here on Gather and Cast take bfloat16."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A constant that may be encoded, with the graph that holds it and the names it is known by."""

    name: str
    constant: gs.Constant
    graph: gs.Graph
    names: tuple[str, ...]

    def layouts(self, model: Model, wanted: Collection[str]) -> tuple[str, ...]:
        """Those of the wanted layouts that its dtype and the opset of the model allow."""
        values = values_of(self.constant)
        if values.dtype.name.startswith(_BYTES_ONLY) or not values.shape:
            wanted = [each for each in wanted if each != "sparse"]
        return tuple(each for each in wanted if each == "sparse" or self.undecodable(model) is None)

    def refused(self, model: Model, outputs: set[int], layouts: Collection[str]) -> str | None:
        """Why it cannot be encoded.

        Args:
            model: that holds it.
            outputs: ids of what the graph gives.
            layouts: those to choose from.
        """
        values = values_of(self.constant)
        if element_bits(values.element_type) < 8:
            return f"{values.dtype.name} is packed already"
        if id(self.constant) in outputs:
            return "is an output of the graph"
        if any(t is self.constant for t in model.graph.inputs):
            return "a caller may override it: normalise with fix_defaults first"
        return None if self.layouts(model, layouts) else self.undecodable(model)

    def undecodable(self, model: Model) -> str | None:
        """Why no node can compute it."""
        name = values_of(self.constant).dtype.name
        if name.startswith("float8"):
            return f"ONNX has no Gather of {name}, so nothing decodes it"
        if name not in DTYPES:
            return f"{name} is not decoded: shapes and places are computed from such constants before weights are there"
        oldest = BFLOAT16_OPSET if name == "bfloat16" else OLDEST_OPSET
        if model.opset < oldest:
            return f"opset {model.opset} lacks operators that decode {name}: raise it to {oldest}"
        return None


def constants(model: Model) -> Iterator[Candidate]:
    """Constants of the dtypes in question that ordinary nodes read, in every graph."""
    sites = {id(site.weight): site.name for site in find_sites(model)}
    for graph in graphs(model.graph):
        for constant in model.constants() if graph is model.graph else graph.constants:
            values = values_of(constant)
            narrow = element_bits(values.element_type) < 8 or values.dtype.name.startswith("float8")
            other = values.nbytes >= (SMALL if narrow else OTHERS) and values.dtype.kind != "O"
            known = values.dtype.name in DTYPES or other
            readers = [reader for reader in constant.outputs if is_decoding(reader)]
            if not known or any(reader.op not in READS_CODES for reader in readers):
                continue
            name = sites.get(id(constant), constant.name)
            readers = [each for node in constant.outputs for each in (node.name, str(node.op)) if each]
            yield Candidate(name, constant, graph, (name, constant.name, *readers))


def skip_attributes(model: Model, report: Report) -> None:
    """Tell of large constants that are attributes of nodes, in graphs and in local functions."""
    for function in model.functions:
        if function.domain != DECODING_DOMAIN:
            tensors = [each.t for node in function.node for each in node.attribute if each.HasField("t")]
            if large := sum(tensor.ByteSize() >= SMALL for tensor in tensors):
                report.skip(function.name, f"{large} constants inside of this local function: normalise first")
    for graph in graphs(model.graph):
        for node in graph.nodes:
            for value in node.attrs.values():
                if isinstance(value, gs.Constant) and values_of(value).nbytes >= SMALL:
                    report.skip(node.name or node.outputs[0].name, f"inside a {node.op} node: normalise first")


def name_counts(model: Model) -> Counter[str]:
    """How many tensors of the model have a name."""
    tensors: dict[int, str] = {id(c): c.name for c in model.constants()}
    for graph in graphs(model.graph):
        seen = [*graph.constants, *graph.inputs, *(t for n in graph.nodes for t in [*n.inputs, *n.outputs])]
        tensors |= {id(t): t.name for t in seen}
    return Counter(tensors.values())
