"""Build CharNet as an ONNX graph from its committed weights, the way PyTorch's exporter writes it.

The network reads one character out of 24 x 24 pixels by four layers of convolution and maxout (Goodfellow et al., 2013,
https://arxiv.org/abs/1302.4389). Jaderberg et al. (2014, https://arxiv.org/abs/1405.3866) and Lebedev et al. (2015,
https://arxiv.org/abs/1412.6553) made a network of this shape faster by low ranks.

The weights are committed as whole multiples of one step for each filter, which `numpy.load` unpacks: 1.9 MB for 2.6
million of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxpress.calibration.batches import Array
from onnxpress.models.fetch import FetchError, cache_folder, whole_file
from onnxpress.models.nodes import Nodes

GRAPH_VERSION = 1  # in the name of the cached file, so that a mended builder builds again
SIDE = 24  # pixels of an image each way
_PIECES = (2, 2, 4, 4)  # of maxout, behind each layer
_COMMITTED = Path(__file__).parent / "charnet.npz"


def cached(cache: Path | None) -> Path:
    """The model file, built into the cache where it is not there yet.

    Raises:
        FetchError: the cache cannot be written.
    """
    target = cache_folder(cache) / f"charnet-graph{GRAPH_VERSION}.onnx"
    if target.is_file():
        return target
    try:
        with whole_file(target) as part:
            onnx.save(build(weights()), part)
    except OSError as error:
        raise FetchError(f"cannot store charnet in the cache: {error}; name another cache folder") from error
    return target


def weights() -> dict[str, Array]:
    """The committed weights: `weight1` to `weight4` float32 [out, in, k, k], `bias1` to `bias4` float32 [out]."""
    found: dict[str, Array] = {}
    with np.load(_COMMITTED, allow_pickle=False) as arrays:
        for layer in range(1, len(_PIECES) + 1):
            # codes int8 [out, in, k, k], steps float32 [out]
            found[f"weight{layer}"] = arrays[f"codes{layer}"] * arrays[f"steps{layer}"][:, None, None, None]
            found[f"bias{layer}"] = arrays[f"bias{layer}"]
    return found


def build(given: Mapping[str, Array]) -> onnx.ModelProto:
    """The network as a model of opset 17: input `image` float32 [n, 1, 24, 24], output `logits` float32 [n, classes].

    Maxout over p pieces takes, of p equal parts of the channels, the largest value at each place.

    Args:
        given: as `weights` gives them.
    """
    nodes, x = Nodes(), "image"
    for layer, pieces in enumerate(_PIECES, 1):
        weight = given[f"weight{layer}"]
        read = [x, nodes.constant(f"weight{layer}", weight), nodes.constant(f"bias{layer}", given[f"bias{layer}"])]
        x = nodes.add("Conv", read, f"/conv{layer}/Conv", kernel_shape=weight.shape[2:], strides=[1, 1])
        x = _maxout(nodes, x, f"/maxout{layer}", pieces)
    nodes.add("Flatten", [x], "/Flatten", result="logits", axis=1)
    classes = len(given[f"bias{len(_PIECES)}"]) // _PIECES[-1]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, SIDE, SIDE])
    return nodes.finish([image], [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes])])


def _maxout(nodes: Nodes, x: str, at: str, pieces: int) -> str:
    """The largest of equal parts of axis 1, whose bounds the exporter leaves to be computed from the shape."""

    def number(value: int, *, wide: bool = False) -> str:
        return nodes.constant(f"{'numbers' if wide else 'number'}_{value}", np.array([value] if wide else value))

    def bound(k: int) -> str:
        """Where part `k` begins, int64 [1]."""
        start = nodes.add("Mul", [part, number(k)], f"{at}/Mul_{k}")
        return nodes.add("Unsqueeze", [start, number(0, wide=True)], f"{at}/Unsqueeze_{k}")

    shape = nodes.add("Shape", [x], f"{at}/Shape")
    width = nodes.add("Gather", [shape, number(1)], f"{at}/Gather", axis=0)
    part = nodes.add("Div", [width, number(pieces)], f"{at}/Div")
    axis, most, begin = number(1, wide=True), "", bound(0)
    for k in range(pieces):
        end = bound(k + 1)
        piece = nodes.add("Slice", [x, begin, end, axis, axis], f"{at}/Slice_{k}")
        most, begin = nodes.add("Max", [most, piece], f"{at}/Max_{k}") if most else piece, end
    return most
