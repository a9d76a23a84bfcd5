"""Attention in one node: heads are what goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.rewriter.couplings.links import Amendment, Links, Place, Rule


@dataclass(frozen=True, slots=True)
class Span:
    """Where heads lie on an axis: `heads` runs of equal width from `start` on.

    Attributes:
        place: the axis.
        heads: how many.
        width: elements of a head.
        start: the first element.
    """

    place: Place
    heads: int
    width: int
    start: int = 0


def tie_heads(links: Links, spans: list[Span]) -> None:
    """The heads of all spans go together; fewer heads (of keys and values) are shared by runs of the others."""
    most = max(spans, key=lambda span: span.heads)
    for span in spans:
        if most.heads % span.heads:
            links.refuse(f"{most.heads} heads do not share {span.heads} evenly")
            return
    for span in spans:
        element = np.arange(span.heads * span.width)
        own = element // span.width * span.width
        links.tie(span.place, span.place, at=span.start + element, to=span.start + own)
        links.call(span.place, "heads")
        shared = np.arange(most.heads) // (most.heads // span.heads)
        if span is not most:
            first = most.start + np.arange(most.heads) * most.width
            links.tie(most.place, span.place, at=first, to=span.start + shared * span.width)


def _span(links: Links, tensor: gs.Tensor | None, heads: int) -> Span | None:
    """Heads of a tensor [B, S, heads·width] or [B, heads, S, width]; None where there are none to be seen."""
    if tensor is None:
        return None
    rank = links.rank(tensor)
    if rank == 4:
        size = links.size(tensor, 1)
        return Span((tensor, 1), size, 1) if size is not None else None
    size = links.size(tensor, 2) if rank == 3 else None
    if size is None or not heads or size % heads:
        return None
    return Span((tensor, 2), heads, size // heads)


def _head_width(links: Links, span: Span) -> int | None:
    """Elements of a head, also where heads lie on an axis of their own; None where that is not fixed."""
    tensor, axis = span.place
    return links.size(tensor, 3) if axis == 1 else span.width


def _further(links: Links, tensors: Sequence[gs.Tensor | None], heads: int, *, axis: int = -3) -> list[Span]:
    """Heads of masks, biases, past and present keys, on one axis, where they do not share one for all.

    Where the size of that axis is not fixed, it may count heads, so none can go.
    """
    spans = []
    for tensor in tensors:
        if tensor is None or links.rank(tensor) < (-axis if axis < 0 else axis + 1):
            continue
        place = (tensor, axis % links.rank(tensor))
        size = links.size(*place)
        if size is None:
            links.refuse(f"it is not fixed whether '{tensor.name}' has as many heads")
        elif size == heads:
            spans.append(Span(place, heads, 1))
    return spans


def link_attention(links: Links) -> None:
    """Standard Attention: Q, K, V, mask, past key, past value -> Y, present key, present value, scores."""
    node = links.node
    counts = [int(node.attrs.get(name, 0)) for name in ("q_num_heads", "kv_num_heads", "kv_num_heads", "q_num_heads")]
    ends = [links.input(0), links.input(1), links.input(2), links.output(0)]
    found = [_span(links, tensor, heads) for tensor, heads in zip(ends, counts, strict=True)]
    spans = [span for span in found if span is not None]
    if len(spans) < len(found):
        links.refuse("its heads cannot be counted")
        return
    queries, keys = spans[0].heads, spans[1].heads
    spans += _further(links, (links.input(3), links.output(3)), queries)
    spans += _further(links, (links.input(4), links.input(5), links.output(1), links.output(2)), keys)
    tie_heads(links, spans)


def amend_attention(amendment: Amendment) -> None:
    """New numbers of heads, where attributes say them."""
    node = amendment.node
    for name, tensor in (("q_num_heads", node.inputs[0]), ("kv_num_heads", node.inputs[1])):
        _recount(amendment, name, (tensor, 2))


def _recount(amendment: Amendment, name: str, place: Place) -> None:
    """Heads are as many fewer as their axis is shorter."""
    was, size = amendment.was(place), amendment.size(place)
    heads = int(amendment.node.attrs.get(name, 0))
    if was and size and heads and amendment.kept(place) is not None:
        amendment.node.attrs[name] = heads * size // was


def link_rotary(links: Links) -> None:
    """X [B, S, heads·d] or [B, heads, S, d] -> Y; each head is turned by itself."""
    x, y = links.input(0), links.output(0)
    heads = int(links.node.attrs.get("num_heads", 0))
    before, behind = _span(links, x, heads), _span(links, y, heads)
    if before is None or behind is None:
        links.refuse("its heads cannot be counted")
        return
    tie_heads(links, [before, behind])


def amend_rotary(amendment: Amendment) -> None:
    """The new number of heads."""
    if len(amendment.shapes.shape(amendment.node.inputs[0]) or ()) == 3:
        _recount(amendment, "num_heads", (amendment.node.inputs[0], 2))


def link_fused(links: Links) -> None:
    """com.microsoft Attention: X [B, S, C], W [C, q + k + v], bias [q + k + v], … -> Y [B, S, v], present.

    Past and present [2, B, heads, P, d].
    """
    x, w, y = links.input(0), links.input(1), links.output(0)
    if x is None or w is None or y is None:
        return
    heads, widths = int(links.node.attrs.get("num_heads", 0)), _widths(links.node, links.size(w, 1))
    if widths is None or any(width % heads for width in widths):
        links.refuse("its heads cannot be counted")
        return
    links.contract((x, 2), (w, 0))
    spans = _thirds((w, 1), heads, widths)
    bias = links.input(2)
    if bias is not None:
        links.tie((bias, 0), (w, 1))
    spans.append(Span((y, 2), heads, widths[2] // heads))
    for tensor in (links.input(4), links.output(1)):
        if tensor is not None and links.size(tensor, 2) == heads:
            spans.append(Span((tensor, 2), heads, 1))
    tie_heads(links, spans + _further(links, [links.input(5)], heads))


def _widths(node: gs.Node, total: int | None) -> list[int] | None:
    """Columns of queries, keys and values."""
    said = node.attrs.get("qkv_hidden_sizes")
    if said:
        return [int(each) for each in said]
    heads = int(node.attrs.get("num_heads", 0))
    return None if total is None or not heads or total % (3 * heads) else [total // 3] * 3


def _thirds(place: Place, heads: int, widths: list[int]) -> list[Span]:
    starts = np.cumsum([0, *widths])
    return [Span(place, heads, width // heads, int(at)) for width, at in zip(widths, starts, strict=False)]


def amend_fused(amendment: Amendment) -> None:
    """The new number of heads and sizes of queries, keys and values."""
    node = amendment.node
    y = node.outputs[0]
    was, size = amendment.was((y, 2)), amendment.size((y, 2))
    if was and size and node.attrs.get("qkv_hidden_sizes"):
        node.attrs["qkv_hidden_sizes"] = [int(each) * size // was for each in node.attrs["qkv_hidden_sizes"]]
    _recount(amendment, "num_heads", (y, 2))


def link_multi_head(links: Links) -> None:
    """com.microsoft MultiHeadAttention: query, key, value [B, S, heads·d], bias [q + k + v] -> Y, presents."""
    heads = int(links.node.attrs.get("num_heads", 0))
    found = [_span(links, tensor, heads) for tensor in (*map(links.input, range(3)), links.output(0))]
    spans = [span for span in found if span is not None]
    if len(spans) < 4:
        links.refuse("queries, keys and values are packed into one tensor")
        return
    bias = links.input(3)
    if bias is not None:
        widths = [_head_width(links, span) for span in spans[:3]]
        if any(span.heads != heads for span in spans[:3]) or None in widths:
            links.refuse("its heads cannot be counted")
            return
        spans += _thirds((bias, 0), heads, [width * heads for width in widths if width is not None])
    further = [*map(links.input, (5, 6, 7)), *map(links.output, (1, 2, 3))]
    tie_heads(links, spans + _further(links, further, heads))


def amend_multi_head(amendment: Amendment) -> None:
    """The new number of heads."""
    _recount(amendment, "num_heads", (amendment.node.outputs[0], 2))


def link_grouped(links: Links) -> None:
    """com.microsoft GroupQueryAttention: query [B, S, q·d], key, value [B, S, kv·d], pasts [B, kv, P, d] -> Y."""
    queries, keys = (int(links.node.attrs.get(name, 0)) for name in ("num_heads", "kv_num_heads"))
    x, y = links.input(0), links.output(0)
    if links.input(1) is None or links.input(2) is None:
        spans = _packed(links, x, queries, keys)
    else:
        counts = (queries, keys, keys)
        found = [_span(links, links.input(index), heads) for index, heads in enumerate(counts)]
        spans = [span for span in found if span is not None]
    result = _span(links, y, queries)
    if len(spans) < 3 or result is None:
        links.refuse("its heads cannot be counted")
        return
    spans.append(result)
    if any(links.input(index) is not None for index in range(12, len(links.node.inputs))):
        links.refuse("its keys and values are quantized")
        return
    spans += _further(links, (links.input(3), links.input(4), links.output(1), links.output(2)), keys)
    spans += _further(links, [links.input(10)], queries)
    spans += _further(links, [links.input(11)], queries, axis=0)
    tie_heads(links, spans)


def _packed(links: Links, x: gs.Tensor | None, queries: int, keys: int) -> list[Span]:
    size = None if x is None else links.size(x, 2)
    if x is None or size is None or not queries or not keys or size % (queries + 2 * keys):
        return []
    width = size // (queries + 2 * keys)
    starts = (0, queries, queries + keys)
    return [Span((x, 2), heads, width, at * width) for heads, at in zip((queries, keys, keys), starts, strict=True)]


def amend_grouped(amendment: Amendment) -> None:
    """New numbers of heads; queries lose as many for each that keys lose as share one."""
    y = amendment.node.outputs[0]
    _recount(amendment, "kv_num_heads", (y, 2))
    _recount(amendment, "num_heads", (y, 2))


RULES = {
    ("", "Attention"): Rule(link_attention, amend_attention),
    ("", "RotaryEmbedding"): Rule(link_rotary, amend_rotary),
    ("com.microsoft", "RotaryEmbedding"): Rule(link_rotary, amend_rotary),
    ("com.microsoft", "Attention"): Rule(link_fused, amend_fused),
    ("com.microsoft", "MultiHeadAttention"): Rule(link_multi_head, amend_multi_head),
    ("com.microsoft", "GroupQueryAttention"): Rule(link_grouped, amend_grouped),
}
