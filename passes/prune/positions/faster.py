"""Which way to write a convolution is fastest, measured one node at a time on activations of the size it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, numpy_helper

from onnxpress.calibration.session import Runner
from onnxpress.calibration.stream import observe
from onnxpress.calibration.timing import in_turns
from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.prune.positions.products import Product
from onnxpress.passes.prune.positions.windows import Spatial
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.errors import FeedError, ModelError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import Shape, infer_shapes
from onnxpress.rewriter.sites import Use, find_sites

SECONDS = 0.25
"""For each way, on each provider."""

ROUNDS = 60
_ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid"})
"""Operators that ONNX Runtime fuses into a Conv, which it cannot where an Add stands between."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a convolution reads.

    Attributes:
        shape: of a sample.
        spatial: sizes behind batch and channels that are the same for every sample; None for others.
    """

    shape: tuple[int, ...]
    spatial: Spatial


@dataclass(frozen=True, slots=True)
class Measured:
    """How fast one way is beside the dense convolution.

    Attributes:
        product: the way.
        speedup: median of the rounds' ratios.
        sure: at least three of four rounds were faster.
    """

    product: Product
    speedup: float
    sure: bool


@dataclass(slots=True)
class Stopwatch:
    """Times products in the place of a convolution; of equal convolutions only the first.

    Attributes:
        bench: providers and threads; of several providers the slowest counts.
        domains: versions of operators, by domain, as the model has them.
        measured: the best way, or why there is none, by what was asked.
    """

    bench: Workbench
    domains: Mapping[str, int]
    measured: dict[tuple[object, ...], Measured | RefusalError] = field(default_factory=dict)

    def best(self, use: Use, weight: Array, products: Sequence[Product], seen: Seen) -> Measured:
        """The fastest of some ways.

        Args:
            use: the convolution.
            weight: as it is now, [out, in/groups, *kernel], with zeros.
            products: ways to write it, at least one.
            seen: the shape of its input.

        Raises:
            RefusalError: none of them can be written here.
        """
        kept = (weight != 0).any(axis=0)
        key = (repr(sorted(use.node.attrs.items())), weight.shape, str(weight.dtype), seen, kept.tobytes())
        if key not in self.measured:
            try:
                self.measured[key] = self._measure(use, weight, products, seen)
            except RefusalError as refusal:
                self.measured[key] = refusal
        found = self.measured[key]
        if isinstance(found, RefusalError):
            raise found
        return found

    def _measure(self, use: Use, weight: Array, products: Sequence[Product], seen: Seen) -> Measured:
        dense = alone(use, weight, seen.shape, self.domains)
        models, written, refusals = [dense], [], []
        for product in products:
            copy = dense.clone()
            constants = [copy.add_weight("part", each) for each in product.weights(weight)]
            try:
                product.write(copy, find_sites(copy)[0].uses[0], constants, seen.spatial)
            except RefusalError as refusal:
                refusals.append(refusal)
                continue
            sweep(copy)
            models.append(copy)
            written.append(product)
        if not written:
            raise refusals[0]
        try:
            slowest, lowest = speedups(models, seen.shape, weight.dtype, self.bench)
        except (ModelError, FeedError) as error:  # some types and sizes no provider can run
            raise RefusalError(f"nothing could be timed: {error}") from error
        best = int(np.argmax(slowest))
        return Measured(written[best], float(slowest[best]), bool(lowest[best] > 1))


def speedups(
    models: Sequence[Model], shape: tuple[int, ...], dtype: np.dtype[Any], bench: Workbench
) -> tuple[Array, Array]:
    """How fast models are beside the first of them, timed in turns; of several providers the slowest counts.

    Args:
        models: of one input `x` each, two or more.
        shape: of the input.
        dtype: of the input.
        bench: brings providers, threads and the seed.

    Returns:
        Median and lower quartile of the rounds' ratios, for each model but the first.

    Raises:
        ModelError: a model cannot be run.
        FeedError: it does not take such an input.
    """
    times = [timed(models, shape, dtype, provider, bench) for provider in bench.providers]
    ratios = [each[:, :1] / each[:, 1:] for each in times]
    slowest = np.min([np.median(each, axis=0) for each in ratios], axis=0)
    return slowest, np.min([np.quantile(each, 0.25, axis=0) for each in ratios], axis=0)


def timed(
    models: Sequence[Model],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    provider: str,
    bench: Workbench,
    *,
    seconds: float = SECONDS,
) -> Array:
    """Seconds of models of one input `x` each, timed in turns, [rounds, models].

    Args:
        models: what is timed.
        shape: of the input.
        dtype: of the input.
        provider: that runs them.
        bench: brings threads and the seed.
        seconds: after which no new round starts, for each model.

    Raises:
        ModelError: a model cannot be run.
        FeedError: it does not take such an input.
    """
    sample = np.random.default_rng(bench.seed).standard_normal(shape).astype(dtype)
    with ExitStack() as stack:
        runners = [
            stack.enter_context(
                Runner(model.to_proto().SerializeToString(), providers=[provider], threads=bench.threads)
            )
            for model in models
        ]
        return in_turns(runners, [{"x": sample}], seconds=seconds * len(models), rounds=ROUNDS)


def shapes_seen(model: Model, tensors: Sequence[gs.Tensor], bench: Workbench) -> list[Seen | None]:
    """The shapes of activations of the main graph: as inferred, else as a first batch of samples shows.

    Where there are no samples, an unknown number of them is taken for 1.

    Returns:
        For each tensor; None where nobody can tell.
    """
    inferred = infer_shapes(model)
    known = [inferred.shape(tensor) for tensor in tensors]
    open_ones = [tensor for tensor, shape in zip(tensors, known, strict=True) if shape is None or not _fixed(shape[1:])]
    shown = shown_shapes(model, [str(each.name) for each in open_ones], bench)
    return [_seen(shape, shown.get(str(tensor.name))) for tensor, shape in zip(tensors, known, strict=True)]


class _Shape:
    """Keeps the shape of what it is shown."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.shape: tuple[int, ...] | None = None

    def update(self, array: Array, /) -> None:
        """Look at one batch."""
        self.shape = array.shape

    def merge(self, other: Self, /) -> None:
        """Take the other's where there is none yet."""
        self.shape = self.shape or other.shape

    def state(self) -> dict[str, Array]:
        """The shape."""
        return {"shape": np.array(self.shape or (), np.int64)}


