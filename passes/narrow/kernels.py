"""Whether an execution provider has a kernel for a node in 16 bits; ONNX Runtime itself is asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxpress.calibration.providers import CPU, provider_name
from onnxpress.passes.kernels.narrow import Format
from onnxpress.passes.narrow.types import ELEMENT_TYPES, Ports
from onnxpress.rewriter.encode import encode_node
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import Shapes
from onnxpress.rewriter.skeleton import Skeleton
from onnxpress.rewriter.weights import onnx_dtype, values_of

# onnxruntime is imported where it is used: importing onnxpress stays light.

SMALL = 1024
"""Bytes up to which a constant that is not float is shown to ONNX Runtime; some kernels want to know it."""

TENSORRT = "TensorrtExecutionProvider"
"""It compiles whole graphs, so it says nothing of single nodes."""


class Kernels:
    """Asks a provider, once for all nodes that look alike."""

    def __init__(self, model: Model, shapes: Shapes, kind: Format, providers: Sequence[str]) -> None:
        """Ask about the nodes of a model.

        Args:
            model: gives the versions.
            shapes: the types of its tensors, all of them float32 where they are to be narrow.
            kind: the format.
            providers: in order of preference.
        """
        self._header, self._shapes, self._kind = model.header, shapes, kind
        self._providers = [provider_name(each) for each in providers]
        self._known: dict[bytes, bool] = {}

    def has(self, node: gs.Node, ports: Ports) -> bool:
        """Whether the first provider runs a node whose `ports` are narrow, without handing it to the CPU."""
        if self._providers[0] == TENSORRT:
            return True
        question = self._question(node, ports)
        if question is None:
            return False
        if question not in self._known:
            self._known[question] = runs(question, self._providers[0])
        return self._known[question]

    def _question(self, node: gs.Node, ports: Ports) -> bytes | None:
        """A model of that node alone, under names that do not tell nodes apart; None where a type is unknown."""
        proto = onnx.ModelProto(ir_version=max(self._header.ir_version, 8))
        proto.opset_import.extend(self._header.opset_import)
        message = encode_node(node, Skeleton(onnx.ModelProto()))
        alone = proto.graph.node.add(op_type=message.op_type, domain=message.domain)
        alone.attribute.extend(message.attribute)
        proto.graph.name = "alone"
        low = ELEMENT_TYPES[self._kind.name]
        for index, tensor in enumerate(node.inputs):
            alone.input.append(f"i{index}" if tensor.name else "")
            if not tensor.name:
                continue
            dtype = self._shapes.dtype(tensor)
            if dtype is None:
                return None
            if isinstance(tensor, gs.Constant) and dtype != np.float32 and values_of(tensor).nbytes <= SMALL:
                constant = onnx.numpy_helper.from_array(values_of(tensor).load(), f"i{index}")
                proto.graph.initializer.append(constant)
                continue
            element = low if index in ports.inputs else onnx_dtype(dtype)
            proto.graph.input.append(onnx.helper.make_tensor_value_info(f"i{index}", element, None))
        if node.op in ("Cast", "ConstantOfShape"):
            _retype(alone, low)
        alone.output.extend(f"o{index}" if tensor.name else "" for index, tensor in enumerate(node.outputs))
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in alone.output if name)
        return bytes(proto.SerializeToString(deterministic=True))


def runs(model: bytes, provider: str) -> bool:
    """Whether a provider runs all of a model without handing nodes to the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if provider != CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        onnxruntime.InferenceSession(model, options, providers=[provider])
    except Exception:  # its classes are private, and any of them means that it does not run so
        return False
    return True


def _retype(node: onnx.NodeProto, low: int) -> None:
    """Let the attribute that names the type of the output name another."""
    for attribute in node.attribute:
        if attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
            attribute.i = low
        elif attribute.name == "value":
            attribute.t.CopyFrom(onnx.TensorProto(data_type=low, dims=[1], raw_data=b"\0\0"))
