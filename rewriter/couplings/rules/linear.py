"""Sums of products: convolutions, matrix products, Einsum."""

from __future__ import annotations

import string

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.rewriter.couplings.links import Amendment, Links, Place, Rule


def link_conv(links: Links) -> None:
    """X [N, C, …], W [O, C/g, …], B [O] -> Y [N, O, …]."""
    x, w, b, y = links.input(0), links.input(1), links.input(2), links.output(0)
    if x is None or w is None or y is None:
        return
    links.tie((x, 0), (y, 0))
    links.tie((w, 0), (y, 1))
    if b is not None:
        links.tie((b, 0), (w, 0))
    groups, rows, columns = _groups(links.node), links.size(w, 0), links.size(w, 1)
    if groups == 1:
        links.contract((x, 1), (w, 1))
    elif rows is None or columns is None:
        links.refuse("the size of its weight is not fixed")
    elif groups >= columns:
        _tie_groups(links, (x, y), groups=groups, sizes=(columns * groups, rows))
        links.keep((w, 1), f"{links.title} can lose whole groups, not channels within them")
    else:
        every = np.arange(columns * groups)
        links.contract((x, 1), (w, 1), at=every, to=every % columns)
        links.unite((w, 0), np.arange(rows) % (rows // groups))


def link_conv_transpose(links: Links) -> None:
    """X [N, C, …], W [C, O/g, …], B [O] -> Y [N, O, …]."""
    x, w, b, y = links.input(0), links.input(1), links.input(2), links.output(0)
    if x is None or w is None or y is None:
        return
    links.tie((x, 0), (y, 0))
    links.contract((x, 1), (w, 0))
    if b is not None:
        links.tie((b, 0), (y, 1))
    groups, rows, columns = _groups(links.node), links.size(w, 0), links.size(w, 1)
    if groups == 1:
        links.tie((w, 1), (y, 1))
    elif rows is None or columns is None:
        links.refuse("the size of its weight is not fixed")
    elif groups >= rows // groups:
        _tie_groups(links, (x, y), groups=groups, sizes=(rows, columns * groups))
        links.keep((w, 1), f"{links.title} can lose whole groups, not channels within them")
    else:
        every = np.arange(columns * groups)
        links.tie((y, 1), (w, 1), at=every, to=every % columns)
        links.unite((w, 0), np.arange(rows) % (rows // groups))


def amend_conv(amendment: Amendment) -> None:
    """The number of groups that are left, where whole groups go."""
    node, y = amendment.node, amendment.node.outputs[0]
    groups, was, size = _groups(node), amendment.was((y, 1)), amendment.size((y, 1))
    read = amendment.was((node.inputs[1], 0 if node.op == "ConvTranspose" else 1))
    if groups == 1 or was is None or size is None or read is None:
        return
    if groups >= (read // groups if node.op == "ConvTranspose" else read):
        node.attrs["group"] = size * groups // was


def _groups(node: gs.Node) -> int:
    return int(node.attrs.get("group", 1))


def _tie_groups(links: Links, ends: tuple[gs.Tensor, gs.Tensor], *, groups: int, sizes: tuple[int, int]) -> None:
    """Channels of a group, before and behind the convolution, go together."""
    x, y = ends
    if (links.size(x, 1), links.size(y, 1)) != sizes:
        links.refuse("the number of its channels is not fixed")
        return
    before, behind = (size // groups for size in sizes)
    links.unite((x, 1), np.arange(sizes[0]) // before)
    links.unite((y, 1), np.arange(sizes[1]) // behind)
    links.tie((x, 1), (y, 1), at=np.arange(groups) * before, to=np.arange(groups) * behind)


def link_gemm(links: Links) -> None:
    """A [M, K] · B [K, N], either transposed, + C, broadcast -> Y [M, N]."""
    a, b, c, y = links.input(0), links.input(1), links.input(2), links.output(0)
    if a is None or b is None or y is None:
        return
    left, right = int(bool(links.node.attrs.get("transA", 0))), int(bool(links.node.attrs.get("transB", 0)))
    links.contract((a, 1 - left), (b, right))
    links.tie((a, left), (y, 0))
    links.tie((b, 1 - right), (y, 1))
    if c is not None:
        for axis in range(links.rank(c)):
            links.broadcast([(c, axis)], (y, axis + 2 - links.rank(c)))


def link_matmul(links: Links) -> None:
    """A […, M, K] · B […, K, N] -> Y […, M, N], as NumPy does it: vectors too, and the axes before broadcast."""
    a, b, y = links.input(0), links.input(1), links.output(0)
    if a is None or b is None or y is None:
        return
    left, right, rank = links.rank(a), links.rank(b), links.rank(y)
    links.contract((a, left - 1), (b, max(right - 2, 0)))
    if left > 1:
        links.tie((a, left - 2), (y, rank - (2 if right > 1 else 1)))
    if right > 1:
        links.tie((b, right - 1), (y, rank - 1))
    batch = max(left, right, 2) - 2
    for axis in range(batch):
        operands = [(t, axis - batch + r - 2) for t, r in ((a, left), (b, right)) if axis - batch + r - 2 >= 0]
        links.broadcast(operands, (y, axis))
        if not any(isinstance(each, gs.Constant) for each in (a, b)):
            links.call((y, axis), "heads")  # products of activations, side by side


def link_einsum(links: Links) -> None:
    """Axes with the same letter are one; a letter that the result lacks is summed over."""
    tensors = [t for t in links.node.inputs if t.name]
    y = links.output(0)
    terms = _terms(str(links.node.attrs.get("equation", "")))
    if y is None or terms is None or len(terms) != len(tensors) + 1:
        links.refuse("its equation is not understood")
        return
    lettered = [_letters(links, t, term) for t, term in zip([*tensors, y], terms, strict=True)]
    result = dict(lettered[-1])
    uses: dict[str, list[Place]] = {}
    for letter, place in [pair for operand in lettered[:-1] for pair in operand]:
        uses.setdefault(letter, []).append(place)
    for letter, places in uses.items():
        if letter in result:
            links.broadcast(places, result[letter])
            continue
        sizes = {links.size(*place) for place in places}
        if len(places) == 1 or len(sizes) > 1:
            for place in places:
                links.keep(place, f"{links.title} sums over axis {place[1]} of '{place[0].name}'")
            continue
        for place in places[1:]:
            links.contract(places[0], place)


def _terms(equation: str) -> list[str] | None:
    """Terms of the operands, then of the result, which may be implicit; None where something else stands in them."""
    operands, arrow, result = equation.replace(" ", "").partition("->")
    letters = operands.replace("...", "").replace(",", "")
    if not arrow:
        once = sorted(letter for letter in set(letters) if letters.count(letter) == 1)
        result = ("..." if "..." in operands else "") + "".join(once)
    terms = [*operands.split(","), result]
    plain = all(set(term.replace("...", "", 1)) <= set(string.ascii_letters) for term in terms)
    return terms if plain and len(set(result.replace("...", ""))) == len(result.replace("...", "")) else None


def _letters(links: Links, tensor: gs.Tensor, term: str) -> list[tuple[str, Place]]:
    """The letter of each axis; those of an ellipsis are numbered from the right, for so they broadcast."""
    before, dots, behind = term.partition("...")
    rank = links.rank(tensor)
    between = rank - len(before) - len(behind)
    if between < 0 or (between and not dots):
        return []
    names = [*before, *(str(axis - between) for axis in range(between)), *behind]
    return [(name, (tensor, axis)) for axis, name in enumerate(names)]


RULES = {
    ("", "Conv"): Rule(link_conv, amend_conv),
    ("", "ConvTranspose"): Rule(link_conv_transpose, amend_conv),
    ("", "Gemm"): Rule(link_gemm),
    ("", "MatMul"): Rule(link_matmul),
    ("", "Einsum"): Rule(link_einsum),
}
