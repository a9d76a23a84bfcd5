"""Single layers as models of their own, timed in turns with activations of the size that they read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, numpy_helper

from onnxpress.calibration.session import Runner
from onnxpress.calibration.timing import in_turns
from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.arrays import Array
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Use

SECONDS = 0.25
"""For each way, on each provider."""

ROUNDS = 60
_ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid"})
"""Operators that ONNX Runtime fuses into a Conv, which it cannot where an Add stands between."""


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
