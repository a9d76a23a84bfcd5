"""Normalisations, and whatever else looks at one axis as a whole: softmax, sums, extrema, order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.rewriter.couplings.links import Amendment, Links, Rule


def link_batch(links: Links) -> None:
    """X [N, C, …], scale, bias, mean, variance [C] -> Y, and in training mean and variance [C]."""
    x, y = links.input(0), links.output(0)
    if x is None or y is None:
        return
    if not int(links.node.attrs.get("spatial", 1)):
        links.refuse("it has a mean for each position")
        return
    links.same(x, y)
    for tensor in [*links.node.inputs[1:], *links.node.outputs[1:]]:
        if tensor.name:
            links.tie((tensor, 0), (x, 1))
    if links.node.attrs.get("training_mode", 0) or len([t for t in links.node.outputs if t.name]) > 1:
        for axis in [a for a in range(links.rank(x)) if a != 1]:
            links.keep((x, axis), _changes(links, axis))


def link_instance(links: Links) -> None:
    """X [N, C, …], scale, bias [C] -> Y; each channel of each sample has its own mean."""
    x, y = links.input(0), links.output(0)
    if x is None or y is None:
        return
    links.same(x, y)
    for tensor in links.node.inputs[1:]:
        links.tie((tensor, 0), (x, 1))
    _keep_normalised(links, x, range(2, links.rank(x)))


def link_groups(links: Links) -> None:
    """X [N, C, …], scale, bias [C] or, before opset 21, [groups] -> Y; whole groups go."""
    x, y = links.input(0), links.output(0)
    if x is None or y is None:
        return
    channels, groups = links.size(x, 1), int(links.node.attrs.get("num_groups", 1))
    if channels is None or channels % groups:
        links.refuse("the number of its channels is not fixed")
        return
    links.same(x, y)
    within = channels // groups
    links.unite((x, 1), np.arange(channels) // within)
    for tensor in links.node.inputs[1:]:
        if links.size(tensor, 0) == channels:
            links.tie((tensor, 0), (x, 1))
        else:
            links.tie((x, 1), (tensor, 0), to=np.arange(channels) // within)
    _keep_normalised(links, x, range(2, links.rank(x)))
    if groups == 1:
        links.keep((x, 1), _changes(links, 1))


def amend_groups(amendment: Amendment) -> None:
    """As many groups as are left."""
    x = amendment.node.inputs[0]
    was, size = amendment.was((x, 1)), amendment.size((x, 1))
    if was and size:
        amendment.node.attrs["num_groups"] = size * int(amendment.node.attrs["num_groups"]) // was


def link_layer(links: Links) -> None:
    """X, scale, bias -> Y, mean and inverse deviation; all axes from `axis` on are normalised together."""
    x, y = links.input(0), links.output(0)
    if x is None or y is None:
        return
    rank = links.rank(x)
    start = links.axis(x, int(links.node.attrs.get("axis", -1)))
    links.same(x, y)
    _keep_normalised(links, x, range(start, rank))
    for tensor in links.node.inputs[1:]:
        for axis in range(links.rank(tensor) if tensor.name else 0):
            links.broadcast([(tensor, axis)], (y, axis + rank - links.rank(tensor)))
    for tensor in links.node.outputs[1:]:
        if tensor.name:
            links.same(x, tensor, but=range(start, rank))


def link_norm(links: Links) -> None:
    """LpNormalization: X -> Y along one axis."""
    _same_but(links, [int(links.node.attrs.get("axis", -1))])


def link_local_response(links: Links) -> None:
    """X -> Y; each channel is divided by a sum over its neighbours."""
    _same_but(links, [1])


def link_mean_variance(links: Links) -> None:
    """X -> Y, normalised over several axes together."""
    _same_but(links, [int(axis) for axis in links.node.attrs.get("axes", [0, 2, 3])])


def link_softmax(links: Links) -> None:
    """X -> Y along one axis; before opset 13 along all from `axis` on."""
    x = links.input(0)
    if x is None:
        return
    if links.model.opset >= 13:
        _same_but(links, [int(links.node.attrs.get("axis", -1))])
    else:
        rank = links.rank(x)
        start = int(links.node.attrs.get("axis", 1))
        _same_but(links, range(start + rank if start < 0 else start, rank))


def link_cumulated(links: Links) -> None:
    """X, axis -> Y."""
    axis = links.value(links.input(1))
    if axis is None:
        links.refuse("its axis is computed")
    else:
        _same_but(links, [int(axis.reshape(()))])


def link_triangle(links: Links) -> None:
    """Trilu: X -> Y, with one triangle of each matrix set to zero."""
    x = links.input(0)
    if x is not None:
        _same_but(links, [-2, -1])


def link_reversed(links: Links) -> None:
    """ReverseSequence: X, a length for each sample -> Y, with time reversed in each sample."""
    x = links.input(0)
    if x is not None:
        _same_but(links, [int(links.node.attrs.get(name, default)) for name, default in _TIME_AND_BATCH])


def link_top(links: Links) -> None:
    """X, k -> values and indices; k of an axis."""
    x = links.input(0)
    if x is None:
        return
    axis = links.axis(x, int(links.node.attrs.get("axis", -1)))
    for y in links.node.outputs:
        if y.name:
            links.same(x, y, but=[axis])
    links.keep((x, axis), f"{links.title} compares the elements of axis {axis}")


def link_extremum(links: Links) -> None:
    """ArgMax and ArgMin: X -> the index of an extremum along one axis."""
    _reduce(links, [int(links.node.attrs.get("axis", 0))])


def link_reduction(links: Links) -> None:
    """X, axes (an attribute in older opsets) -> Y."""
    x = links.input(0)
    if x is None:
        return
    axes: Sequence[int] = [int(axis) for axis in links.node.attrs.get("axes", [])]
    if (operand := links.input(1)) is not None:
        value = links.value(operand)
        if value is None:
            links.refuse("its axes are computed")
            return
        axes = value.reshape(-1).tolist()
    if not axes and not links.node.attrs.get("noop_with_empty_axes", 0):
        axes = range(links.rank(x))
    _reduce(links, axes)


def _reduce(links: Links, axes: Sequence[int]) -> None:
    """Reduced axes are frozen, the others tied with those that are left."""
    x, y = links.input(0), links.output(0)
    if x is None or y is None:
        return
    rank = links.rank(x)
    reduced = {links.axis(x, axis) for axis in axes} if rank else set()
    left = [axis for axis in range(rank) if axis not in reduced]
    keepdims = bool(links.node.attrs.get("keepdims", 1))
    if links.rank(y) != (rank if keepdims else len(left)):
        links.refuse("its result has another rank than it should")
        return
    for position, axis in enumerate(left):
        links.tie((x, axis), (y, axis if keepdims else position))
    for axis in sorted(reduced):
        links.keep((x, axis), f"{links.title} reduces axis {axis} of '{x.name}'")


def _same_but(links: Links, axes: Sequence[int]) -> None:
    """X -> Y of the same shape; `axes` are looked at whole."""
    x, y = links.input(0), links.output(0)
    if x is None or y is None:
        return
    links.same(x, y)
    _keep_normalised(links, x, axes)


def _keep_normalised(links: Links, x: gs.Tensor, axes: Sequence[int]) -> None:
    for axis in axes:
        links.keep((x, axis), _changes(links, links.axis(x, axis)))


def _changes(links: Links, axis: int) -> str:
    kind = "mean and variance" if "Norm" in links.node.op or links.node.op == "LRN" else "the elements that stay"
    return f"{links.title} looks at axis {axis} as a whole: {kind} would change"


_TIME_AND_BATCH = (("time_axis", 0), ("batch_axis", 1))
_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")

RULES = {
    ("", "BatchNormalization"): Rule(link_batch),
    ("", "InstanceNormalization"): Rule(link_instance),
    ("", "GroupNormalization"): Rule(link_groups, amend_groups),
    ("", "LayerNormalization"): Rule(link_layer),
    ("", "RMSNormalization"): Rule(link_layer),
    ("", "LpNormalization"): Rule(link_norm),
    ("", "LRN"): Rule(link_local_response),
    ("", "MeanVarianceNormalization"): Rule(link_mean_variance),
    **{("", op): Rule(link_softmax) for op in ("Softmax", "LogSoftmax", "Hardmax")},
    ("", "CumSum"): Rule(link_cumulated),
    ("", "Trilu"): Rule(link_triangle),
    ("", "ReverseSequence"): Rule(link_reversed),
    ("", "TopK"): Rule(link_top),
    **{("", op): Rule(link_extremum) for op in ("ArgMax", "ArgMin")},
    **{("", f"Reduce{kind}"): Rule(link_reduction) for kind in _REDUCTIONS},
}
