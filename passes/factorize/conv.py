"""Convolutions as factorizations see them: which can be split, and who of a chain strides, dilates and pads."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.factorize.chain import Attributes, finite
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.sites import Site

_STANDARD = (None, "", "ai.onnx")
_SAME = ("SAME_UPPER", "SAME_LOWER")


def conv_kernel(site: Site) -> Array:
    """The kernel [out, in, *k] of a plain convolution.

    Raises:
        RefusalError: it is none, has groups, or is not finite.
    """
    if site.op != "Conv" or site.node.domain not in _STANDARD:
        raise RefusalError(f"is a weight of {site.op}; only Conv is split this way")
    for use in site.uses:
        if (groups := int(use.node.attrs.get("group", 1))) != 1:
            raise RefusalError(f"has {groups} groups; only convolutions with one group are factorized")
    return finite(site)


def wide_kernel(site: Site) -> Array:
    """The same, refused where the kernel covers one position only.

    Raises:
        RefusalError: as `conv_kernel`, or all kernel sides are 1.
    """
    kernel = conv_kernel(site)
    if math.prod(kernel.shape[2:]) == 1:
        raise RefusalError(f"has a {sides(kernel)} kernel, which is a matrix: factorize-svd splits it")
    return kernel


def sides(kernel: Array) -> str:
    """The size of a kernel, as `3x3`."""
    return "x".join(str(size) for size in kernel.shape[2:])


def strides(site: Site) -> tuple[int, ...]:
    """Strides along the kernel axes; the largest where several nodes share the kernel."""
    default = [1] * (len(site.shape) - 2)
    every = np.array([use.node.attrs.get("strides") or default for use in site.uses])
    return tuple(int(stride) for stride in every.max(axis=0))


def along(kernel: tuple[int, ...], *axes: int, group: int = 1) -> Callable[[gs.Node], Attributes]:
    """Attributes of a link that covers some kernel axes of the convolution it is made from.

    Padding belongs to the axis it pads, SAME too, whose amount depends on that axis alone; and zeros stay zeros under
    links without a bias. So each axis takes its own stride, dilation and padding to the link that covers it, and
    nothing is left for the others.

    Args:
        kernel: sides of the original.
        axes: kernel axes the link covers; of the others it sees one position.
        group: of the link.
    """

    def attributes(node: gs.Node) -> Attributes:
        rank, attrs = len(kernel), node.attrs
        strides, dilations = attrs.get("strides") or [1] * rank, attrs.get("dilations") or [1] * rank
        result: Attributes = {
            "kernel_shape": [kernel[i] if i in axes else 1 for i in range(rank)],
            "strides": [int(strides[i]) if i in axes else 1 for i in range(rank)],
            "dilations": [int(dilations[i]) if i in axes else 1 for i in range(rank)],
            "group": group,
        }
        if (automatic := attrs.get("auto_pad", "NOTSET")) in _SAME and axes:
            return result | {"auto_pad": automatic}
        pads = (attrs.get("pads") if automatic == "NOTSET" else None) or [0] * 2 * rank
        return result | {"pads": [int(pads[i]) if i % rank in axes else 0 for i in range(2 * rank)]}

    return attributes
