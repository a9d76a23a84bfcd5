from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxpress.passes.base import Pass, Workbench
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.report import Report
from onnxpress.rewriter import edits
from onnxpress.rewriter.invariants import InvariantError
from onnxpress.rewriter.model import Model

TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[3] x) => (float[3] y) { a = Identity(x) b = Relu(a) y = Add(b, w) }"""


@dataclass(frozen=True, kw_only=True)
class Halve(Pass):
    """Halve every weight."""

    name: ClassVar[str] = "halve"
    times: int = 1

    def apply(self, model: Model, bench: Workbench) -> Report:
        report = self.report()
        for weight in model.constants():
            model.replace_weight(weight, model.array(weight) / 2**self.times)
            report.change(weight.name, "halved")
        return report


@dataclass(frozen=True, kw_only=True)
class Break(Pass):
    """Leave a node without its source."""

    name: ClassVar[str] = "break"

    def apply(self, model: Model, bench: Workbench) -> Report:
        edits.add_node(model, model.graph, "NoSuchThing", [model.graph.inputs[0]], hint="odd", outputs=None)
        node = model.graph.nodes[-1]
        edits.set_input(next(n for n in model.graph.nodes if n.op == "Add"), 0, node.outputs[0])
        return self.report()


@pytest.fixture
def model() -> Model:
    proto = onnx.parser.parse_model(TEXT)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "w"))
    return Model.from_proto(proto)


def test_normalises_first_and_leaves_the_callers_model(model: Model) -> None:
    before = model.to_proto()
    result = Pipeline([Halve(times=2)])(model)
    assert [r.name for r in result.reports] == ["normalise", "halve"]
    assert [n.op for n in result.model.graph.nodes] == ["Relu", "Add"]
    np.testing.assert_array_equal(result.model.array(result.model.constants()[0]), np.full(3, 0.25, np.float32))
    assert model.to_proto() == before


def test_a_pass_called_alone_leaves_the_callers_model(model: Model) -> None:
    before = model.to_proto()
    result = Halve()(model)
    assert result.report.changes[0].site == "w"
    assert result.report.options == {"times": 1}
    assert model.to_proto() == before


def test_names_the_pass_that_broke_the_graph(model: Model) -> None:
    with pytest.raises(InvariantError, match=r"after break: .*NoSuchThing"):
        Pipeline([Halve(), Break()])(model)


def test_calls_after_each_pass_with_the_model_as_it_is_by_then(model: Model) -> None:
    seen: list[tuple[str, float]] = []

    def after(now: Model, report: Report) -> None:
        seen.append((report.name, float(now.array(now.constants()[0])[0])))

    Pipeline([Halve(), Halve()], after=after)(model)
    assert seen == [("normalise", 1.0), ("halve", 0.5), ("halve", 0.25)]


def test_shows_what_each_pass_did(model: Model) -> None:
    result = Pipeline([Halve()], normalise=False)(model)
    assert repr(result) == "<halve: 1 changed, 0 left alone>"
    result.reports[0].warnings.append("<b>look</b>")
    assert "halve: &lt;b&gt;look&lt;/b&gt;" in result._repr_html_()
