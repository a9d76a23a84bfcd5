"""What is computed inside the graph for an observer, so that the tensor itself does not leave ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxpress.calibration.batches import Array
from onnxpress.calibration.observers.base import Observer, Reducible, Reduction, Sample, Wish
from onnxpress.calibration.observers.spacing import clear_step, known_sizes

# onnx is imported where it is used: importing onnxpress stays light.
if TYPE_CHECKING:
    import onnx

BYTES: Mapping[str, int] = {"float": 4, "double": 8, "float16": 2, "int32": 4, "int64": 8, "int8": 1, "uint8": 1}
"""Element types that ONNX Runtime reduces, and their sizes."""

_FLOATS = frozenset({"float", "double", "float16"})

_STEPS = 512
"""Steps that are worked out beforehand; a tensor for which they are too small is sampled more densely."""

_SAMPLED = 12
"""The first opset whose Slice takes a step, and whose Min takes integers."""

_END = 2**62


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as ONNX Runtime infers it.

    Attributes:
        name: in the main graph.
        element: `float`; other types than tensors in full.
        shape: sizes, names, or None for a dimension; None where even the rank is unknown.
    """

    name: str
    element: str
    shape: tuple[int | str | None, ...] | None

    @property
    def rank(self) -> int | None:
        """Number of axes; None for unknown ones and scalars, which look the same."""
        return None if self.shape is None else len(self.shape)

    def bytes_for(self, dims: Mapping[str, int]) -> int | None:
        """Its bytes where named dimensions have known sizes; None where that does not tell."""
        if self.shape is None:
            return None
        sizes = [dims.get(dim) if isinstance(dim, str) else dim for dim in self.shape]
        known = [size for size in sizes if size is not None]
        return math.prod(known) * BYTES.get(self.element, 8) if len(known) == len(sizes) else None

    @property
    def is_float(self) -> bool:
        """Whether it holds floats that NumPy knows."""
        return self.element in _FLOATS


@dataclass(frozen=True, slots=True)
class Lane:
    """One tensor, reduced in the graph to a few small outputs.

    Attributes:
        tensor: what is looked at.
        observer: who gets the outputs.
        wishes: of the observer.
        prefix: of the names of all that is added.
    """

    tensor: Tensor
    observer: Reducible
    wishes: tuple[Wish, ...]
    prefix: str

    @property
    def outputs(self) -> list[str]:
        """Names of the results; of floats, last the mean, which is not finite if any entry is not.

        A minimum or maximum may lose a NaN, depending on the vector width.
        """
        return [name for wish, prefix in self._all for name in _outputs(wish, prefix)]

    @property
    def _all(self) -> list[tuple[Wish, str]]:
        every = self.wishes + (Reduction("ReduceMean"),) * self.tensor.is_float
        return [(wish, f"{self.prefix}/{position}") for position, wish in enumerate(every)]

    def nodes(self, opset: int) -> list[onnx.NodeProto]:
        """What computes the outputs."""
        found: list[onnx.NodeProto] = []
        for wish, prefix in self._all:
            if isinstance(wish, Sample):
                found += _sample(wish, self.tensor, prefix)
            else:
                found += _reduce(wish, self.tensor.name, prefix, opset)
        return found

    def update(self, values: Mapping[str, Array]) -> bool:
        """Show one batch; False, with nothing shown, where an entry is not finite."""
        found = [values[output] for output in self.outputs]
        if not all(np.isfinite(value).all() for value in found):
            return False
        self.observer.update_reduced(found[: len(found) - self.tensor.is_float])
        return True


def lanes(tensors: Sequence[Tensor], observers: Mapping[str, Observer], *, prefix: str, opset: int) -> Iterator[Lane]:
    """A lane for each tensor whose observer is content with one."""
    for position, tensor in enumerate(tensors):
        observer = observers[tensor.name]
        if isinstance(observer, Reducible) and tensor.element in BYTES:
            wishes = tuple(observer.reductions(tensor.rank))
            known = opset >= _SAMPLED or not any(isinstance(wish, Sample) for wish in wishes)
            if wishes and known:
                yield Lane(tensor, observer, wishes, f"{prefix}/{position}")


def _outputs(wish: Wish, prefix: str) -> list[str]:
    return [f"{prefix}/{what}" for what in ("shape", "step", "sample")] if isinstance(wish, Sample) else [prefix]


def _reduce(reduction: Reduction, tensor: str, output: str, opset: int) -> list[onnx.NodeProto]:
    """Nodes of one reduction; its axes were an attribute up to opset 17, an input after that."""
    from onnx import helper

    if reduction.axes is None:
        return [helper.make_node(reduction.op, [tensor], [output], keepdims=0)]
    if opset < 18:
        return [helper.make_node(reduction.op, [tensor], [output], keepdims=0, axes=reduction.axes)]
    axes = helper.make_node("Constant", [], [f"{output}/axes"], value_ints=reduction.axes)
    return [axes, helper.make_node(reduction.op, [tensor, f"{output}/axes"], [output], keepdims=0)]


def _sample(sample: Sample, tensor: Tensor, prefix: str) -> list[onnx.NodeProto]:
    """Nodes that take every step-th entry; the step stands in a table, by how often `entries` go into the tensor."""
    from onnx import helper, numpy_helper

    sizes, complete = known_sizes(tensor.shape)
    table = np.array([clear_step(least, sizes, prime=not complete) for least in range(_STEPS)], np.int64)
    constants = {"table": table, "entries": [sample.entries], "last": [_STEPS - 1], "zero": [0], "all": [-1]}
    constants["end"] = [_END]
    made = {name: numpy_helper.from_array(np.asarray(value, np.int64)) for name, value in constants.items()}
    nodes = [helper.make_node("Constant", [], [f"{prefix}/{name}"], value=value) for name, value in made.items()]

    def add(op: str, inputs: str, output: str) -> None:
        names = [tensor.name if name == "x" else f"{prefix}/{name}" for name in inputs.split()]
        nodes.append(helper.make_node(op, names, [f"{prefix}/{output}"]))

    add("Shape", "x", "shape")
    add("Size", "x", "size")
    add("Div", "size entries", "times")
    add("Min", "times last", "place")
    add("Gather", "table place", "step")
    add("Reshape", "x all", "flat")
    add("Slice", "flat zero end zero step", "sample")
    return nodes
