"""Small models in ONNX's own text form."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx.parser
import pytest

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
