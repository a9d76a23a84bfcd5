"""What layers could become at all, how long that takes, and with which samples it is found out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.calibration.batches import Sample
from onnxpress.calibration.feeds import Feed
from onnxpress.passes.base import Workbench
from onnxpress.passes.factorize.chain import refuse_different_uses
from onnxpress.passes.factorize.latency import Ladder, Stopwatch, Timings, as_is
from onnxpress.passes.factorize.matrix import refuse_old
from onnxpress.passes.factorize.schemes import SCHEMES
from onnxpress.passes.inputs import activation_of
from onnxpress.passes.report import Report
from onnxpress.passes.seen import shown_shapes
from onnxpress.passes.selection import RefusalError, skipping
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site

_HELD_OUT = 4
"""One of so many batches judges the whole model, and teaches nothing."""

_TIMED = 4
"""Batches that are timed in turn, where they are cut."""


def ladders_of(model: Model, sites: Sequence[Site], names: Sequence[str], report: Report) -> dict[Site, list[Ladder]]:
    """Schemes and ranks of each site that has any; the others are skipped.

    Args:
        model: holds the sites.
        sites: candidates.
        names: of schemes to choose from.
        report: takes the skips.
    """
    found: dict[Site, list[Ladder]] = {}
    for site in sites:
        with skipping(report, site.name):
            refuse_different_uses(site)
            refuse_old(model, site)
            found[site] = _ladders(site, names)
    return found


def _ladders(site: Site, names: Sequence[str]) -> list[Ladder]:
    found, refusals = list[Ladder](), list[RefusalError]()
    for scheme in (each for each in SCHEMES if each.name in names):
        if scheme.name == "channel" and any(each.scheme.name == "svd" for each in found):
            continue  # of matrices both are the same
        try:
            found.append(Ladder.of(scheme, site))
        except RefusalError as refusal:
            refusals.append(refusal)
    if not found:
        raise refusals[0]
    return found


def timings_of(
    model: Model,
    ladders: dict[Site, list[Ladder]],
    bench: Workbench,
    report: Report,
    *,
    timed_as: Callable[[Model], Model] = as_is,
) -> dict[Site, Timings]:
    """The seconds of layers and chains alone; ranks that are no faster leave the ladders, and sites without any.

    Args:
        model: holds the sites.
        ladders: schemes and ranks of each; it is changed.
        bench: brings batches, whose shapes are taken, providers and threads.
        report: takes the skips.
        timed_as: makes what is timed of a model in float.
    """
    read = [activation_of(use) for site in ladders for use in site.uses if use.graph is model.graph]
    tensors = [str(each.name) for each in read if isinstance(each, gs.Variable)]
    shapes = shown_shapes(model, list(dict.fromkeys(tensors)), bench)
    watch = Stopwatch(bench, {each.domain: each.version for each in model.header.opset_import}, timed_as)
    found = {}
    for site in bench.progress.track(list(ladders), label="latency of layers", total=len(ladders)):
        every = ladders.pop(site)
        with skipping(report, site.name):
            seen = _seen(model, site, shapes)
            kept = _faster(every, watch.timings(site, seen, every))
            ladders[site], found[site] = kept, watch.timings(site, seen, kept)
    return found


def _seen(model: Model, site: Site, shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The shapes of what a site's layers read."""
    if any(use.graph is not model.graph for use in site.uses):
        raise RefusalError("it runs inside a branch or a loop, where activations cannot be observed")
    found = [shapes.get(str(activation_of(use).name)) for use in site.uses]
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        raise RefusalError("it multiplies two constants; normalise the model first")
    return known


def _faster(ladders: Sequence[Ladder], timings: Timings) -> list[Ladder]:
    """Ladders with the ranks that are faster alone."""
    found = []
    for ladder in ladders:
        seconds = timings.chains.get(ladder.scheme.name)
        kept = [] if seconds is None else np.flatnonzero(seconds < timings.dense).tolist()
        if kept:
            found.append(ladder.only(kept))
    if not timings.chains:
        raise RefusalError("no chain of it was timed")
    if not found:
        best = min(timings.chains, key=lambda name: float(timings.chains[name].min()))
        speedup = timings.dense / float(timings.chains[best].min())
        raise RefusalError(f"no chain is faster alone: the fastest, '{best}', is {speedup:.2f} times as fast")
    return found


def parted(bench: Workbench, report: Report) -> tuple[Workbench, Workbench]:
    """The samples to learn from, and those to judge by.

    Args:
        bench: brings all samples.
        report: warned where a single batch must do both.
    """
    feed = bench.feed
    if feed is None:
        return bench, bench
    count = feed.count if feed.count is not None else sum(1 for _ in feed)
    if count < 2:
        report.warnings.append("one batch of samples teaches and judges; give two or more")
        return bench, bench
    judging, teaching = feed.split(max(1, count // _HELD_OUT))
    return replace(bench, feed=teaching), replace(bench, feed=judging)


def cut(bench: Workbench, rows: int | None) -> Feed | None:
    """Batches to time with: a few of some rows, or all as they are."""
    if bench.feed is None or rows is None:
        return bench.feed
    batches = list(bench.feed.spread(_TIMED))
    few = [{name: array[:rows] if array.ndim else array for name, array in batch.items()} for batch in batches]
    return Feed([Sample(batch) for batch in few], count=len(few))
