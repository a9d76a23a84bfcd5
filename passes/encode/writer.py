"""Writes the parts of encoded weights, and the nodes that decode them, into a graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.encode.costs import ARGUMENT, CALL, TENSOR
from onnxpress.passes.encode.functions import bring_in, function_bytes, short_names
from onnxpress.passes.encode.parts import Parts, Stream
from onnxpress.passes.encode.plans import GAP_BITS, HUFFMAN, PLANES, Plan
from onnxpress.passes.kernels.arrays import Array
from onnxpress.rewriter.functions import DECODING_DOMAIN
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.weights import onnx_dtype


def shared_costs(needs: Iterable[str], opset: int) -> dict[str, int]:
    """Bytes of what the whole model stores once, by the names that plans give it."""
    return {name: _shared_cost(name, opset) for name in needs}


def _shared_cost(name: str, opset: int) -> int:
    kind, _, rest = name.partition(" ")
    if kind == "digits":
        return CALL + 2 * ARGUMENT + 2 * TENSOR + 4 * (8 // int(rest)) + 4
    if kind == "steps":
        return TENSOR + (1 << int(rest))
    if kind == "high":
        return TENSOR + (1 << int(rest.split()[0]))
    if kind == "zero":
        return TENSOR + 8
    if kind == "flat":
        return TENSOR + 8
    call = CALL + 4 * ARGUMENT if name == "Ranks" else 0  # it is called once in a model
    return function_bytes(name, opset) + call


class Writer:
    """Adds decoding nodes to the main graph of a model, and what they share once.

    What is read by decoding nodes alone has a name of a letter or two: names take their bytes too.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._shared: dict[tuple[tuple[int, ...], str, bytes], gs.Constant] = {}
        self._tables: dict[int, gs.Variable] = {}
        self._ranks: Sequence[gs.Variable] = ()
        self._names = short_names()

    def write(self, weight: gs.Variable, plan: Plan, parts: Parts) -> None:
        """Add the nodes that compute `weight`.

        Args:
            weight: with dtype and shape; nothing computes it yet.
            plan: how it is stored.
            parts: what is stored.
        """
        shape = np.array(weight.shape, np.int64)
        if plan.layout == "fill":
            self._call("Fill", [self._constant(parts.stream.stored), self._share(shape)], [weight])
        elif plan.layout == "plain":
            self._plain(weight, plan, parts, shape)
        elif plan.layout == "mask":
            self._mask(weight, plan, parts, shape)
        else:
            self._gaps(weight, plan, parts, shape)

    def _plain(self, weight: gs.Variable, plan: Plan, parts: Parts, shape: Array) -> None:
        if parts.rest is None:
            self._values(plan, parts.stream, weight, shape, [weight])
            return
        body = self._values(plan, parts.stream, weight, shape)
        self._join(body, parts.rest, shape, weight)

    def _mask(self, weight: gs.Variable, plan: Plan, parts: Parts, shape: Array) -> None:
        values = self._values(plan, parts.stream, weight, np.array([parts.count]))
        zero = self._share(np.zeros(1, weight.dtype))
        inputs = [self._constant(_present(parts.mask)), values, zero, *self._rank_tables()]
        if parts.rest is None:
            self._call("Mask", [*inputs, self._share(shape)], [weight])
        else:
            self._join(self._call("Mask", [*inputs, self._flat()]), parts.rest, shape, weight)

    def _gaps(self, weight: gs.Variable, plan: Plan, parts: Parts, shape: Array) -> None:
        count = np.array([parts.count])
        values = self._values(plan, parts.stream, weight, count)
        gaps = self._huffman(parts.steps, count) if parts.steps else self._packed_gaps(plan, parts)
        zero = self._share(np.zeros(1, weight.dtype))
        self._call("Gaps", [gaps, values, zero, self._share(shape)], [weight])

    def _packed_gaps(self, plan: Plan, parts: Parts) -> gs.Tensor:
        gaps = self._constant(_present(parts.gaps))
        if (bits := GAP_BITS[plan.layout]) == 8:
            return gaps
        return self._call("Codes", [gaps, self._steps(bits), self._digits(bits), self._flat()])

    def _huffman(self, stream: Stream, shape: Array, outputs: Sequence[gs.Variable] = ()) -> gs.Variable:
        parts = (stream.stored, stream.blocks, stream.lengths, stream.book)
        constants = [self._constant(_present(array)) for array in parts]
        return self._call("Huffman", [*constants, self._share(shape)], outputs)

    def _values(
        self,
        plan: Plan,
        stream: Stream,
        weight: gs.Variable,
        shape: Array,
        outputs: Sequence[gs.Variable] = (),
    ) -> gs.Tensor:
        """The listed elements, in `shape`; without outputs flat, and `shape` is their number."""
        if plan.coding is None:
            return self._constant(stream.stored)
        if plan.coding == HUFFMAN:
            return self._huffman(stream, shape, outputs)
        if not isinstance(plan.coding, int):
            narrow = self._constant(stream.stored)
            return self._call("Widen", [narrow], outputs, attrs={"to": onnx_dtype(weight.dtype)})
        codes, book = self._constant(stream.stored), self._constant(_present(stream.book))
        if plan.coding == 8:
            return self._call("Lookup", [codes, book], outputs)
        target = self._share(shape) if outputs else self._flat()
        if not stream.high:
            return self._call("Codes", [codes, book, self._digits(plan.coding), target], outputs)
        low, *rest = PLANES[plan.coding]
        found, shift = self._call("Codes", [codes, self._steps(low), self._digits(low), target]), low
        for bits, packed in zip(rest, stream.high, strict=True):
            weights = self._share(np.arange(1 << bits, dtype=np.uint8) << np.uint8(shift))
            others = self._call("Codes", [self._constant(packed), weights, self._digits(bits), target])
            shift += bits
            last = shift == plan.coding
            means = book if last else self._steps(shift)
            found = self._call("Planes", [found, others, means], outputs if last else ())
        return found

    def _steps(self, bits: int) -> gs.Constant:
        """What codes of `bits` bits mean as numbers."""
        return self._share(np.arange(1 << bits, dtype=np.uint8))

    def _join(self, body: gs.Tensor, rest: Array, shape: Array, weight: gs.Variable) -> None:
        self._call("Join", [body, self._constant(rest), self._share(shape)], [weight])

    def _digits(self, bits: int) -> gs.Variable:
        if bits not in self._tables:
            divisors = self._share(np.array([1 << at for at in range(0, 8, bits)], np.int32))
            base = self._share(np.array(1 << bits, np.int32))
            self._tables[bits] = self._call("Digits", [divisors, base])
        return self._tables[bits]

    def _rank_tables(self) -> Sequence[gs.Variable]:
        if not self._ranks:
            self._ranks = [self._variable() for _ in range(3)]
            self._call("Ranks", [self._digits(1)], self._ranks)
        return self._ranks

    def _flat(self) -> gs.Constant:
        return self._share(np.array([-1], np.int64))

    def _constant(self, array: Array) -> gs.Constant:
        return self.model.add_weight(next(self._names), np.ascontiguousarray(array))

    def _variable(self) -> gs.Variable:
        return gs.Variable(self.model.names.fresh(next(self._names)))

    def _share(self, array: Array) -> gs.Constant:
        key = (array.shape, array.dtype.name, array.tobytes())
        if key not in self._shared:
            self._shared[key] = self._constant(array)
        return self._shared[key]

    def _call(
        self,
        name: str,
        inputs: Sequence[gs.Tensor],
        outputs: Sequence[gs.Variable] = (),
        *,
        attrs: dict[str, object] | None = None,
    ) -> gs.Variable:
        """Add a call; without names, for it is gone once a session is there."""
        bring_in(self.model, name)
        results = list(outputs) if outputs else [self._variable()]
        node = gs.Node(name, "", attrs or {}, list(inputs), results, DECODING_DOMAIN)
        self.model.graph.nodes.append(node)
        return results[0]


def _present(array: Array | None) -> Array:
    if array is None:
        raise ValueError("the parts do not belong to the plan")
    return array
