"""Rows that a layer reads, with what it must give of them: for what their sums do not tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows of what a layer reads in the model as it is.

    Attributes:
        inputs: x, [groups, n, k].
        outputs: y, what its product must give, [n, out].
        added: what is added to the product in the model as it is, but for the bias, [n, out]; None for nothing, or
            where that is not known.
    """

    inputs: Floats
    outputs: Floats
    added: Floats | None

    def product(self, weight: NDArray[np.floating]) -> Floats:
        """What a weight [out, k] gives of them, [n, out]."""
        groups, _, k = self.inputs.shape
        return _flat(self.inputs @ weight.astype(np.float32).reshape(groups, -1, k).transpose(0, 2, 1))


class Collector:
    """Keeps the rows it is shown, of layers that read the same; every second, fourth, ... where they are too many."""

    def __init__(self, memory: int) -> None:
        """Start with none.

        Args:
            memory: bytes that what is kept takes at most, but for one part.
        """
        self._memory = memory
        self._seen, self._step = 0, 1
        self._parts: list[_Part] = []

    def add(self, inputs: Floats, outputs: Sequence[Floats], added: Sequence[Floats | None]) -> None:
        """Look at rows [groups, n, k], and of each layer at outputs, and what is added, [groups, n, its rows]."""
        numbers = np.arange(self._seen, self._seen + inputs.shape[1])
        self._seen += len(numbers)
        layers = [
            Rows(inputs, _flat(given), None if beside is None else _flat(beside))
            for given, beside in zip(outputs, added, strict=True)
        ]
        self._parts.append(_Part(numbers, inputs, layers).thinned(self._step))
        while len(self._parts) > 1 and sum(part.nbytes for part in self._parts) > self._memory:
            self._step *= 2
            self._parts = [part.thinned(self._step) for part in self._parts]

    def rows(self, layer: int) -> tuple[Rows, ...]:
        """What was kept of one of the layers."""
        return tuple(part.layers[layer] for part in self._parts if len(part.numbers))


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Rows that were shown together.

    Attributes:
        numbers: of the rows, in the order they were shown.
        inputs: [groups, n, k].
        layers: each with these inputs.
    """

    numbers: NDArray[np.int64]
    inputs: Floats
    layers: Sequence[Rows]

    def thinned(self, step: int) -> _Part:
        """Only rows whose number is a multiple of `step`; copies, so that the others are let go."""
        chosen = self.numbers % step == 0
        if chosen.all():
            return self
        inputs = self.inputs[:, chosen]
        layers = [
            Rows(inputs, each.outputs[chosen], None if each.added is None else each.added[chosen])
            for each in self.layers
        ]
        return _Part(self.numbers[chosen], inputs, layers)

    @property
    def nbytes(self) -> int:
        """All of it together."""
        own = sum(each.outputs.nbytes + (0 if each.added is None else each.added.nbytes) for each in self.layers)
        return self.inputs.nbytes + own


def _flat(parts: Floats) -> Floats:
    """Outputs of groups [groups, n, rows] side by side, [n, out]."""
    return np.ascontiguousarray(parts.transpose(1, 0, 2)).reshape(parts.shape[1], -1)
