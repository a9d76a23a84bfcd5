"""Small models in ONNX's own text form."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs
import pytest

from onnxpress.rewriter.couplings import Group, find_couplings, remove_units
from onnxpress.rewriter.invariants import Interface, check
from onnxpress.rewriter.model import Model

HEADER = '<ir_version: {ir}, opset_import: ["": {opset}]>\n'


@pytest.fixture
def parse() -> Callable[..., Model]:
    """A model from the text of its graph."""

    def make(text: str, *, opset: int = 17, ir: int = 8, **weights: np.ndarray) -> Model:
        proto = onnx.parser.parse_model(HEADER.format(ir=ir, opset=opset) + text)
        proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
        return Model.from_proto(proto)

    return make


@pytest.fixture
def run() -> Callable[..., list[np.ndarray]]:
    """The outputs of a model in ONNX Runtime."""

    def call(model: Model, **inputs: np.ndarray) -> list[np.ndarray]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            model.to_proto().SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return session.run(None, inputs)

    return call


def silence(model: Model, chosen: dict[Group, np.ndarray], *, wholly: bool) -> None:
    """Set to zero the weights that read the units that go, and no others: so much is promised to be enough.

    Where activations read them, or `wholly`, all weights of the units are set to zero, but for divisors, and for
    integers, which are numbers of elements.
    """
    for group, units in chosen.items():
        constants = [member for member in group.members if isinstance(member.tensor, gs.Constant)]
        readers = [member for member in constants if member.role == "in"]
        for member in constants if wholly or not readers else readers:
            values = np.array(model.array(member.tensor))
            if values.dtype.kind == "f" and not member.tensor.name.startswith("divisor"):
                np.moveaxis(values, member.axis, 0)[member.indices[units].reshape(-1)] = 0
                model.replace_weight(member.tensor, values)


def check_declared(proto: onnx.ModelProto) -> None:
    """What is declared of inner tensors is what would be inferred without it."""
    declared = {value.name: value.type.tensor_type.shape for value in proto.graph.value_info}
    del proto.graph.value_info[:]
    for value in onnx.shape_inference.infer_shapes(proto).graph.value_info:
        inferred = value.type.tensor_type
        if value.name in declared and inferred.HasField("shape"):
            for old, new in zip(declared[value.name].dim, inferred.shape.dim, strict=True):
                assert not new.HasField("dim_value") or old.dim_value == new.dim_value, value.name


@pytest.fixture
def remove_exactly(run) -> Callable[..., list[np.ndarray]]:
    """Silence units, take them out, and compare the outputs in ONNX Runtime; returns them."""

    def call(
        model: Model, chosen: dict[Group, np.ndarray], *, wholly: bool = False, **feed: np.ndarray
    ) -> list[np.ndarray]:
        silence(model, chosen, wholly=wholly)
        interface, before = Interface.of(model), run(model, **feed)
        ends = [*model.graph.inputs, *model.graph.outputs]
        declared = [list(tensor.shape or ()) for tensor in ends]
        remove_units(model, chosen)
        check(model, interface)
        assert declared == [list(tensor.shape or ()) for tensor in ends]
        check_declared(model.to_proto())
        after = run(model, **feed)
        for old, new in zip(before, after, strict=True):
            assert old.shape == new.shape
            # float32 sums of up to some hundred terms, in another order
            np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-5)
        return after

    return call


@pytest.fixture
def thin(remove_exactly) -> Callable[..., dict[str, Group]]:
    """Take every other unit out of all groups that allow it, exactly; returns the groups as they were, by name."""

    def call(model: Model, **feed: np.ndarray) -> dict[str, Group]:
        found = {group.name: group for group in find_couplings(model).groups}
        gone = {g: np.arange(0, g.size, 2)[: g.size - 1] for g in found.values() if g.frozen is None}
        assert gone, {name: group.frozen for name, group in found.items()}
        remove_exactly(model, gone, **feed)
        return found

    return call


@pytest.fixture
def thin_sizes(thin) -> Callable[..., dict[str, int]]:
    """As `thin`; returns how many units the groups had that lost some."""
    return lambda model, **feed: {n: g.size for n, g in thin(model, **feed).items() if g.frozen is None}
