"""The ways in which a graph reads weights in blocks back.

At load: packed codes and the local functions that ONNX Runtime runs once when it loads the model; what runs is float.
In the run: a blocked DequantizeLinear in front of MatMul or Gemm, which ONNX Runtime merges into MatMulNBits, so the
codes are what is in memory. Tables: rows of bytes are picked, and only those are decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxpress.passes.blockwise.blocked import Blocked
from onnxpress.passes.encode.functions import bring_in, function
from onnxpress.passes.kernels.blocks import Codes8, Steps, code_grid
from onnxpress.passes.kernels.packing import pack_codes, packed_bytes
from onnxpress.passes.selection import LAZY
from onnxpress.rewriter.edits import add_node, detach, set_input
from onnxpress.rewriter.functions import DECODING_DOMAIN
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, Use
from onnxpress.rewriter.weights import Dense, Produced, Values

_TYPES = {8: np.dtype(np.int8), 4: np.dtype(ml_dtypes.int4), 2: np.dtype(ml_dtypes.int2)}
_IR_VERSIONS = {8: 10, 4: 10, 2: 13}
"""The first with these types."""
_FLOAT = {"to": int(onnx.TensorProto.FLOAT)}


class Forms:
    """Writes weights in blocks into one model; small constants that are equal are stored once."""

    def __init__(self, model: Model) -> None:
        """Start with nothing written."""
        self._model = model
        self._shared: dict[tuple[str, tuple[int, ...], bytes], gs.Constant] = {}
        self._digits: dict[int, gs.Tensor] = {}
        self._books: dict[int, gs.Tensor] = {}

    def store(self, site: Site, blocked: Blocked) -> str:
        """Let all users of a weight read it in float: tables row by row as they are asked for, others once at load.

        Returns:
            Which of both it is.
        """
        _, length = blocked.shape
        whole = length % (8 // blocked.bits) == 0 and blocked.factors is None
        tables = [use for use in site.uses if use.node.op == "Gather" and whole]
        others = [use for use in site.uses if not any(use is table for table in tables)]
        steps = blocked.steps
        packed = self._packed(blocked.codes, blocked.shape, blocked.bits)
        scale = self._model.add_weight("s", steps.scale.astype(np.float16) if steps.is_short else steps.scale)
        grids = [scale, *self._zeros(blocked)]
        for use in tables:
            self._look_up(use, blocked, packed, grids)
        if others:
            weight = self._decoded(blocked, packed, grids)
            for use in others:
                set_input(use.node, use.index, weight)
        return "float when it runs" if others else "rows are decoded as they are looked up"

    def multiply(self, use: Use, blocked: Blocked) -> gs.Node:
        """Let a MatMul or Gemm multiply by codes; gives the DequantizeLinear in front of it."""
        rows, length = blocked.shape
        kind, steps, header = _TYPES[blocked.bits], blocked.steps, self._model.header
        header.ir_version = max(header.ir_version, _IR_VERSIONS[blocked.bits])
        codes = self._constant("w", (length, rows), kind, lambda: blocked.codes().T.astype(kind))
        inputs: list[gs.Tensor] = [codes, self._scale_of(steps, use.graph)]
        if steps.zero is not None:
            inputs.append(self._model.add_weight("z", np.ascontiguousarray(steps.zero.T).astype(kind)))
        attrs: dict[str, object] = {"axis": 0, "block_size": steps.block}
        weight = add_node(self._model, use.graph, "DequantizeLinear", inputs, hint="d", attrs=attrs)
        self._product(use, weight)
        return weight.inputs[0]

    def decode_once(self, node: gs.Node, *, length: int) -> None:
        """Turn a DequantizeLinear of `multiply` into calls of functions, which run once when the model is loaded."""
        out, inputs = node.outputs[0], list(node.inputs)
        block = int(node.attrs["block_size"])
        detach(node)
        self._blocks(inputs, length=length, block=block, axis=0, outputs=[out])

    def _scale_of(self, steps: Steps, graph: gs.Graph) -> gs.Tensor:
        """Scales [blocks, rows] in float32; short ones are stored in half of it, and widened at load."""
        scale = np.ascontiguousarray(steps.scale.T)
        if not steps.is_short:
            return self._model.add_weight("s", scale)
        short = self._model.add_weight("s", scale.astype(np.float16))
        return add_node(self._model, graph, "Cast", [short], hint="s", attrs=dict(_FLOAT))

    def _product(self, use: Use, weight: gs.Tensor) -> None:
        """Multiply by a weight [in, out]: as MatMul and Add where a Gemm does what ONNX Runtime does not merge."""
        model, node, graph = self._model, use.node, use.graph
        set_input(node, use.index, weight)
        if node.op != "Gemm":
            return
        node.attrs.pop("transB", None)
        alpha, beta = float(node.attrs.get("alpha", 1.0)), float(node.attrs.get("beta", 1.0))
        bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
        flat = bias is None or (isinstance(bias, gs.Constant) and len(bias.shape) == 1 and beta == 1)
        if alpha == 1 and flat:
            return
        source, out = node.inputs[0], node.outputs[0]
        detach(node)
        parts = [(alpha, add_node(model, graph, "MatMul", [source, weight], hint="m"))]
        if bias is not None:
            parts.append((beta, bias))
        terms = [self._times(graph, each, factor) for factor, each in parts]
        add_node(model, graph, "Add" if len(terms) > 1 else "Identity", terms, hint="y", outputs=[out])

    def _times(self, graph: gs.Graph, tensor: gs.Tensor, factor: float) -> gs.Tensor:
        if factor == 1:
            return tensor
        return add_node(self._model, graph, "Mul", [tensor, self._share(np.float32(factor))], hint="m")

    def _packed(self, codes: Callable[[], Codes8], shape: tuple[int, int], bits: int) -> gs.Constant:
        """Codes as they are stored: bytes of each row, [rows, bytes], or of all where a row does not fill its last."""
        if bits == 8:
            return self._constant("w", shape, np.dtype(np.int8), codes)
        low, count = code_grid(bits).low, shape[0] * shape[1]
        whole = count - count % (8 // bits)
        size = (shape[0], -1) if shape[1] % (8 // bits) == 0 else (-1,)

        def make() -> NDArray[np.uint8]:
            return pack_codes((codes() - np.int8(low)).view(np.uint8).reshape(-1)[:whole], bits).reshape(size)

        known = tuple(packed_bytes(whole, bits) // shape[0] if each < 0 and len(size) > 1 else each for each in size)
        return self._constant("w", known if len(size) > 1 else (packed_bytes(whole, bits),), np.dtype(np.uint8), make)

    def _unpacked(
        self, packed: gs.Constant, codes: Callable[[], Codes8], shape: tuple[int, int], bits: int
    ) -> gs.Tensor:
        """Codes as int8 [rows, k] again."""
        if bits == 8:
            return packed
        grid, unit = code_grid(bits), 8 // bits
        book = self._share(np.arange(grid.low, grid.high + 1, dtype=np.int8))
        sizes, rest = self._share(np.array(shape, np.int64)), shape[0] * shape[1] % unit
        if not rest:
            return self._call("Codes", [packed, book, self._digits_of(bits), sizes])
        body = self._call("Codes", [packed, book, self._digits_of(bits), self._share(np.array([-1], np.int64))])
        last = self._model.add_weight("w", codes().reshape(-1)[-rest:].copy())
        return self._call("Join", [body, last, sizes])

    def _decoded(self, blocked: Blocked, packed: gs.Constant, grids: Sequence[gs.Tensor]) -> gs.Tensor:
        """The weight in float again, computed once when the model is loaded."""
        steps, layout = blocked.steps, blocked.layout
        codes = self._unpacked(packed, blocked.codes, blocked.shape, blocked.bits)
        weight = self._blocks([codes, *grids], length=blocked.shape[1], block=steps.block, axis=1)
        if blocked.factors is not None:
            weight = self._call("Scale", [weight, self._model.add_weight("f", 1 / blocked.factors)])
        order = layout.order()
        wide = [layout.shape[axis] for axis in order]
        perm = [int(each) for each in np.argsort(order)]
        if len(wide) == 2 and perm == [0, 1]:
            return weight
        return self._call("Arrange", [weight, self._share(np.array(wide, np.int64))], attrs={"perm": perm})

    def _zeros(self, blocked: Blocked) -> list[gs.Tensor]:
        """Zero points as int8 [rows, blocks]; nothing where they are zero."""
        zero = blocked.steps.zero
        if zero is None:
            return []
        shape, known = (zero.shape[0], zero.shape[1]), zero
        return [self._unpacked(self._packed(lambda: known, shape, blocked.bits), lambda: known, shape, blocked.bits)]

    def _blocks(
        self,
        inputs: Sequence[gs.Tensor],
        *,
        length: int,
        block: int,
        axis: int,
        outputs: Sequence[gs.Tensor] | None = None,
    ) -> gs.Tensor:
        """Call the function that decodes blocks along an axis of `length`."""
        sizes = [self._share(np.array(each, np.int64)) for each in (length, block)]
        name = "Blocks" if len(inputs) == 2 else "Offset"
        return self._call(name, [*inputs, *sizes], attrs={"axis": axis}, outputs=outputs)

    def _look_up(self, use: Use, blocked: Blocked, packed: gs.Constant, grids: Sequence[gs.Tensor]) -> None:
        """Let a Gather pick rows of bytes, and decode only those; the table stays codes in memory, too.

        y = (float(codes[i]) − zero[i]) · scale[i], each block of a row with its own scale and zero point.
        """
        model, node, graph = self._model, use.node, use.graph
        indices, out = node.inputs[1], node.outputs[0]
        length, blocks = blocked.shape[1], blocked.steps.scale.shape[1]
        detach(node)
        values = add_node(model, graph, "Gather", [packed, indices], hint="g")
        if blocked.bits < 8:
            index = add_node(model, graph, "Cast", [values], hint="c", attrs={"to": int(onnx.TensorProto.INT32)})
            values = add_node(model, graph, "Gather", [self._book_of(blocked.bits), index], hint="g")
        else:
            values = add_node(model, graph, "Cast", [values], hint="c", attrs=dict(_FLOAT))
        whole = blocks > 1 and length % blocks == 0 and length == blocks * blocked.steps.block
        if whole or blocked.bits < 8:
            sizes = [blocks, length // blocks] if whole else [length]
            values = self._reshaped(graph, values, indices, sizes)
        scale, *zeros = [self._picked(graph, each, indices, blocked, whole=whole) for each in grids]
        for zero in zeros:
            values = add_node(model, graph, "Sub", [values, zero], hint="s")
        if whole:
            values = add_node(model, graph, "Mul", [values, scale], hint="y")
            self._reshaped(graph, values, indices, [length], outputs=[out])
        else:
            add_node(model, graph, "Mul", [values, scale], hint="y", outputs=[out])

    def _reshaped(
        self,
        graph: gs.Graph,
        values: gs.Tensor,
        indices: gs.Tensor,
        sizes: Sequence[int],
        *,
        outputs: Sequence[gs.Tensor] | None = None,
    ) -> gs.Tensor:
        """What was looked up, with `sizes` behind the axes of the indices."""
        shape = add_node(self._model, graph, "Shape", [indices], hint="i")
        ends = [shape, self._share(np.array(sizes, np.int64))]
        wide = add_node(self._model, graph, "Concat", ends, hint="i", attrs={"axis": 0})
        return add_node(self._model, graph, "Reshape", [values, wide], hint="r", outputs=outputs)

    def _picked(
        self, graph: gs.Graph, grid: gs.Tensor, indices: gs.Tensor, blocked: Blocked, *, whole: bool
    ) -> gs.Tensor:
        """The numbers of the rows picked, one for each block, so that they broadcast against what was looked up."""
        model, (rows, length), steps = self._model, blocked.shape, blocked.steps
        # Widened at load: float constants that a Gather reads would be tables of their own to other passes.
        wide = self._call("Widen", [grid], attrs=dict(_FLOAT))
        if whole:
            sizes = self._share(np.array([rows, steps.scale.shape[1], 1], np.int64))
            wide = self._call("Arrange", [wide, sizes], attrs={"perm": [0, 1, 2]})
        found = add_node(model, graph, "Gather", [wide, indices], hint="g")
        if whole or steps.block >= length:
            return found
        which = self._share(np.arange(length, dtype=np.int32) // np.int32(steps.block))
        return add_node(model, graph, "Gather", [found, which], hint="g", attrs={"axis": -1})

    def _book_of(self, bits: int) -> gs.Tensor:
        """The codes in every possible byte, float32 [256, codes]; stored as int8 and widened at load."""
        if bits not in self._books:
            places = np.arange(256)[:, None] >> (bits * np.arange(8 // bits)) & ((1 << bits) - 1)
            book = self._share((places + code_grid(bits).low).astype(np.int8))
            self._books[bits] = self._call("Widen", [book], attrs=dict(_FLOAT))
        return self._books[bits]

    def _digits_of(self, bits: int) -> gs.Tensor:
        if bits not in self._digits:
            divisors = self._share(np.array([1 << at for at in range(0, 8, bits)], np.int32))
            self._digits[bits] = self._call("Digits", [divisors, self._share(np.array(1 << bits, np.int32))])
        return self._digits[bits]

    def _constant(
        self, hint: str, shape: tuple[int, ...], kind: np.dtype[Any], make: Callable[[], NDArray[Any]]
    ) -> gs.Constant:
        """A constant; a large one is computed when it is read."""
        lazy = Produced(shape, kind, lambda: np.ascontiguousarray(make()))
        held: Values = lazy if lazy.nbytes >= LAZY // 8 else Dense(lazy.load())
        return self._model.add_weight(hint, held)

    def _share(self, array: NDArray[Any] | np.generic) -> gs.Constant:
        wide = np.asarray(array)
        key = (wide.dtype.name, wide.shape, wide.tobytes())
        if key not in self._shared:
            self._shared[key] = self._model.add_weight("k", wide)
        return self._shared[key]

    def _call(
        self,
        name: str,
        inputs: Sequence[gs.Tensor],
        *,
        attrs: dict[str, object] | None = None,
        outputs: Sequence[gs.Tensor] | None = None,
    ) -> gs.Tensor:
        """Call a decoding function in the main graph, from which inner ones see its result."""
        model = self._model
        bring_in(model, name)
        results = list(outputs) if outputs else [gs.Variable(model.names.fresh(function(name, model.opset).output[0]))]
        model.graph.nodes.append(gs.Node(name, "", attrs or {}, list(inputs), results, DECODING_DOMAIN))
        return results[0]
