"""Smaller products in the place of convolutions that see few positions, where they are faster."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxpress.passes.base import Workbench
from onnxpress.passes.pace import Pace, pace
from onnxpress.passes.prune.positions.faster import Measured, Stopwatch
from onnxpress.passes.prune.positions.kept import Kept
from onnxpress.passes.prune.positions.products import products_for
from onnxpress.passes.report import Report
from onnxpress.passes.seen import Seen, shapes_seen
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, find_sites
from onnxpress.rewriter.weights import values_of

_BARS = (1.0, 1.4, math.inf)
"""How much faster alone a sum of convolutions or shifted channels must be; each is tried in the whole model."""

_ZEROS = "stays a dense Conv with zeros, smaller only once encoded"


@dataclass(frozen=True, slots=True, eq=False)
class _Verdict:
    """What becomes of one Conv.

    Attributes:
        kept: the Conv.
        seen: what its users read; empty where it stays.
        measured: the fastest way to write it; None where it stays.
        reason: why it stays.
    """

    kept: Kept
    seen: tuple[Seen, ...] = ()
    measured: Measured | None = None
    reason: str = ""

    def passes(self, bar: float) -> bool:
        """Whether there is something faster: one smaller Conv, or what alone is `bar` times as fast."""
        return self.measured is not None and (self.measured.product.single or self.measured.speedup > bar)

    def dropped(self) -> _Verdict:
        """The same with zeros."""
        if self.measured is None:
            return self
        found = f"{self.measured.product.describe()}: {self.measured.speedup:.2f} times as fast alone"
        return _Verdict(self.kept, reason=f"{found}, but the model gets no faster")


def rewrite(model: Model, done: Sequence[Kept], bench: Workbench, report: Report) -> None:
    """Write smaller products where they are measured to be faster, and report on every Conv.

    Each is timed alone. What several nodes do may be slower among neighbours, which pass activations on in a layout of
    their own; so where there are samples, the whole model is timed, too, with all of them and with fewer, beside the
    one with zeros, and the fastest stays.

    Args:
        model: with zeros; it is changed.
        done: the convolutions that have some.
        bench: brings providers, threads and perhaps samples.
        report: takes the changes.
    """
    verdicts = _judge(model, done, bench)
    speed: Pace | None = None
    if bench.feed is not None:
        verdicts, speed = _together(model, verdicts, bench)
    chosen = [each for each in verdicts if each.measured is not None]
    before = {each.kept.site.name: each.kept.site.nbytes for each in verdicts}
    after = before | _write(model, chosen)
    for each in verdicts:
        name, action = each.kept.site.name, _action(each, speed)
        report.change(name, action, bytes_before=before[name], bytes_after=after[name], error=each.kept.error)
    sweep(model)


def _together(model: Model, verdicts: Sequence[_Verdict], bench: Workbench) -> tuple[list[_Verdict], Pace | None]:
    """Time the whole model with what is faster alone; the verdicts that make it fastest, and how fast it is then."""
    trials: dict[tuple[int, ...], Model] = {}
    for bar in _BARS:
        chosen = tuple(index for index, each in enumerate(verdicts) if each.passes(bar))
        if chosen and chosen not in trials:
            trials[chosen] = model.clone()
            _write(trials[chosen], [verdicts[index] for index in chosen])
    if not trials:
        return list(verdicts), None
    paces = pace(model, list(trials.values()), bench)
    chosen, best = max(zip(trials, paces, strict=True), key=lambda pair: pair[1].speedup)
    if best.slower:
        chosen = ()
    kept = [each if index in chosen else each.dropped() for index, each in enumerate(verdicts)]
    return kept, best if chosen else None


def _judge(model: Model, done: Sequence[Kept], bench: Workbench) -> list[_Verdict]:
    """Time what could take the place of each Conv."""
    tensors: list[gs.Tensor] = [use.node.inputs[0] for kept in done for use in kept.site.uses]
    main = [any(use.graph is model.graph for use in kept.site.uses) for kept in done for _ in kept.site.uses]
    seen = iter(shapes_seen(model, [each for each, inside in zip(tensors, main, strict=True) if inside], bench))
    inputs = [next(seen) if inside else None for inside in main]
    places = iter(inputs)
    watch = Stopwatch(bench, {each.domain: each.version for each in model.header.opset_import})
    steps = bench.progress.track(done, label="smaller products", total=len(done))
    return [_verdict(kept, [next(places) for _ in kept.site.uses], watch) for kept in steps]


def _verdict(kept: Kept, seen: Sequence[Seen | None], watch: Stopwatch) -> _Verdict:
    first = seen[0]
    known = tuple(each for each in seen if each is not None)
    if first is None or len(known) < len(seen):
        return _Verdict(kept, reason="the size of its input is not known, so nothing can be timed; give samples")
    if any(len(use.node.inputs) > 3 for use in kept.site.uses):
        return _Verdict(kept, reason="a sum is fused into it")
    products = products_for(kept.mask, groups=kept.site.groups)
    if not products:
        return _Verdict(kept, reason="its positions are neither a box nor few boxes")
    try:
        best = watch.best(kept.site.uses[0], kept.site.array(), products, first)
    except RefusalError as refusal:
        return _Verdict(kept, reason=str(refusal))
    if not best.sure:
        return _Verdict(kept, reason=f"{best.product.describe()}: {best.speedup:.2f} times as fast, no gain")
    return _Verdict(kept, known, best)


def _write(model: Model, chosen: Sequence[_Verdict]) -> dict[str, int]:
    """Put the products into a model that has the sites under the same names; bytes of the new weights by site."""
    sites: Mapping[str, Site] = {site.name: site for site in find_sites(model)}
    sizes = {}
    for each in chosen:
        if each.measured is None:
            continue
        site, product = sites[each.kept.site.name], each.measured.product
        weights = [model.add_weight(f"{site.weight.name}_part", part) for part in product.weights(site.array())]
        for use, seen in zip(site.uses, each.seen, strict=True):
            product.write(model, use, weights, seen.spatial)
        sizes[site.name] = sum(values_of(weight).nbytes for weight in weights)
    return sizes


def _action(verdict: _Verdict, whole: Pace | None) -> str:
    if verdict.measured is None:
        return f"{verdict.kept.action}; {_ZEROS} ({verdict.reason})"
    speed = f"{verdict.measured.speedup:.2f} times as fast"
    model = "" if whole is None else f" (the model with all of them: {whole.speedup:.2f})"
    return f"{verdict.kept.action}; {verdict.measured.product.describe()}, {speed}{model}"
