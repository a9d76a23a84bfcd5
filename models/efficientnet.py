"""Build EfficientNet-Lite0 as an ONNX graph from its weights, the way PyTorch's exporter writes it.

That is Pad, Conv, BatchNormalization and Clip, one after the other, where the exporter is told to fold nothing.
EfficientNet (Tan and Le, 2019, https://arxiv.org/abs/1905.11946) in its Lite form, without squeeze-and-excitation and
with ReLU6. The classes of ImageNet give way to those of another task: a linear head on the 1,280 pooled features.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxpress.calibration.batches import Array
from onnxpress.models.fetch import whole_file
from onnxpress.models.nodes import Nodes
from onnxpress.models.torchfile import read_torch

GRAPH_VERSION = 1  # in the name of the cached file, so that a mended builder builds again
SIDE = 224
"""Pixels along each side of an image."""

_EPSILON = 1e-3  # of BatchNormalization

_STAGES = ((1, 1, 1), (2, 2, 6), (2, 2, 6), (3, 2, 6), (3, 1, 6), (4, 2, 6), (1, 1, 6))
"""Blocks, stride of the first of them, and expansion; kernels and widths are as the weights have them."""


def build_file(weights: Path, head: tuple[Array, Array], target: Path) -> None:
    """Build the model from PyTorch's file and write it to `target`, whole or not at all.

    Raises:
        ModelError: the weights cannot be read.
    """
    with whole_file(target) as part:
        onnx.save(build(read_torch(weights), head), part)


def build(weights: Mapping[str, Array], head: tuple[Array, Array] | None) -> onnx.ModelProto:
    """The network as a model of opset 17.

    Input `image`, float32 [batch, 3, 224, 224]; output `logits`, float32 [batch, classes], or `features`, float32
    [batch, 1280], without a head.

    Args:
        weights: by the names PyTorch gives them, such as `_blocks.0._depthwise_conv.weight`.
        head: weight [classes, 1280] and bias [classes]; None for the features alone.
    """
    graph = _Graph(weights)
    x, side = graph.layer("image", "_conv_stem", "_bn0", side=SIDE, stride=2)
    for block, (stride, expansion) in enumerate(_blocks()):
        x, side = graph.block(x, f"_blocks.{block}", side=side, stride=stride, expansion=expansion)
    x, _ = graph.layer(x, "_conv_head", "_bn1", side=side)
    pooled = graph.add("GlobalAveragePool", [x], "/_avg_pooling/GlobalAveragePool")
    if head is None:
        graph.add("Flatten", [pooled], "/Flatten", result="features", axis=1)
        return graph.model("features", width=weights["_conv_head.weight"].shape[0])
    flat = graph.add("Flatten", [pooled], "/Flatten", axis=1)
    inputs = [flat, *(graph.constant(f"_fc.{name}", each) for name, each in zip(("weight", "bias"), head, strict=True))]
    graph.add("Gemm", inputs, "/_fc/Gemm", result="logits", transB=1)
    return graph.model("logits", width=len(head[1]))


def _blocks() -> list[tuple[int, int]]:
    """Stride and expansion of each block."""
    return [(stride if i == 0 else 1, expansion) for repeats, stride, expansion in _STAGES for i in range(repeats)]


class _Graph(Nodes):
    """The network in the making; a method adds nodes and returns the name of their result."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        super().__init__()
        self._weights = weights

    def model(self, output: str, *, width: int) -> onnx.ModelProto:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
        return self.finish([image], [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", width])])

    def block(self, x: str, at: str, *, side: int, stride: int, expansion: int) -> tuple[str, int]:
        """An inverted residual: wide, depthwise, narrow, and the input added where the shape allows it."""
        inner = x
        if expansion != 1:
            inner, _ = self.layer(x, f"{at}._expand_conv", f"{at}._bn0", side=side)
        inner, small = self.layer(inner, f"{at}._depthwise_conv", f"{at}._bn1", side=side, stride=stride)
        inner, _ = self.layer(inner, f"{at}._project_conv", f"{at}._bn2", side=small, active=False)
        into = self._weights[f"{at}._depthwise_conv.weight"].shape[0] // expansion
        if stride == 1 and into == self._weights[f"{at}._project_conv.weight"].shape[0]:
            inner = self.add("Add", [inner, x], f"{_path(at)}/Add")
        return inner, small

    def layer(
        self, x: str, conv: str, norm: str, *, side: int, stride: int = 1, active: bool = True
    ) -> tuple[str, int]:
        """Padding as TensorFlow's SAME, convolution, batch normalisation and ReLU6; gives the new side, too."""
        weight = self._weights[f"{conv}.weight"]
        kernel, out = weight.shape[2], -(-side // stride)
        missing = max((out - 1) * stride + kernel - side, 0)
        if missing:
            ends = [0, 0, missing // 2, missing // 2, 0, 0, missing - missing // 2, missing - missing // 2]
            pads = self.constant(f"/Pads_{missing}", np.array(ends, np.int64))
            x = self.add("Pad", [x, pads, self._scalar(0.0)], f"{_path(conv)}/static_padding/Pad", mode="constant")
        group = weight.shape[0] if weight.shape[1] == 1 else 1
        inputs = [x, self.constant(f"{conv}.weight", weight)]
        kernels, strides = [kernel, kernel], [stride, stride]
        x = self.add("Conv", inputs, f"{_path(conv)}/Conv", group=group, kernel_shape=kernels, strides=strides)
        names = [f"{norm}.{each}" for each in ("weight", "bias", "running_mean", "running_var")]
        statistics = [self.constant(name, self._weights[name]) for name in names]
        x = self.add("BatchNormalization", [x, *statistics], f"{_path(norm)}/BatchNormalization", epsilon=_EPSILON)
        if active:
            x = self.add("Clip", [x, self._scalar(0.0), self._scalar(6.0)], f"{_path(norm)}/Clip")
        return x, out

    def _scalar(self, value: float) -> str:
        return self.constant(f"/Scalar_{value:g}", np.array(value, np.float32))


def _path(name: str) -> str:
    """A module's dotted name the way the exporter writes it in front of its nodes."""
    return "/" + name.replace("_blocks.", "_blocks#").replace(".", "/").replace("#", ".")
