"""Weights wherever exporters put them become initializers: the one place passes look at."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxpress.rewriter.edits import detach, output_ids, redirect, to_constant
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.rules.outcome import Outcome
from onnxpress.rewriter.shapes import Shapes
from onnxpress.rewriter.walk import graphs
from onnxpress.rewriter.weights import Dense, SparseForm, Values, values_of

WORTH = 64
"""Bytes from which storing a constant once is worth a line in the report."""

_SCALARS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
    "value_string": object,
    "value_strings": object,
}


def constant_nodes_to_initializers(model: Model, shapes: Shapes) -> Outcome:
    """`Constant` nodes -> initializers, in every graph; graph outputs keep theirs."""
    outcome = Outcome()
    outputs = output_ids(model)
    for graph in graphs(model.graph):
        for node in [n for n in graph.nodes if n.op == "Constant" and n.domain in (None, "", "ai.onnx")]:
            tensor, values = node.outputs[0], _values(node)
            if values is None or id(tensor) in outputs:
                continue
            detach(node)
            to_constant(graph, tensor, values)
            outcome.counts["Constant nodes became initializers"] += 1
    return outcome


def fix_defaults(model: Model) -> Outcome:
    """Inputs that have a default -> constants: ONNX Runtime folds nothing a caller might override."""
    outcome = Outcome()
    fixed = [each for each in model.graph.inputs if isinstance(each, gs.Constant)]
    model.graph.inputs[:] = [each for each in model.graph.inputs if not isinstance(each, gs.Constant)]
    for constant in fixed:
        constant.__dict__.pop("declared", None)
    if fixed:
        model.header.ir_version = max(model.header.ir_version, 4)  # before, initializers had to be inputs
        outcome.done.append(
            ("inputs", f"{len(fixed)} weights that were optional inputs are fixed at their defaults: {_some(fixed)}")
        )
    return outcome


def share_identical(model: Model, shapes: Shapes, *, least: int = WORTH) -> Outcome:
    """Equal constants of so many bytes -> one, which all graphs can see; tied embeddings are exported twice."""
    outcome = Outcome()
    fixed = output_ids(model) | {id(t) for graph in graphs(model.graph) for t in graph.inputs}
    seen: dict[tuple[object, ...], list[tuple[gs.Graph, gs.Constant]]] = {}
    for graph in graphs(model.graph):
        for constant in model.constants() if graph is model.graph else list(graph.constants):
            values = values_of(constant)
            odd = isinstance(values, SparseForm) or values.dtype == object
            if odd or values.nbytes < least or id(constant) in fixed or not constant.outputs:
                continue
            same = seen.setdefault((values.element_type, values.shape, _fingerprint(values)), [])
            first = next(((home, each) for home, each in same if _equal(each, constant)), None)
            if first is None:
                same.append((graph, constant))
                continue
            if first[0] is not graph and first[0] is not model.graph:
                _hoist(model, *first)
                same[same.index(first)] = (model.graph, first[1])
            redirect(model, graph, constant, first[1])
            outcome.done.append((constant.name, f"is equal to '{first[1].name}' and is stored once"))
    return outcome


def _hoist(model: Model, graph: gs.Graph, constant: gs.Constant) -> None:
    """Move a constant from a subgraph to the main graph, under a name nothing else has."""
    graph.constants = [each for each in graph.constants if each is not constant]
    constant.name = model.names.fresh(f"{constant.name}_shared")
    model.graph.constants.append(constant)


def _values(node: gs.Node) -> Values | None:
    """The values of a Constant node, None if they take a form we leave alone."""
    if len(node.attrs) != 1:
        return None
    ((name, value),) = node.attrs.items()
    if isinstance(value, gs.Constant):
        return values_of(value)
    if name in _SCALARS and not isinstance(value, onnx.AttributeProto):
        return Dense(np.array(value, dtype=_SCALARS[name]))
    return None


def _fingerprint(values: Values) -> int:
    """A cheap hash: of the ends and a few elements between; equality is checked after."""
    flat = values.load().reshape(-1)
    return hash(flat[:: max(1, flat.size // 64)].tobytes())


def _equal(one: gs.Constant, other: gs.Constant) -> bool:
    """Bit for bit, in chunks."""
    a, b = values_of(one).load().reshape(-1), values_of(other).load().reshape(-1)
    step = 1 << 22
    return all(a[i : i + step].tobytes() == b[i : i + step].tobytes() for i in range(0, a.size, step))


def _some(constants: list[gs.Constant]) -> str:
    names = [c.name for c in constants[:3]]
    return ", ".join(names) + (", …" if len(constants) > 3 else "")
