"""Chains of convolutions: which link strides, dilates and pads."""

from __future__ import annotations

from collections.abc import Callable

import onnx_graphsurgeon as gs

from onnxpress.passes.factorize.chain import Attributes

_SAME = ("SAME_UPPER", "SAME_LOWER")


def along(
    kernel: tuple[int, ...], *axes: int, group: int = 1, transposed: bool = False
) -> Callable[[gs.Node], Attributes]:
    """Attributes of a link that covers some kernel axes of the convolution it is made from.

    Padding belongs to the axis it pads, SAME too, whose amount depends on that axis alone; and zeros stay zeros under
    links without a bias. So each axis takes its own stride, dilation and padding to the link that covers it, and
    nothing is left for the others. The same holds for a ConvTranspose, whose pads cut off what it gives.

    Args:
        kernel: sides of the original.
        axes: kernel axes the link covers; of the others it sees one position.
        group: of the link.
        transposed: the link is a ConvTranspose.
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
        if transposed:
            more = attrs.get("output_padding") or [0] * rank
            result["output_padding"] = [int(more[i]) if i in axes else 0 for i in range(rank)]
            if attrs.get("output_shape"):
                automatic = attrs.get("auto_pad", "NOTSET")
                return result | {"output_shape": list(attrs["output_shape"]), "auto_pad": automatic}
        if (automatic := attrs.get("auto_pad", "NOTSET")) in _SAME and axes:
            return result | {"auto_pad": automatic}
        pads = (attrs.get("pads") if automatic == "NOTSET" else None) or [0] * 2 * rank
        return result | {"pads": [int(pads[i]) if i % rank in axes else 0 for i in range(2 * rank)]}

    return attributes
