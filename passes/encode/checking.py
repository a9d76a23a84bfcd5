"""Compares what ONNX Runtime decodes with the weights that were encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.encode.evaluate import BATCH, extract
from onnxpress.passes.encode.sparse import read_by_runtime
from onnxpress.passes.kernels.arrays import Array, bits_of
from onnxpress.rewriter.evaluate import evaluate
from onnxpress.rewriter.invariants import InvariantError
from onnxpress.rewriter.model import Model


@dataclass(slots=True)
class Checker:
    """Compares bit for bit, a batch of weights at a time."""

    model: Model
    threads: int | None
    waiting: list[tuple[gs.Tensor, Array]] = field(default_factory=list)

    def add(self, weight: gs.Tensor, array: Array) -> None:
        """Check `weight` against `array`, now or with the next ones.

        Args:
            weight: what nodes compute, or a sparse initializer.
            array: what it was.
        """
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
        sparse = [each for each in batch if isinstance(each[0], gs.Constant)]
        computed = [each for each in batch if not isinstance(each[0], gs.Constant)]
        if sparse:
            _compare(sparse, read_by_runtime([weight for weight, _ in sparse], self.threads))
        if computed:
            small = sum(array.nbytes for _, array in computed) <= BATCH
            model = extract(self.model, [weight for weight, _ in computed])
            _compare(computed, evaluate(model, optimise=small, threads=self.threads))

    def _bytes(self) -> int:
        return sum(array.nbytes for _, array in self.waiting)


def _compare(batch: Sequence[tuple[gs.Tensor, Array]], results: Sequence[Array]) -> None:
    for (weight, array), result in zip(batch, results, strict=True):
        if not _same(array, result):
            raise InvariantError(f"weight '{weight.name}' decodes to something else: a bug in encode, please report")


def _same(one: Array, other: Array) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and np.array_equal(bits_of(one), bits_of(other))
