"""Nodes and initializers of a graph in the making."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxpress.calibration.batches import Array

OPSET, IR_VERSION = 17, 8


class Nodes:
    """Nodes in order, and the weights that they read; what adds one gives the name of its result."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}

    def add(
        self,
        kind: str,
        inputs: Sequence[str],
        name: str,
        *,
        result: str | None = None,
        **attributes: float | str | Sequence[int] | onnx.TensorProto,
    ) -> str:
        """Add a node.

        Args:
            kind: operator.
            inputs: names of what it reads.
            name: of the node.
            result: name of what it gives; None makes one, as PyTorch's exporter does.
            attributes: of the node.
        """
        output = result or f"{name}_output_0"
        node = helper.make_node(kind, list(inputs), [output], name=name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._nodes.append(node)
        return output

    def constant(self, name: str, value: Array) -> str:
        """Add an initializer, unless there is one of that name."""
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def finish(self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
        """The model of all nodes; ONNX's checker has passed it.

        Args:
            inputs: of the graph.
            outputs: of the graph.
        """
        graph = helper.make_graph(
            self._nodes, "main_graph", list(inputs), list(outputs), list(self._initializers.values())
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="onnxpress")
        onnx.checker.check_model(model)
        return model
