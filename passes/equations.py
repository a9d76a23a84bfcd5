"""The normal equations of linear layers: what each should give, of what it reads in a model that is being pruned."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from onnxpress.calibration.batches import Array
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.relay import Relay
from onnxpress.passes.base import Workbench
from onnxpress.passes.inputs import Reading, check_sole, check_width, reading_of, width_of
from onnxpress.passes.kernels.normal import Normal
from onnxpress.passes.row_samples import Collector, Rows
from onnxpress.passes.row_sums import ROWS, Indices, Sampling, Shown, Sums, Target
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.passes.shortcuts import shortcut_of
from onnxpress.passes.threads import threads_for
from onnxpress.rewriter.errors import ConfigError, FeedError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, Use, find_sites
from onnxpress.rewriter.walk import nodes_behind

_KEPT = 1 << 27
"""Bytes of the rows that are kept of layers that read the same, of either part of the samples."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """The equations of a layer, parted by samples.

    With x the rows that the layer reads in the model as it is, y is what its product W·x must give for the layer to
    give what the original does: the original's product of the original's rows, plus what its bias is more, and what is
    added behind it (`passes.shortcuts`), where that was seen to.

    Attributes:
        fit: of the samples to fit.
        held_out: of those to judge by.
        rows: those of either part, or some of them, where they were asked for.
    """

    fit: Normal
    held_out: Normal
    rows: tuple[tuple[Rows, ...], tuple[Rows, ...]] = ((), ())

    @property
    def total(self) -> Normal:
        """The equations of all samples."""
        return self.fit + self.held_out


def equations(
    model: Model,
    original: Model,
    sites: Sequence[Site],
    bench: Workbench,
    *,
    held_out: float = 0.25,
    kept_out: Mapping[str, Indices] | None = None,
    rows: int = ROWS,
    kept: Collection[str] = (),
) -> Iterator[tuple[Site, Pair | RefusalError]]:
    """The equations of one layer after the other, each of what it reads in the model as it is at that step.

    Layers come in graph order, but those that read the same come together, so their moments are summed once. Between
    two steps the caller may give the site that was yielded last another weight or bias, and nothing else.

    Args:
        model: being pruned; tensors are called as in the original.
        original: gives the outputs that are wanted; not changed meanwhile. It may be the model itself, where the
            caller changes nothing: then it runs but once.
        sites: weights of the model, in any order.
        bench: brings the samples.
        held_out: part of the samples that is kept for judging.
        kept_out: which rows of the original's matrix of a weight (`Layout.to_rows`) its matrix still has, by name of
            the site; sites that are not named have all.
        rows: of what a layer reads that are summed, about; more where it has many inputs.
        kept: names of sites of which rows are kept, too, as many as fit into memory.

    Yields:
        Every site, with its equations, or the reason why it has none.

    Raises:
        FeedError: there are no samples.
        ValueError: `held_out` not in (0, 1).
    """
    if bench.feed is None:
        raise FeedError("layers are refitted on samples; give some with --data")
    if not 0 < held_out < 1:
        raise ValueError(f"held_out {held_out} must lie in (0, 1)")
    sampling = Sampling(held_out, _count(bench.feed), rows)
    steps = _steps(model, original, sites, kept_out or {})
    with ExitStack() as stack:
        ours = stack.enter_context(_side(model, bench.feed, bench))
        theirs = ours if original is model else stack.enter_context(_side(original, bench.feed, bench))
        for step in bench.progress.track(steps, label="layers", total=len(steps)):
            if isinstance(step, tuple):
                yield step
                continue
            wanted = any(layer.site.name in kept for layer in step)
            found = _pairs(step, sampling, ours, theirs, kept=wanted)
            for index, layer in enumerate(step):
                yield layer.site, found if isinstance(found, RefusalError) else found[index]


def _count(feed: Feed) -> int:
    return feed.count if feed.count is not None else max(1, sum(1 for _ in feed))


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """A site and its counterpart in the original.

    Attributes:
        site: of the model.
        twin: of the original.
        chosen: rows of the original's matrix that are wanted; None for all.
        readings: of model and original, one for each use that reads something else.
        shortcut: what is added behind the layer, if it does not change any more.
    """

    site: Site
    twin: Site
    chosen: Indices | None
    readings: tuple[tuple[Reading, Reading], ...]
    shortcut: Reading | None = None


_Step = list[_Layer] | tuple[Site, RefusalError]
"""Layers that read the same, or one that is refused."""


def _steps(model: Model, original: Model, sites: Sequence[Site], kept_out: Mapping[str, Indices]) -> list[_Step]:
    """All layers in graph order, those that read the same together."""
    twins = {(_key(use), use.index): (each, use) for each in find_sites(original) for use in each.uses}
    order = {id(node): index for index, node in enumerate(model.graph.nodes)}
    steps: list[_Step] = []
    by_readings: dict[tuple[tuple[Reading, Reading], ...], list[_Layer]] = {}
    for site in sorted(sites, key=lambda each: order.get(id(each.node), len(order))):
        try:
            check_sole(model, site)
            layer = _layer(site, kept_out.get(site.name), *_counterpart(model, original, site, twins))
            check_width(site)  # after the readings: a table that is looked up has no inputs
        except RefusalError as refusal:
            steps.append((site, refusal))
            continue
        if layer.readings not in by_readings:
            by_readings[layer.readings] = []
            steps.append(by_readings[layer.readings])
        by_readings[layer.readings].append(layer)
    return _with_shortcuts(model, steps)


def _with_shortcuts(model: Model, steps: Sequence[_Step]) -> list[_Step]:
    """The same, with what is added behind layers where no layer that is still to come has a part in it."""
    makers = {output.name: id(node) for node in model.graph.nodes for output in node.outputs}
    to_come: set[int] = set()
    found: list[_Step] = []
    for step in reversed(steps):
        if isinstance(step, list):
            to_come |= nodes_behind(model.graph, [use.node for layer in step for use in layer.site.uses])
            shortcuts = [shortcut_of(model, layer.site) for layer in step]
            step = [
                layer if added is None or makers.get(added.tensor) in to_come else replace(layer, shortcut=added)
                for layer, added in zip(step, shortcuts, strict=True)
            ]
        found.append(step)
    return found[::-1]


def _key(use: Use) -> str:
    return str(use.node.outputs[0].name)


def _counterpart(
    model: Model, original: Model, site: Site, twins: Mapping[tuple[str, int], tuple[Site, Use]]
) -> tuple[Site, tuple[tuple[Reading, Reading], ...]]:
    """The site of the original whose users write the same tensors, and what the users read in both models."""
    readings: dict[tuple[Reading, Reading], None] = {}
    found: list[Site] = []
    for use in site.uses:
        ours = reading_of(model, use)
        twin, other = twins.get((_key(use), use.index), (None, None))
        if twin is None or other is None or any(each is not twin for each in found):
            raise RefusalError(f"the original has no layer that writes '{_key(use)}' with this weight")
        found.append(twin)
        readings[ours, reading_of(original, other)] = None
    return found[0], tuple(readings)


def _layer(site: Site, chosen: Indices | None, twin: Site, readings: tuple[tuple[Reading, Reading], ...]) -> _Layer:
    rows, left = Layout.of(twin).rows if chosen is None else len(chosen), Layout.of(site).rows
    if rows != left:
        raise RefusalError(f"it has {left} outputs of the {rows} that the original has, and nothing tells which")
    return _Layer(site, twin, chosen, readings)


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """A model and how far it ran."""

    model: Model
    relay: Relay

    def run(self, tensors: Iterable[str], *, keep: bool) -> Iterator[dict[str, Array]]:
        """The values of some tensors, batch by batch."""
        return self.relay.run(self.model, list(tensors), keep=keep)


@contextmanager
def _side(model: Model, feed: Feed, bench: Workbench) -> Iterator[_Side]:
    with Relay(feed, providers=bench.providers, threads=bench.threads) as relay:
        yield _Side(model, relay)


def _pairs(
    layers: Sequence[_Layer], sampling: Sampling, ours: _Side, theirs: _Side, *, kept: bool
) -> list[Pair] | RefusalError:
    """The equations of layers that read the same, perhaps with rows."""
    readings = layers[0].readings
    own, other = ({each.tensor: None for each in side} for side in zip(*readings, strict=True))
    # A weight that is used twice is replaced but once: what ran with the old one in between must run again.
    keep = len(own) == len(other) == 1
    # A model that is its own original lacks nothing of it.
    added = {} if ours is theirs else {layer.shortcut.tensor: None for layer in layers if layer.shortcut}
    targets = [
        Target.of(ours.model, each.site, theirs.model, each.twin, chosen=each.chosen, shortcut=each.shortcut)
        for each in layers
    ]
    sums = Sums(Collector(_KEPT) if kept else None), Sums(Collector(_KEPT) if kept else None)
    try:
        with threads_for(width_of(layers[0].site)):
            for batch, (seen, given) in enumerate(_together(ours, own | added, theirs, other | added, keep=keep)):
                shortcuts = {name: (seen[name], given[name]) for name in added}
                for reading, wanted in readings:
                    rows = Shown(reading, seen[reading.tensor], wanted, given[wanted.tensor], shortcuts)
                    rows.show(targets, sums, sampling, batch)
    except ConfigError as error:
        return RefusalError(str(error))
    if not (sums[0].count and sums[1].count):
        return RefusalError("the samples show it too few rows without NaN or infinities")
    fit, held_out = sums
    return [
        Pair(*normals, rows=(fit.rows(layer), held_out.rows(layer)))
        for layer, normals in enumerate(zip(fit.normals(), held_out.normals(), strict=True))
    ]


def _together(
    ours: _Side, own: Iterable[str], theirs: _Side, other: Iterable[str], *, keep: bool
) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
    """What both sides give of each batch; a model that is both runs once."""
    if ours is theirs:
        yield from ((values, values) for values in ours.run([*own, *other], keep=keep))
    else:
        yield from zip(ours.run(own, keep=keep), theirs.run(other, keep=keep), strict=True)
