"""The factors of an embedding, by how often samples look up each of its rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.calibration.observers import Observer
from onnxpress.calibration.stream import observe
from onnxpress.passes.base import Workbench
from onnxpress.passes.equations import Pair
from onnxpress.passes.factorize.fitting import Chain, Choose, fit_either, fit_plain
from onnxpress.passes.factorize.schemes.layer import rows_of
from onnxpress.passes.factorize.wanted import Wanted
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.report import Report
from onnxpress.passes.selection import RefusalError
from onnxpress.passes.threads import threads_for
from onnxpress.rewriter.edits import output_ids
from onnxpress.rewriter.model import DEFAULT_DOMAINS, Model
from onnxpress.rewriter.sites import FLOATS, Site
from onnxpress.rewriter.walk import nodes
from onnxpress.rewriter.weights import values_of

_HELD_OUT = 4
"""One of so many samples judges."""


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """How often samples look up each row of a table.

    Attributes:
        fit: of the samples to fit, [rows].
        held_out: of those to judge by, [rows].
    """

    fit: Float64Array
    held_out: Float64Array

    @property
    def total(self) -> Float64Array:
        """Of all samples."""
        return self.fit + self.held_out

    def error(self, rows: Array, found: Array) -> float:
        """How far one table is from another, both [out, rows], where samples held out look; all, where none are."""
        weights = self.held_out if self.held_out.any() else metric_of(self.total)[0]
        lost, whole = (float(np.square(each).sum(axis=0) @ weights) for each in (rows - found, rows.astype(np.float64)))
        return math.sqrt(lost / whole) if whole else 0.0


class _Counter:
    """Counts the indices it is shown, sample by sample, one of four apart."""

    def __init__(self, rows: int) -> None:
        """Start with none.

        Args:
            rows: of the table.
        """
        self.counts = np.zeros((2, rows))
        self._samples = 0

    def update(self, array: Array, /) -> None:
        """Count the indices of one batch; negative ones count from the end."""
        rows = self.counts.shape[1]
        samples = array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)
        judged = (np.arange(self._samples, self._samples + len(samples)) + 1) % _HELD_OUT == 0
        for part, chosen in enumerate((~judged, judged)):
            self.counts[part] += np.bincount(samples[chosen].reshape(-1) % rows, minlength=rows)
        self._samples += len(samples)

    def merge(self, other: Self, /) -> None:
        """Add what another counted."""
        self.counts += other.counts

    def state(self) -> dict[str, Array]:
        """The counts."""
        return {"counts": self.counts}


def counts_of(model: Model, site: Site, bench: Workbench) -> Counts:
    """How often samples look up each row.

    Args:
        model: as it is.
        site: a table.
        bench: brings the samples.

    Raises:
        RefusalError: its indices cannot be observed, or there are no samples.
    """
    if bench.feed is None:
        raise RefusalError("there are no samples")
    if any(use.graph is not model.graph for use in site.uses):
        raise RefusalError("it runs inside a branch or a loop, where indices cannot be observed")
    tensors = [use.node.inputs[1] for use in site.uses]
    counters = [_Counter(site.shape[0]) for _ in tensors]
    shown: dict[str, Observer] = {}
    for tensor, counter in zip(tensors, counters, strict=True):
        if isinstance(tensor, gs.Constant):
            counter.update(model.array(tensor))
        else:
            shown.setdefault(str(tensor.name), counter)
    observe(model, shown, bench.feed, providers=bench.providers, threads=bench.threads)
    for counter in counters[1:]:
        counters[0].merge(counter)
    return Counts(*counters[0].counts)


def fit_seen(
    model: Model, site: Site, pair: Pair | RefusalError, choose: Choose, bench: Workbench, *, refit: bool = True
) -> Chain:
    """The factors of a weight by samples: of a table by its look-ups, of any other as `fit_either` has it.

    Args:
        model: holds the site.
        site: of the weight.
        pair: its equations, or why there are none.
        choose: gets what is wanted.
        bench: brings the samples and the seed.
        refit: as in `fit_either`.

    Raises:
        RefusalError: there is no such chain, or it saves nothing.
    """
    if site.op != "Gather":
        return fit_either(model, site, pair, choose, seed=bench.seed, refit=refit)
    try:
        counts = counts_of(model, site, bench)
    except RefusalError as refusal:
        return fit_plain(site, choose, seed=bench.seed, why=str(refusal))
    return fit_counted(site, counts, choose, seed=bench.seed)


def fit_counted(site: Site, counts: Counts, choose: Choose, *, seed: int) -> Chain:
    """The factors nearest to the rows that are looked up; to all alike, where these do better on samples held out.

    Least is Σ (c + c₀)·‖w − w'‖² over the rows w of the table, c how often samples look it up (`metric_of`).

    Args:
        site: a table.
        counts: of its rows.
        choose: gets the table and the weights of its rows.
        seed: of what is random.

    Raises:
        RefusalError: there is no such chain, or it saves nothing.
    """
    rows = rows_of(site)
    wide = rows.astype(np.float64)
    with threads_for(min(rows.shape)):
        wanted = Wanted(site, wide, metric_of(counts.fit), seed)
        scheme, ranks = choose(wanted)
        plain = Wanted(site, wide, None, seed).fit(scheme, ranks)
        before, after = (counts.error(rows, each.dense()) for each in (plain, wanted.fit(scheme, ranks)))
        better = after < before
        found = Wanted(site, wide, metric_of(counts.total), seed).fit(scheme, ranks) if better else plain
    factors = found.stored(values_of(site.weight).dtype)
    told = f"{before:.2%} -> {after:.2%}" if better else f"{before:.2%}, not corrected"
    account = f"error of the rows looked up {told} on samples held out" if counts.held_out.any() else ""
    return Chain(scheme, ranks, factors, None, relative_error(rows, factors.dense()), account)


def metric_of(counts: Float64Array) -> Float64Array:
    """The weight of each row, as `LookupScheme` has it, [1, rows]: how often it is looked up, and a little.

    As many look-ups of the next ones go to rows never seen as went to rows seen once (Good, 1953), shared out evenly:
    what samples do not show stays reasonable. At most one for each row.
    """
    once, never = (int(np.count_nonzero(counts == number)) for number in (1, 0))
    weights: Float64Array = counts + min(1.0, max(once, 1) / max(never, 1))
    return weights[np.newaxis]


def refuse_other_tables(model: Model, report: Report) -> None:
    """Tell of tables that are looked up otherwise than row by row, and so are no sites."""
    for name, why in _others(model):
        report.skip(name, why)


def _others(model: Model) -> Iterator[tuple[str, str]]:
    given = {id(each) for each in model.graph.inputs} | output_ids(model)
    for _, node in nodes(model.graph):
        table = node.inputs[0] if node.op == "Gather" and (node.domain or "") in DEFAULT_DOMAINS else None
        if not isinstance(table, gs.Constant) or id(table) in given or values_of(table).dtype.name not in FLOATS:
            continue
        name, rank, axis = node.name or table.name, len(table.shape), int(node.attrs.get("axis", 0))
        if rank == 2 and axis != 0:
            yield name, f"looks up along axis {axis}: only rows of a table, axis 0, are split"
        elif rank > 2:
            yield name, f"looks up in an array of {rank} axes: only tables of two are split"
