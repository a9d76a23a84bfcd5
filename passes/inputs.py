"""What linear layers read, seen as rows that their weights multiply, and statistics of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import onnx_graphsurgeon as gs

from onnxpress.calibration.observers import Observer, SecondMoment, Several
from onnxpress.calibration.stream import observe
from onnxpress.calibration.views import AutoPad, Columns, LastAxis, Patches, View
from onnxpress.passes.base import Workbench
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.rewriter.edits import output_ids
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, Use

MEMORY = 2**30
"""Bytes of second moments held at once, unless stated otherwise."""

SOLVED = 4 * MEMORY
"""Bytes that second moments may take while equations of one layer are solved: 8192 inputs of one group."""

_COPIES = 8
"""How many matrices as large as the moment there are then, of float64: parts, sums, factors, inverses."""

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Reading:
    """An activation as the rows of one linear layer; equal for layers that read the same in the same way.

    Attributes:
        tensor: name in the main graph.
        view: how it is seen.
    """

    tensor: str
    view: View


def reading_of(model: Model, use: Use) -> Reading:
    """Which tensor a layer multiplies by its weight, and how.

    Raises:
        RefusalError: it has no such tensor, or none that can be observed.
    """
    if use.graph is not model.graph:
        raise RefusalError("it runs inside a branch or a loop, where activations cannot be observed")
    view, tensor = view_of(use), activation_of(use)
    if isinstance(tensor, gs.Constant):
        raise RefusalError("it multiplies two constants; normalise the model first")
    return Reading(str(tensor.name), view)


def observe_readings(model: Model, observers: Mapping[Reading, Observer], bench: Workbench) -> None:
    """Show what layers read to observers, over all calibration samples; a tensor read in several ways is run once.

    Args:
        model: as it is.
        observers: of what `reading_of` gives, set up with the view of their reading.
        bench: brings the samples.

    Raises:
        FeedError: there are no samples.
    """
    if bench.feed is None:
        raise FeedError("statistics of activations come from samples; give some with --data")
    by_tensor: dict[str, dict[str, Observer]] = {}
    for reading, observer in observers.items():
        by_tensor.setdefault(reading.tensor, {})[repr(reading.view)] = observer
    joint = {tensor: Several(each) for tensor, each in by_tensor.items()}
    observe(model, joint, bench.feed, providers=bench.providers, threads=bench.threads, progress=bench.progress)


def moments_of(
    model: Model, sites: Sequence[Site], bench: Workbench, *, per_batch: int = 2048, memory: int = MEMORY
) -> Iterator[tuple[Site, SecondMoment | RefusalError]]:
    """The second moments of what sites read, over all calibration samples, as the model is at the first step.

    Sites are taken in parts whose moments fit into `memory`, each with a walk through the samples: let go of a moment
    before asking for the next. The model may change between steps.

    Args:
        model: holds the sites.
        sites: in any order.
        bench: brings the samples.
        per_batch: rows of one batch at most.
        memory: bytes of the moments of one part; a larger one is alone.

    Yields:
        Every site in order, with the moment of all its uses together, or the reason why it has none.

    Raises:
        FeedError: there are no samples.
    """
    before = model.clone()
    wanted = [(site, *_readings(model, site)) for site in sites]
    for part in in_parts(wanted, memory, sizes=lambda each: moment_bytes(each[0], each[1], Layout.of(each[0]).rows)):
        readings = dict.fromkeys(each for _, found, _ in part for each in found)
        observers = {each: SecondMoment(view=each.view, per_batch=per_batch) for each in readings}
        observe_readings(before, observers, bench)
        for site, found, refusal in part:
            yield site, refusal or _joined([observers[each] for each in found])


def _readings(model: Model, site: Site) -> tuple[tuple[Reading, ...], RefusalError | None]:
    """What all users of a weight read; nothing, and why, where one of them reads what cannot be observed."""
    try:
        return tuple(dict.fromkeys(reading_of(model, use) for use in site.uses)), None
    except RefusalError as refusal:
        return (), refusal


def _joined(moments: Sequence[SecondMoment]) -> SecondMoment | RefusalError:
    try:
        return joined(moments)
    except RefusalError as refusal:
        return refusal


def moment_bytes(site: Site, readings: Iterable[Reading], rows: int) -> dict[Reading, int]:
    """Bytes of the moments of what the users of a weight read, [groups, k, k] of float32 each.

    Args:
        site: the weight.
        readings: of its users.
        rows: of the matrix that the weight is.
    """
    return dict.fromkeys(readings, 4 * site.groups * (site.size // max(1, rows)) ** 2)


def width_of(site: Site) -> int:
    """Inputs of one output of a weight."""
    return site.size // max(1, Layout.of(site).rows)


def check_width(site: Site) -> None:
    """Refuse a weight with so many inputs that equations with their second moments take too much memory, and hours.

    Raises:
        RefusalError: says how much.
    """
    width = width_of(site)
    needed = 8 * _COPIES * site.groups * width**2
    if needed > SOLVED:
        raise RefusalError(f"it reads {width} inputs: the second moments of so many take {needed / 1e9:.0f} GB")


def in_parts(
    items: Iterable[_Item], memory: int, *, sizes: Callable[[_Item], Mapping[Reading, int]]
) -> Iterator[list[_Item]]:
    """Stretches of items that fit into memory together.

    Args:
        items: that need what was seen of readings.
        memory: bytes; an item that needs more is alone.
        sizes: bytes for each reading of an item; what several items read counts once.
    """
    part: list[_Item] = []
    held: dict[Reading, int] = {}
    for item in items:
        more = sizes(item)
        if part and sum((held | dict(more)).values()) > memory:
            yield part
            part, held = [], {}
        part.append(item)
        held.update(more)
    if part:
        yield part


def joined(moments: Sequence[SecondMoment]) -> SecondMoment:
    """The moment of all rows together; a weight of several layers multiplies them all.

    Raises:
        RefusalError: no rows, or ones of different groups or lengths.
    """
    seen = [each for each in moments if not each.empty]
    if not seen:
        raise RefusalError("the samples show it no row without NaN or infinities")
    if len({each.total.shape for each in seen}) > 1:
        raise RefusalError("the layers that share its weight read rows of different groups")
    first, *others = seen
    if not others:
        return first
    total = SecondMoment.from_state(first.state(), view=first.view)
    for other in others:
        total.merge(SecondMoment.from_state(other.state(), view=first.view))
    return total


def check_sole(model: Model, site: Site) -> None:
    """Refuse a weight that others read than the layers of its site: they want it as it is.

    Raises:
        RefusalError: says who.
    """
    layers = {id(use.node) for use in site.uses}
    other = next((node for node in site.weight.outputs if id(node) not in layers), None)
    if other is not None:
        raise RefusalError(f"{other.op} '{other.name}' reads its weight, too, so it must stay as it is")
    if id(site.weight) in output_ids(model):
        raise RefusalError("its weight is an output, too, so it must stay as it is")


def activation_of(use: Use) -> gs.Tensor:
    """What a layer multiplies by its weight; only where `view_of` gives a view."""
    tensor: gs.Tensor = use.node.inputs[0 if use.index else 1]
    return tensor


def view_of(use: Use) -> View:
    """How the activation that a layer reads is seen as rows.

    With X = rows of one group and W = the rows of `Layout.to_rows` that belong to it, X·Wᵀ is what the layer computes
    at these positions, but for alpha, bias and what is fused behind it. Group g owns an equal share of W's rows.

    Raises:
        RefusalError: the node is no linear layer, or one whose activation has no rows.
    """
    rule = _RULES.get((_domain(use.node), str(use.node.op)))
    if rule is None:
        raise RefusalError(f"{use.node.op} does not multiply rows of an activation by its weight")
    return rule(use)


def _domain(node: gs.Node) -> str:
    return "" if node.domain in (None, "ai.onnx") else str(node.domain)


def _conv(use: Use) -> View:
    attrs, axes = use.node.attrs, len(use.axes) - 2
    kernel = tuple(int(size) for size in use.node.inputs[use.index].shape[2:])
    ones = (1,) * axes
    return Patches(
        kernel=kernel,
        strides=tuple(attrs.get("strides") or ones),
        pads=_pads(use.node, axes),
        dilations=tuple(attrs.get("dilations") or ones),
        groups=int(attrs.get("group", 1)),
    )


def _pads(node: gs.Node, axes: int) -> tuple[int, ...] | AutoPad:
    auto = str(node.attrs.get("auto_pad") or "NOTSET")
    if auto == "SAME_UPPER" or auto == "SAME_LOWER":
        return "SAME_UPPER" if auto == "SAME_UPPER" else "SAME_LOWER"
    given = () if auto == "VALID" else tuple(node.attrs.get("pads") or ())
    return given or (0,) * (2 * axes)


def _product(use: Use) -> View:
    """Of Gemm, MatMul and FusedMatMul: A·B, each perhaps transposed, one of them the weight."""
    attrs = use.node.attrs
    if "batch" in use.axes and any(size != 1 for size in use.node.inputs[use.index].shape[:-2]):
        raise RefusalError("its weight is a stack of matrices, each for rows of its own")
    if attrs.get("transBatchA") or attrs.get("transBatchB"):
        raise RefusalError("its batch axis lies inside the matrices")
    if use.index:
        return Columns() if attrs.get("transA") else LastAxis()
    return LastAxis() if attrs.get("transB") else Columns()


def _recurrent(use: Use) -> View:
    if use.index != 1:
        raise RefusalError("its weight multiplies the hidden state, which no tensor holds")
    return LastAxis()


_RULES: Mapping[tuple[str, str], Callable[[Use], View]] = {
    ("", "Conv"): _conv,
    ("com.microsoft", "FusedConv"): _conv,
    ("", "Gemm"): _product,
    ("", "MatMul"): _product,
    ("com.microsoft", "FusedGemm"): _product,
    ("com.microsoft", "FusedMatMul"): _product,
    ("com.microsoft", "Attention"): lambda _: LastAxis(),
    ("", "LSTM"): _recurrent,
    ("", "GRU"): _recurrent,
    ("", "RNN"): _recurrent,
}
