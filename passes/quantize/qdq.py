"""QuantizeLinear and DequantizeLinear in the graph, in the form that ONNX Runtime merges with what stands between."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxpress.passes.kernels.affine import Floats, Ints, quantize_bias
from onnxpress.passes.quantize.coding import Coded, bias_of, flat
from onnxpress.passes.quantize.placement import Wrapped
from onnxpress.rewriter.edits import add_node, set_input, set_output
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Use


class Writer:
    """Writes codes into the main graph of one model; equal constants are stored once."""

    def __init__(self, model: Model) -> None:
        """Start with no constants."""
        self._model = model
        self._constants: dict[tuple[str, tuple[int, ...], bytes], gs.Constant] = {}
        self._weights: dict[tuple[int, bool], gs.Tensor] = {}

    def wrap(self, wrapped: Wrapped, scale: Floats, zero: Ints) -> None:
        """Turn a tensor into codes and back, for some readers or, under its own name, for all."""
        model, tensor = self._model, wrapped.tensor
        grid = [self._constant("s", scale), self._constant("z", zero)]
        source = tensor if wrapped.readers is not None else self._move_producer(tensor)
        codes = add_node(model, model.graph, "QuantizeLinear", [source, *grid], hint="q")
        if wrapped.readers is None:
            add_node(model, model.graph, "DequantizeLinear", [codes, *grid], hint="d", outputs=[tensor])
            return
        back = add_node(model, model.graph, "DequantizeLinear", [codes, *grid], hint="d")
        for node, index in wrapped.readers:
            set_input(node, index, back)

    def weight(self, use: Use, coded: Coded) -> None:
        """Let a layer read a weight from codes."""
        # ONNX Runtime makes a QGemm only where the zero point of the weight is written out.
        explicit = use.node.op == "Gemm" or coded.zero != 0
        key = (id(coded.codes), explicit)
        if key not in self._weights:
            zero = [self._constant("z", coded.zeros)] if explicit else []
            self._weights[key] = self._dequantize([coded.codes, self._constant("s", coded.scale), *zero], coded.axis)
        set_input(use.node, use.index, self._weights[key])

    def bias(self, node: gs.Node, coded: Coded, *, input_scale: float) -> None:
        """Let a layer read its bias from int32 codes at the scale of its products."""
        bias = bias_of(node)
        if bias is None:
            return
        codes, scale = quantize_bias(flat(bias), input_scale=input_scale, weight_scale=coded.scale)
        inputs = [self._model.add_weight("b", codes), self._constant("s", scale)]
        set_input(node, 2, self._dequantize(inputs, None if coded.axis is None else 0))

    def constant(self, node: gs.Node, index: int, scale: Floats, codes: Ints, zero: Ints) -> None:
        """Let a node read a constant from codes."""
        grid = [self._constant("s", scale), self._constant("z", zero)]
        set_input(node, index, self._dequantize([self._model.add_weight("k", codes), *grid], None))

    def _dequantize(self, inputs: list[gs.Tensor], axis: int | None) -> gs.Tensor:
        attrs: dict[str, object] = {} if axis in (None, 1) else {"axis": axis}
        return add_node(self._model, self._model.graph, "DequantizeLinear", inputs, hint="d", attrs=attrs)

    def _move_producer(self, tensor: gs.Tensor) -> gs.Tensor:
        """A new tensor for what writes `tensor`, which is free to be written by another node."""
        raw = gs.Variable(self._model.names.fresh("f"))
        producer = tensor.inputs[0]
        set_output(producer, next(i for i, out in enumerate(producer.outputs) if out is tensor), raw)
        return raw

    def _constant(self, hint: str, values: NDArray[Any]) -> gs.Constant:
        key = (values.dtype.name, values.shape, values.tobytes())
        if key not in self._constants:
            self._constants[key] = self._model.add_weight(hint, np.asarray(values))  # NumPy gives scalars, too
        return self._constants[key]
