"""How close a model's outputs are to the float model's, and how well it does its task."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from onnxpress.calibration.batches import Array, Batch
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.metrics import Comparison, Metric
from onnxpress.calibration.session import Runner

_QUANTIZED = re.compile("Quantize|QLinear|QGemm|QAttention|Integer|NBits")
"""What stands in the names of operators that read, write or multiply codes."""

_CODES = {onnx.TensorProto.DataType.Value(name) for name in ("INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2")}
"""Types of stored codes."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a model's outputs are worth.

    Attributes:
        sqnr: 10·log10(Σ r² / Σ (r − t)²) in dB by output; inf where equal.
        logits: the same of the centred logarithm, for outputs that are probabilities.
        metric: the task's own measure; None where there is none.
    """

    sqnr: dict[str, float]
    logits: dict[str, float]
    metric: float | None


@dataclass(frozen=True, slots=True)
class Judge:
    """The float model's outputs on held-out samples.

    Attributes:
        batches: whose outputs are compared.
        outputs: of the float model, one for each batch.
        feed: all samples, with labels.
        metric: the task's own measure, or none.
        threads: inside an operator.
    """

    batches: Sequence[Batch]
    outputs: Sequence[dict[str, Array]]
    feed: Feed
    metric: Metric | None
    threads: int

    @classmethod
    def of(cls, path: Path, batches: Sequence[Batch], feed: Feed, metric: Metric | None, threads: int) -> Judge:
        """Run the float model."""
        with Runner(path, threads=threads) as runner:
            return cls(batches, [runner.run(batch) for batch in batches], feed, metric, threads)

    def __call__(self, path: Path) -> Verdict:
        """Run a model.

        Raises:
            OnnxpressError: it does not load or does not run.
            ValueError: an output has another shape.
        """
        sums = {name: Comparison() for name in self.outputs[0]}
        logits = {name: Comparison() for name, array in self.outputs[0].items() if _probabilities(array)}
        with Runner(path, threads=self.threads) as runner:
            for batch, reference in zip(self.batches, self.outputs, strict=True):
                test = runner.run(batch, outputs=list(sums))
                for name, each in sums.items():
                    each.update(reference[name], test[name])
                for name, each in logits.items():
                    each.update(_logits(reference[name]), _logits(test[name]))
            metric = None if self.metric is None else self.metric(runner, self.feed)
        return Verdict(_decibels(sums), _decibels(logits), metric)


def _decibels(sums: dict[str, Comparison]) -> dict[str, float]:
    return {name: each.sqnr for name, each in sums.items()}


def _probabilities(array: Array) -> bool:
    """Whether rows look like those of a Softmax."""
    rows = array.ndim > 1 and array.shape[-1] > 1 and array.dtype.kind == "f"
    return rows and bool((array >= 0).all()) and bool(np.allclose(array.sum(axis=-1), 1, rtol=0, atol=1e-3))


def _logits(probabilities: Array) -> Array:
    """What a Softmax was given, less its mean; a sure answer hides errors from its probabilities, but not from this.

    Probabilities below 1e-7 count as that, else the least likely classes would decide.
    """
    logarithms = np.log(np.clip(probabilities, 1e-7, None))
    centred: Array = logarithms - logarithms.mean(axis=-1, keepdims=True)
    return centred


def is_quantized(path: Path) -> bool:
    """Whether a model holds codes, or operators that make them; subgraphs and functions included."""
    model = onnx.load(path, load_external_data=False)
    graphs = list(_graphs(model.graph.node))
    nodes = [*model.graph.node, *(node for graph in graphs for node in graph.node)]
    nodes += [node for function in model.functions for node in function.node]
    stored = [each for graph in (model.graph, *graphs) for each in graph.initializer]
    stored += [each.t for node in nodes if node.op_type == "Constant" for each in node.attribute if each.HasField("t")]
    return any(each.data_type in _CODES and math.prod(each.dims) > 1 for each in stored) or any(
        _QUANTIZED.search(node.op_type) for node in nodes
    )


def _graphs(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    """The subgraphs of nodes, at any depth."""
    for node in nodes:
        for attribute in node.attribute:
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield graph
                yield from _graphs(graph.node)
