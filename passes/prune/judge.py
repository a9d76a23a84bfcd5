"""How much worse the outputs of a model get: judged before a Softmax or Sigmoid, where a sure answer hides it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.calibration.batches import Array
from onnxpress.calibration.metrics import Comparison
from onnxpress.rewriter.model import Model

BATCHES = 8
"""Batches of samples by which outputs are judged at most: each of them is run once for every trial."""

ROWS = 16
"""Samples that are enough, so that a few large batches do."""

_SHIFTED = ("Softmax", "LogSoftmax")
_BOUNDED = ("Sigmoid", "HardSigmoid", "ArgMax", "Identity", *_SHIFTED)
"""Last nodes before which noise is measured: behind them a sure answer hides it."""


@dataclass(frozen=True, slots=True)
class End:
    """Where noise is measured for one output.

    Attributes:
        name: of the tensor.
        depth: nodes that lie between it and the output.
        axis: along which a mean makes no difference; None where it does.
        onward: whether the mean is one over that axis and all behind it, as a Softmax before opset 13 takes it.
    """

    name: str
    depth: int
    axis: int | None
    onward: bool = False


def find_end(model: Model, output: gs.Tensor) -> End:
    """Go back from an output to what is judged."""
    tensor, depth, axis = output, 0, None
    while isinstance(tensor, gs.Variable) and tensor.inputs and tensor.inputs[0].op in _BOUNDED:
        node = tensor.inputs[0]
        if node.op in _SHIFTED:
            axis = int(node.attrs.get("axis", -1 if model.opset >= 13 else 1))
        elif node.op != "Identity":  # behind it a Softmax does not see the mean of what it reads
            axis = None
        tensor, depth = node.inputs[0], depth + 1
    return End(str(tensor.name), depth, axis, onward=model.opset < 13)


def expose(model: Model, output: gs.Tensor, depth: int) -> str:
    """Make the tensor some nodes before an output one, too; gives its name."""
    tensor = output
    for _ in range(depth):
        tensor = tensor.inputs[0].inputs[0]
    if all(each is not tensor for each in model.graph.outputs):
        model.graph.outputs.append(tensor)
    return str(tensor.name)


class Judge:
    """Knows the outputs that a model gave for some samples, and says how far others are from them.

    Where an output comes from a Softmax, a Sigmoid or the like, what that reads is judged; of a Softmax without the
    mean, which makes no difference. Only floating-point numbers are judged.
    """

    def __init__(self, model: Model) -> None:
        """Find what is judged, and make it outputs of the model."""
        outputs = list(model.graph.outputs)
        self._ends = [find_end(model, each) for each in outputs]
        for each, end in zip(outputs, self._ends, strict=True):
            expose(model, each, end.depth)
        self._references: list[dict[str, Array]] = []

    @property
    def outputs(self) -> list[str]:
        """Names of what has to be computed."""
        return list(dict.fromkeys(end.name for end in self._ends))

    @property
    def useful(self) -> bool:
        """Whether something was given that can get a little worse."""
        return any(self._references)

    def learn(self, given: Mapping[str, Array]) -> None:
        """Take in what the model gives for the next batch of samples."""
        self._references.append(self._judged(given))

    def expose(self, model: Model) -> dict[str, str]:
        """Make what is judged outputs of a later version of the model; its names there, by those here."""
        pairs = zip(list(model.graph.outputs), self._ends, strict=True)
        return {end.name: expose(model, output, end.depth) for output, end in pairs}

    def noise(self, outputs: Iterable[Mapping[str, Array]]) -> float:
        """The greatest Σ(y − y')² / Σy² of any output; inf for no number, another shape, or noise where all was zero.

        Args:
            outputs: for every batch, in the order in which they were learned.
        """
        sums: dict[str, Comparison] = {}
        for given, reference in zip(outputs, self._references, strict=True):
            found = self._judged(given)
            for name, values in reference.items():
                if found[name].shape != values.shape:  # of detections there may be more or fewer
                    return math.inf
                sums.setdefault(name, Comparison()).update(values, found[name])
        return max(map(_relative, sums.values()), default=0.0)

    def _judged(self, given: Mapping[str, Array]) -> dict[str, Array]:
        floats = {name: given[name] for name in self.outputs if given[name].dtype.kind == "f"}
        for end in self._ends:
            if end.axis is not None and end.name in floats:
                floats[end.name] = _centred(given[end.name], end.axis, onward=end.onward)
        return floats


def _centred(values: Array, axis: int, *, onward: bool) -> Array:
    """Values without their mean; of what is masked by −inf, those that are left."""
    axes = tuple(range(axis % values.ndim, values.ndim)) if onward else (axis,)
    finite = np.isfinite(values)
    total = np.where(finite, values, 0).sum(axis=axes, keepdims=True, dtype=np.float64)
    return np.asarray(values - total / np.maximum(finite.sum(axis=axes, keepdims=True), 1))


def _relative(sums: Comparison) -> float:
    if sums.unlike or not math.isfinite(sums.noise):
        return math.inf
    if sums.noise == 0:
        return 0.0
    return sums.noise / sums.signal if sums.signal else math.inf
