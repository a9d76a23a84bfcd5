"""Compares what ONNX Runtime decodes with the weights that were encoded."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.encode.evaluate import BATCH, extract
from onnxpress.passes.kernels.arrays import Array, bits_of
from onnxpress.rewriter.evaluate import evaluate
from onnxpress.rewriter.invariants import InvariantError
from onnxpress.rewriter.model import Model


@dataclass(slots=True)
class Checker:
    """Compares bit for bit, a batch of weights at a time."""

    model: Model
    threads: int | None
    waiting: list[tuple[gs.Variable, Array]] = field(default_factory=list)

    def add(self, weight: gs.Variable, array: Array) -> None:
        """Check `weight` against `array`, now or with the next ones."""
        if self.waiting and self._bytes() + array.nbytes > BATCH:
            self.flush()
        self.waiting.append((weight, array))

    def flush(self) -> None:
        """Check all that wait.

        Raises:
            InvariantError: a weight comes out different.
        """
        batch, self.waiting = self.waiting, []
        if not batch:
            return
        small = sum(array.nbytes for _, array in batch) <= BATCH
        model = extract(self.model, [weight for weight, _ in batch])
        results = evaluate(model, optimise=small, threads=self.threads)
        for (weight, array), result in zip(batch, results, strict=True):
            if not _same(array, result):
                raise InvariantError(
                    f"weight '{weight.name}' decodes to something else: a bug in encode, please report"
                )

    def _bytes(self) -> int:
        return sum(array.nbytes for _, array in self.waiting)


def _same(one: Array, other: Array) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and np.array_equal(bits_of(one), bits_of(other))
