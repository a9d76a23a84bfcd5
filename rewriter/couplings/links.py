"""What a rule says of one node: which elements of which axes belong together, and which must stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.rewriter.couplings.amendment import Amendment, constant_value
from onnxpress.rewriter.couplings.ledger import Contradiction, Fold, IntArray, Kind, Ledger, Place, UnknownShape
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import Shapes
from onnxpress.rewriter.weights import Array

# what a file of rules needs
__all__ = ["Amendment", "Contradiction", "IntArray", "Kind", "Links", "Place", "Rule", "UnknownShape"]


class Links:
    """What a rule writes for ONE node.

    Every axis of the node's inputs and outputs, and of the inputs and outputs of its subgraphs, that the rule does not
    mention is frozen afterwards. A tensor that the node reads twice must be mentioned twice.

    Attributes:
        node: the node.
        shapes: of all tensors.
        model: it stands in.
        outputs: identities of the tensors that are outputs of any graph.
    """

    def __init__(
        self, node: gs.Node, shapes: Shapes, model: Model, ledger: Ledger, *, outputs: AbstractSet[int]
    ) -> None:
        self.node, self.shapes, self.model, self.outputs = node, shapes, model, outputs
        self._ledger = ledger
        self._mentioned: dict[tuple[int, int], int] = {}
        self._refused = False

    @cached_property
    def title(self) -> str:
        """The node, as reasons call it."""
        return f"{self.node.op} '{self.node.name or next((t.name for t in self.node.outputs if t.name), '')}'"

    def input(self, index: int) -> gs.Tensor | None:
        """The input at `index`; None where it is left out."""
        return _present(self.node.inputs, index)

    def output(self, index: int) -> gs.Tensor | None:
        """The output at `index`; None where it is left out, or nobody reads it nor knows its shape."""
        found = _present(self.node.outputs, index)
        return None if found is None or self._idle(found) else found

    def sizes(self, tensor: gs.Tensor) -> tuple[int | None, ...]:
        """Size of each axis, None where it is not fixed.

        Raises:
            UnknownShape: not even the rank is known. Rules let it pass; the node then freezes what it touches.
        """
        found = self._ledger.known.get(id(tensor))
        if found is None:
            shape = self.shapes.shape(tensor)
            if shape is None:
                raise UnknownShape(f"the shape of '{tensor.name}' is unknown")
            found = tuple(size if isinstance(size, int) else None for size in shape)
            self._ledger.known[id(tensor)] = found
        return found

    def rank(self, tensor: gs.Tensor) -> int:
        """Number of axes; raises `UnknownShape` as `sizes` does."""
        return len(self.sizes(tensor))

    def size(self, tensor: gs.Tensor, axis: int) -> int | None:
        """Size of one axis (from the end where negative), None where it is not fixed.

        Raises:
            UnknownShape: as `sizes` does.
            Contradiction: the tensor has no such axis.
        """
        return self.sizes(tensor)[self.axis(tensor, axis)]

    def axis(self, tensor: gs.Tensor, number: int) -> int:
        """An axis, from the end where negative, counted from 0; raises as `size` does."""
        rank = self.rank(tensor)
        if not -rank <= number < rank:
            raise Contradiction(f"'{tensor.name}' has {rank} axes, so none of number {number}")
        return number % rank

    def value(self, tensor: gs.Tensor | None) -> Array | None:
        """The array of a constant that no caller can override; None of anything else."""
        return constant_value(self.model, tensor)

    def tie(self, first: Place, second: Place, *, at: IntArray | None = None, to: IntArray | None = None) -> None:
        """Element `at[i]` of `first` goes with element `to[i]` of `second`; without them all, in order.

        Both places count as mentioned. If the size of one is not fixed, the other is frozen; if elements do not pair,
        both are.
        """
        known = self._number(first), self._number(second)
        if known[0] is None or known[1] is None:
            self._keep_known(first, second)
            return
        sizes = self._ledger.sizes[known[0]], self._ledger.sizes[known[1]]
        if at is None and to is None and sizes[0] == sizes[1]:
            self._ledger.whole.append((known[0], known[1]))
            return
        pairs = [
            np.arange(size) if a is None else np.asarray(a, np.int64) for a, size in zip((at, to), sizes, strict=True)
        ]
        ends = list(zip((first, second), pairs, sizes, strict=True))
        reason = next((self._beyond(place, size) for place, of, size in ends if not _within(of, size)), None)
        if reason is None and pairs[0].shape != pairs[1].shape:
            reason = f"{self.title} pairs {pairs[0].size} with {pairs[1].size} elements, which it should not"
        if reason is None:
            self._ledger.parts.append((known[0], pairs[0], known[1], pairs[1]))
            return
        for place in (first, second):
            self.keep(place, reason)

    def contract(self, first: Place, second: Place, *, at: IntArray | None = None, to: IntArray | None = None) -> None:
        """As `tie`, where the node multiplies both and sums over them."""
        self.tie(first, second, at=at, to=to)
        pair = self._known(first), self._known(second)
        if pair[0] is not None and pair[1] is not None:
            self._ledger.summed.append((pair[0], pair[1]))

    def unite(self, place: Place, labels: IntArray, *, kind: Kind | None = None) -> None:
        """Elements of one axis with equal labels go together.

        Args:
            place: the axis.
            labels: [size].
            kind: what such a unit is, if the rule knows.
        """
        number = self._number(place)
        if number is None:
            return
        if np.shape(labels) != (self._ledger.sizes[number],):
            raise Contradiction(f"it sorts {self._ledger.sizes[number]} elements as though they were {np.size(labels)}")
        self._ledger.united.append((number, np.asarray(labels, np.int64)))
        if kind is not None:
            self.call(place, kind)

    def fold(self, whole: Place, parts: Sequence[Place | int]) -> None:
        """The elements of one axis are those of the product of several, outermost first.

        Units go along one of the parts, which is chosen when all nodes have spoken; places of size 1 must be left out.

        Args:
            whole: the product.
            parts: its factors: places, or sizes of what is no axis by itself.
        """
        places = [whole, *(part for part in parts if not isinstance(part, int))]
        number = self._number(whole)
        factors = tuple(None if isinstance(part, int) else self._number(part) for part in parts)
        sizes = [part if isinstance(part, int) else self.size(*part) for part in parts]
        known = tuple(size for size in sizes if size is not None)
        if number is None or len(known) < len(sizes) or self.size(*whole) != int(np.prod(known, dtype=np.int64)):
            for place in places:
                self.keep(place, f"{self.title} merges it with axes whose size is not fixed")
            return
        if len(factors) == 1 and factors[0] is not None:
            self._ledger.whole.append((number, factors[0]))
        else:
            self._ledger.folds.append(Fold(number, factors, known, self.title))

    def call(self, place: Place, kind: Kind) -> None:
        """Say what the units of a place are; it does not count as mentioning the place."""
        number = self._known(place)
        if number is not None:
            self._ledger.kinds.setdefault(number, kind)

    def keep(self, place: Place, reason: str, *, at: IntArray | None = None) -> None:
        """Freeze elements of an axis, all by default or where it does not have those; they count as mentioned."""
        number = self._number(place)
        if number is not None:
            known = at is not None and _within(at, self._ledger.sizes[number])
            self._ledger.kept.append((number, np.asarray(at, np.int64) if known else None, reason))

    def leave(self, place: Place) -> None:
        """Mention an axis that ties nothing: its size may become any other that a rule makes it."""
        self._number(place)

    def refuse(self, reason: str) -> None:
        """Freeze everything the node touches, whatever else the rule says."""
        self._refused = True
        for tensor in self.touched():
            for axis in range(len(self.shapes.shape(tensor) or ())):
                self.keep((tensor, axis), f"{self.title}: {reason}")

    def same(self, first: gs.Tensor, second: gs.Tensor, *, but: Sequence[int] = ()) -> None:
        """Tie all axes of two tensors of equal rank, in order, except the axes `but` (from the end where negative)."""
        rank = self.rank(first)
        if rank != self.rank(second):
            raise Contradiction(f"'{first.name}' and '{second.name}' should have equally many axes")
        skipped = {self.axis(first, axis) for axis in but}
        for axis in range(rank):
            if axis not in skipped:
                self.tie((first, axis), (second, axis))

    def broadcast(self, operands: Sequence[Place], result: Place) -> None:
        """Tie aligned axes with that of the result, but not those of size 1 that are repeated.

        If the size of an operand's axis is not fixed, it may be 1 or not; then the others are frozen.
        """
        sizes = [self.size(*place) for place in operands]
        if None in sizes:
            for place in [*operands, result]:
                self.keep(place, f"{self.title} meets an axis whose size is not fixed")
            return
        wide = self.size(*result)
        for place, size in zip(operands, sizes, strict=True):
            if size == 1 and wide != 1:
                self.leave(place)
            else:
                self.tie(place, result)

    def touched(self) -> Iterator[gs.Tensor]:
        """Inputs and outputs, once for each time they are named, and the ends of subgraphs."""
        yield from (t for t in self.node.inputs if t.name)
        yield from (t for t in self.node.outputs if t.name and not self._idle(t))
        for inner in self.node.attrs.values():
            if isinstance(inner, gs.Graph):
                yield from [*inner.inputs, *inner.outputs]

    def open(self) -> None:
        """Number the places of the node, in order."""
        for tensor in self.touched():
            for axis, size in enumerate(self.shapes.shape(tensor) or ()):
                if isinstance(size, int):
                    self._ledger.number((tensor, axis), size)

    def close(self) -> None:
        """Freeze what the rule did not mention, or mentioned less often than the node names it."""
        if self._refused:
            return
        written = {id(t) for t in self.node.outputs}
        due: dict[tuple[int, int], int] = {}
        for tensor in self.touched():
            for axis in range(len(self.shapes.shape(tensor) or ())):
                key = (id(tensor), axis)
                due[key] = due.get(key, 0) + 1
                if due[key] > self._mentioned.get(key, 0):
                    verb = "makes" if id(tensor) in written else "reads"
                    self.keep((tensor, axis), f"{self.title} {verb} axis {axis} of '{tensor.name}' whole")

    def _idle(self, tensor: gs.Tensor) -> bool:
        """Whether an output of unknown shape is of no account: nobody reads it."""
        return not tensor.outputs and id(tensor) not in self.outputs and self.shapes.shape(tensor) is None

    def _known(self, place: Place) -> int | None:
        """Number of a place; None where its size is not fixed."""
        size = self.size(*place)
        return None if size is None else self._ledger.number((place[0], self.axis(*place)), size)

    def _beyond(self, place: Place, size: int) -> str:
        # a shape that the model declares is another than that of the tensor
        return f"{self.title} reaches beyond the {size} elements of axis {place[1]} of '{place[0].name}'"

    def _number(self, place: Place) -> int | None:
        key = (id(place[0]), self.axis(*place))
        self._mentioned[key] = self._mentioned.get(key, 0) + 1
        return self._known(place)

    def _keep_known(self, first: Place, second: Place) -> None:
        for place, other in ((first, second), (second, first)):
            if self._known(place) is not None:
                self.keep(place, f"the size of axis {other[1]} of '{other[0].name}' is not fixed")


@dataclass(frozen=True, slots=True)
class Rule:
    """What an operator does with axes.

    Attributes:
        link: writes the ties of a node.
        amend: changes the node's attributes and small operands once units are gone.
        partial: it copes with tensors whose shapes are unknown; otherwise one such tensor freezes all the node touches.
    """

    link: Callable[[Links], None]
    amend: Callable[[Amendment], None] | None = None
    partial: bool = False


def _within(elements: IntArray, size: int) -> bool:
    return not np.size(elements) or (int(np.min(elements)) >= 0 and int(np.max(elements)) < size)


def _present(tensors: Sequence[gs.Tensor], index: int) -> gs.Tensor | None:
    return tensors[index] if index < len(tensors) and tensors[index].name else None
