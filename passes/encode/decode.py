"""Make a model whose weights are stored encoded dense again, for runtimes that do not fold constants."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.base import Pass, PassResult, Workbench
from onnxpress.passes.encode.evaluate import BATCH, decoded_weights, extract, is_decoding
from onnxpress.passes.report import Report
from onnxpress.rewriter.edits import detach, sweep, to_constant
from onnxpress.rewriter.evaluate import evaluate
from onnxpress.rewriter.functions import DECODING_DOMAIN
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.walk import nodes
from onnxpress.rewriter.weights import Dense, Produced, Values, values_of

LAZY = 1 << 20
"""Bytes from which a decoded weight is not kept, but decoded again when it is read."""


@dataclass(frozen=True, kw_only=True)
class Decode(Pass):
    """Replace every encoded weight by a dense initializer, bit for bit what it was, and drop the decoding functions.

    Sparse initializers become dense, too.

    Weights of 1 MB and more are decoded when they are read or written, so that a large model is never in memory whole.
    """

    name: ClassVar[str] = "decode"

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Decode in batches of bounded memory.

        Raises:
            ModelError: the decoding nodes are not complete, or ONNX Runtime cannot run them.
        """
        report, weights = self.report(), decoded_weights(model)
        before = model.weight_bytes()
        for batch in bench.progress.track(list(_batches(weights)), label="decode weights"):
            for weight, values in zip(batch, _values(model, batch, bench.threads), strict=True):
                detach(weight.inputs[0])
                to_constant(model.graph, weight, values)
                report.change(weight.name, "decoded", bytes_after=values.nbytes, error=0.0)
        sparse = model.sparse_weights()
        for constant in sparse:
            stored, dense = values_of(constant), _dense(values_of(constant))
            report.change(constant.name, "no longer sparse", bytes_before=stored.stored_bytes, bytes_after=dense.nbytes)
            model.replace_weight(constant, dense)
        sweep(model)
        _drop_functions(model)
        if count := len(weights) + len(sparse):
            after = model.weight_bytes()
            report.change("graph", f"{count} weights are dense", bytes_before=before, bytes_after=after)
        else:
            report.skip("graph", "no weight is encoded")
        return report


def decode(model: Model, bench: Workbench | None = None) -> PassResult:
    """A copy of `model` with all weights dense; see `Decode`."""
    return Decode()(model, bench)


def _batches(weights: Sequence[gs.Variable]) -> Iterator[list[gs.Variable]]:
    """Weights of at most BATCH bytes together; one of unknown size goes alone."""
    batch: list[gs.Variable] = []
    total = 0
    for weight in weights:
        size = _size(weight)
        if batch and total + size > BATCH:
            yield batch
            batch, total = [], 0
        batch.append(weight)
        total += size
    if batch:
        yield batch


def _size(weight: gs.Variable) -> int:
    if weight.dtype is None or weight.shape is None or not all(isinstance(d, int) for d in weight.shape):
        return BATCH
    return int(math.prod(weight.shape) * np.dtype(weight.dtype).itemsize)


def _values(model: Model, batch: Sequence[gs.Variable], threads: int | None) -> list[Values]:
    """The decoded values, of large weights as a promise."""
    arrays = evaluate(extract(model, batch), optimise=False, threads=threads)
    found: list[Values] = []
    for weight, array in zip(batch, arrays, strict=True):
        found.append(
            Dense(array) if array.nbytes < LAZY else _promise(model, weight, array.shape, array.dtype, threads)
        )
    return found


def _dense(values: Values) -> Values:
    if values.nbytes < LAZY:
        return Dense(values.load())
    return Produced(values.shape, values.dtype, values.load)


def _promise(
    model: Model, weight: gs.Variable, shape: tuple[int, ...], dtype: np.dtype, threads: int | None
) -> Produced:
    alone = extract(model, [weight])
    return Produced(shape, dtype, lambda: evaluate(alone, optimise=False, threads=threads)[0])


def _drop_functions(model: Model) -> None:
    if any(is_decoding(node) for _, node in nodes(model.graph)):
        return
    model.functions = [each for each in model.functions if each.domain != DECODING_DOMAIN]
    kept = [each for each in model.header.opset_import if each.domain != DECODING_DOMAIN]
    del model.header.opset_import[:]
    model.header.opset_import.extend(kept)
