"""LSTM, GRU, RNN: one hidden size over all gates, directions, states and outputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxpress.rewriter.couplings.links import Amendment, Links, Place, Rule

WIDE: Mapping[int, int] = {1: 1, 2: 1, 3: 1, 7: 1}
"""Inputs that hold one row for each gate and hidden unit, and that axis: W, R, B, P."""


def link_recurrent(links: Links) -> None:
    """X [T, B, I], W [D, G·H, I], R [D, G·H, H], B [D, 2·G·H], P [D, 3·H], states [D, B, H] -> Y [T, D, B, H], states.

    Gates (G) and directions (D) share the hidden units (H). With `layout` 1 the batch comes first, states end with
    H all the same.
    """
    x, w, r = links.input(0), links.input(1), links.input(2)
    if x is None or w is None or r is None:
        return
    hidden = links.size(r, 2)
    if hidden is None:
        links.refuse("its hidden size is not fixed")
        return
    links.contract((x, 2), (w, 2))
    links.leave((r, 2))
    links.call((r, 2), "hidden")
    for index, axis in WIDE.items():
        tensor = links.input(index)
        if tensor is not None:
            _tie_rows(links, (tensor, axis), (r, 2), hidden=hidden)
    for state in [links.input(5), links.input(6), *links.node.outputs]:
        if state is not None and state.name:
            links.tie((state, links.rank(state) - 1), (r, 2))
    for index in (1, 2, 3, 7):
        tensor = links.input(index)
        if tensor is not None:
            links.tie((tensor, 0), (r, 0))
    links.keep((r, 0), f"{links.title} keeps its directions")


def _tie_rows(links: Links, rows: Place, hidden_place: Place, *, hidden: int) -> None:
    size = links.size(*rows)
    if size is None:
        links.refuse(f"the size of '{rows[0].name}' is not fixed")
        return
    links.tie(rows, hidden_place, at=np.arange(size), to=np.arange(size) % hidden)


def amend_recurrent(amendment: Amendment) -> None:
    """The new hidden size."""
    size = amendment.size((amendment.node.inputs[2], 2))
    if size is not None and "hidden_size" in amendment.node.attrs:
        amendment.node.attrs["hidden_size"] = size


def link_quantized(links: Links) -> None:
    """Weights of DynamicQuantizeLSTM are codes with scales."""
    links.refuse("its weights are quantized: prune the float model before it is quantized")


RULES = {
    **{("", op): Rule(link_recurrent, amend_recurrent) for op in ("LSTM", "GRU", "RNN")},
    ("com.microsoft", "DynamicQuantizeLSTM"): Rule(link_quantized, partial=True),
}
