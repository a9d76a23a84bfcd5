import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnxpress.rewriter import edits
from onnxpress.rewriter.invariants import Interface, InvariantError, check
from onnxpress.rewriter.model import Model


@pytest.fixture
def model(parse) -> Model:
    return parse("g (float[3] x) => (float[3] y) { a = Relu(x) y = Add(a, w) }", w=np.ones(3, np.float32))


def broken_interface(model: Model) -> None:
    model.graph.outputs[0].name = "z"


def broken_order(model: Model) -> None:
    model.graph.nodes.reverse()


def broken_source(model: Model) -> None:
    edits.detach(model.graph.nodes[0])
    model.graph.nodes.pop(0)


def broken_producer(model: Model) -> None:
    model.graph.nodes.append(gs.Node("Neg", "n", {}, [model.graph.inputs[0]], [gs.Variable("a")]))


def broken_domain(model: Model) -> None:
    edits.add_node(model, model.graph, "Odd", [model.graph.inputs[0]], hint="odd", domain="nowhere")


def broken_operator(model: Model) -> None:
    edits.add_node(model, model.graph, "NoSuchThing", [model.graph.inputs[0]], hint="odd")


def broken_arity(model: Model) -> None:
    edits.add_node(model, model.graph, "Add", [model.graph.inputs[0]], hint="odd")


def broken_attribute(model: Model) -> None:
    edits.add_node(model, model.graph, "Softmax", [model.graph.inputs[0]], hint="odd", attrs={"axis": "last"})


@pytest.mark.parametrize(
    ("breaks", "why"),
    [
        (broken_interface, "keeps its inputs and outputs"),
        (broken_order, "nothing before it writes"),
        (broken_source, "reads 'a'"),
        (broken_producer, "'a' is written again"),
        (broken_domain, "does not import"),
        (broken_operator, "does not exist in opset 17"),
        (broken_arity, "has 1 inputs"),
        (broken_attribute, "attribute 'axis' of Softmax 'odd' is of the wrong type"),
    ],
)
def test_finds_what_is_broken(model: Model, breaks, why: str) -> None:
    interface = Interface.of(model)
    check(model, interface)
    breaks(model)
    with pytest.raises(InvariantError, match=why):
        check(model, interface)
