"""What recurrent layers read, narrowed by a product in front of them.

W·x of all steps is L·(R·x): one product x·Rᵀ for the whole sequence, and a layer that reads its few outputs with L for
its weight. Both directions read the same product: two of half its width, one for each, would take as much and could do
less. What else the layer does, its gates, its state, its order in time, is as it was.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.factorize.chain import Attributes, Link
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.rewriter.sites import Site

RECURRENT = ("LSTM", "GRU", "RNN")

_INPUTS = 1
"""Index of the weight that multiplies what the layer reads; the next one multiplies its state."""


def recurrent_links(layout: Layout, suffixes: Sequence[str], matrices: Sequence[Array]) -> tuple[Link, ...]:
    """The products in front, and the layer.

    Args:
        layout: of the weight [directions, gates·hidden, in] that they replace.
        suffixes: of their names.
        matrices: [out, in] each; their product, from the last to the first, is the weight as
            [directions·gates·hidden, in].
    """
    *before, (suffix, last) = zip(suffixes, matrices, strict=True)
    links = [Link(name, np.ascontiguousarray(each.T), op="MatMul") for name, each in before]
    directions, outputs, _ = layout.shape
    return (*links, Link(suffix, last.reshape(directions, outputs, -1), _kept))


def _kept(node: gs.Node) -> Attributes:
    return dict(node.attrs)


def refuse_state(site: Site) -> None:
    """Refuse the weight that multiplies the state.

    Raises:
        RefusalError: it does.
    """
    if any(use.index != _INPUTS for use in site.uses):
        raise RefusalError(
            f"multiplies the state within {site.op}, where no other layer can stand: only what it reads is narrowed"
        )
