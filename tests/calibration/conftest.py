"""Small models for the tests of calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxpress.rewriter.specs import InputSpec

Save = Callable[..., Path]


@pytest.fixture
def save_model(tmp_path: Path) -> Save:
    """Write a model of float inputs (or the given types) and return its path."""

    def save(
        nodes: Sequence[onnx.NodeProto],
        inputs: dict[str, Sequence[int | str | None] | None],
        outputs: Sequence[str],
        *,
        weights: dict[str, np.ndarray] | None = None,
        types: dict[str, int] | None = None,
        opset: int = 17,
        name: str = "model.onnx",
    ) -> Path:
        def value(key: str, shape: Sequence[int | str | None] | None) -> onnx.ValueInfoProto:
            element = (types or {}).get(key, TensorProto.FLOAT)
            return helper.make_value_info(key, helper.make_tensor_type_proto(element, shape))

        graph = helper.make_graph(
            nodes,
            "small",
            [value(key, shape) for key, shape in inputs.items()],
            [onnx.ValueInfoProto(name=key) for key in outputs],
            [numpy_helper.from_array(array, key) for key, array in (weights or {}).items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        path = tmp_path / name
        onnx.save(model, path)
        return path

    return save


@pytest.fixture
def linear(save_model: Save) -> Path:
    """x [n, 4] @ w -> hidden -> Relu -> y [n, 3]."""
    weight = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["hidden"]), helper.make_node("Relu", ["hidden"], ["y"])]
    return save_model(nodes, {"x": ["n", 4]}, ["y"], weights={"w": weight})


@pytest.fixture
def x_spec() -> list[InputSpec]:
    """One input x, float32 [n, 4]."""
    return [InputSpec("x", np.dtype(np.float32), ("n", 4))]
