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


def set_to_zero(model: Model, chosen: dict[Group, np.ndarray]) -> None:
    """All weights of the units that go, but for divisors, and for integers, which are numbers of elements."""
    for group, units in chosen.items():
        for member in group.members:
            constant = member.tensor
            if not isinstance(constant, gs.Constant) or constant.name.startswith("divisor"):
                continue
            values = np.array(model.array(constant))
            if values.dtype.kind == "f":
                np.moveaxis(values, member.axis, 0)[member.indices[units].reshape(-1)] = 0
                model.replace_weight(constant, values)


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
    """Set units to zero, take them out, and compare the outputs in ONNX Runtime; returns them."""

    def call(model: Model, chosen: dict[Group, np.ndarray], **feed: np.ndarray) -> list[np.ndarray]:
        set_to_zero(model, chosen)
        interface, before = Interface.of(model), run(model, **feed)
        remove_units(model, chosen)
        check(model, interface)
        check_declared(model.to_proto())
        after = run(model, **feed)
        for old, new in zip(before, after, strict=True):
            assert old.shape == new.shape
            # float32 sums of up to some hundred terms, in another order
            np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-4)
        return after

    return call


@pytest.fixture
def halve(remove_exactly) -> Callable[..., dict[str, int]]:
    """Take the even half of all units that may go out of a model, exactly; returns the sizes of their groups."""

    def call(model: Model, **feed: np.ndarray) -> dict[str, int]:
        free = [group for group in find_couplings(model).groups if group.frozen is None]
        remove_exactly(model, {group: np.arange(0, group.size - 1, 2) for group in free}, **feed)
        return {group.name: group.size for group in free}

    return call