def shown_shapes(model: Model, tensors: Sequence[str], bench: Workbench) -> dict[str, tuple[int, ...]]:
    """Shapes in the first batch of samples."""
    if bench.feed is None or not tensors:
        return {}
    observers = {name: _Shape() for name in tensors}
    first = list(islice(bench.feed, 1))
    observe(model, observers, first, providers=bench.providers, threads=bench.threads)
    return {name: each.shape for name, each in observers.items() if each.shape is not None}


def _fixed(sizes: Sequence[int | str | None]) -> bool:
    return all(isinstance(size, int) for size in sizes)


def _seen(shape: Shape | None, shown: tuple[int, ...] | None) -> Seen | None:
    if shape is None:
        return None if shown is None else Seen(shown, (None,) * (len(shown) - 2))
    spatial = tuple(size if isinstance(size, int) else None for size in shape[2:])
    if shown is not None:
        return Seen(shown, spatial)
    first = shape[0] if isinstance(shape[0], int) else 1
    sizes = tuple(size for size in shape[1:] if isinstance(size, int))
    return Seen((first, *sizes), spatial) if len(sizes) == len(shape) - 1 else None


def alone(use: Use, weight: Array, shape: tuple[int, ...], domains: Mapping[str, int]) -> Model:
    """A model of one layer: it reads `x` beside its weight and a bias of zeros, and ends in the activation behind it.

    Args:
        use: the layer.
        weight: that it gets.
        shape: of `x`.
        domains: versions of operators, by domain.
    """
    element = helper.np_dtype_to_tensor_dtype(weight.dtype)
    tensors = [numpy_helper.from_array(np.ascontiguousarray(weight), "w")]
    names = ["x", "w"] if use.index else ["w", "x"]
    bias = use.node.inputs[2] if len(use.node.inputs) > 2 else None
    if bias is not None and bias.name:
        size = bias.shape if isinstance(bias, gs.Constant) else (len(weight),)
        tensors.append(numpy_helper.from_array(np.zeros(size, weight.dtype), "b"))
        names.append("b")
    attrs = {key: value for key, value in use.node.attrs.items() if value is not None}
    nodes = [helper.make_node(use.node.op, names, ["t"], name="layer", domain=use.node.domain or "", **attrs)]
    nodes.append(helper.make_node("Relu" if _activated(use.node) else "Identity", ["t"], ["y"]))
    ends = [helper.make_tensor_value_info("x", element, shape), helper.make_tensor_value_info("y", element, None)]
    graph = helper.make_graph(nodes, "alone", ends[:1], ends[1:], tensors)
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    ir = helper.find_min_ir_version_for(opsets, ignore_unknown=True)
    return Model.from_proto(
        helper.make_model(graph, ir_version=max(ir, onnx.IR_VERSION_2019_9_19), opset_imports=opsets)
    )


def _activated(node: gs.Node) -> bool:
    readers = node.outputs[0].outputs
    return len(readers) == 1 and readers[0].op in _ACTIVATIONS
