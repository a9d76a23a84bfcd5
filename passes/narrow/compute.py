"""A model that computes in 16 bits: planned, written, run, and planned anew where NaN or infinities come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from onnxpress.calibration.metrics import Comparison
from onnxpress.passes.base import Workbench
from onnxpress.passes.narrow.check import compare, culprits, has_new_odd, in_types_of
from onnxpress.passes.narrow.formats import FLOAT16
from onnxpress.passes.narrow.graph import Rewrite
from onnxpress.passes.narrow.kernels import Kernels
from onnxpress.passes.narrow.masks import bound_masks
from onnxpress.passes.narrow.plan import Choice, Plan, make_plan
from onnxpress.passes.narrow.types import infer_types
from onnxpress.passes.narrow.weights import OVERHEAD, Narrowing, Weight, store_weights, weights_of
from onnxpress.passes.quantize.ranges import Range, measure
from onnxpress.passes.report import Report
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.edits import sort, sweep
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import Shapes
from onnxpress.rewriter.walk import graphs, nodes
from onnxpress.rewriter.weights import values_of

ROUNDS = 8
"""Times a model is converted anew without the nodes that gave NaN or infinities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Computing:
    """How a model is to compute in 16 bits.

    Attributes:
        narrowing: how constants become 16 bits.
        include: globs of names of nodes, of their weights, or of operators.
        exclude: the same; these stay float32.
        keep_io: the inputs and outputs of the graph stay float32.
        headroom: how many times larger than on the samples values may become.
    """

    narrowing: Narrowing
    include: Sequence[str]
    exclude: Sequence[str]
    keep_io: bool
    headroom: float

    def convert(self, model: Model, bench: Workbench, report: Report) -> Mapping[str, Comparison]:
        """Convert a model in place.

        Returns:
            How close its outputs are, by name; nothing without samples.
        """
        kind = self.narrowing.kind
        bound_masks(model, kind, report)
        before = model.clone()
        shapes = infer_types(before, bench)
        seen = self._ranges(before, shapes, bench, report)
        choice = Choice(
            kind=kind,
            include=self.include,
            exclude=self.exclude,
            wide=_out_of_range(before, seen, kind.largest / self.headroom, kind.name),
        )
        for _ in range(ROUNDS):
            attempt = self._attempt(before.clone(), choice, bench)
            found = compare(attempt.model, before, bench)
            if not has_new_odd(found) or kind is not FLOAT16:
                break
            odd = {name: each.odd for name, each in seen.items()}
            names = culprits(attempt.model, attempt.plan, odd, in_types_of(attempt.model, bench))
            if not names:
                break
            reason = f"gave NaN or infinities in {kind.name} on the samples"
            choice = replace(choice, wide={**choice.wide, **dict.fromkeys(names, reason)})
        attempt.tell(report)
        model.reset(attempt.model.skeleton())
        return found

    def _attempt(self, model: Model, choice: Choice, bench: Workbench) -> _Attempt:
        """Convert once; afterwards the weights of nodes that stay float32 are stored in 16 bits."""
        for graph in graphs(model.graph):
            sort(graph)
        shapes = infer_types(model, bench)
        choice = replace(choice, barred=self._barred(model))
        plan = make_plan(model, shapes, choice, Kernels(model, shapes, choice.kind, bench.providers))
        rewrite = Rewrite(model, shapes, plan, self.narrowing, self.keep_io)
        names = {id(weight.constant): weight for weight in weights_of(model)}
        rewrite.run()
        report = Report("attempt")
        plan.tell(report)
        _tell_weights(rewrite, names, self.narrowing, report)
        sweep(model)
        left = [each for each in weights_of(model) if each.values.dtype == np.float32]
        chosen = [each for each in left if each.matches(self.include) and not each.matches(self.exclude)]
        known = {key: new for key, (_, new) in rewrite.weights.items()}
        store_weights(model, chosen, self.narrowing, report, known=known)
        sweep(model)
        return _Attempt(model, plan, rewrite.casts, report)

    def _barred(self, model: Model) -> dict[int, str]:
        """Why constants cannot be narrow, by identity; single numbers are judged where they are read."""
        found = {}
        for weight in weights_of(model):
            values = weight.values
            if values.dtype != np.float32 or values.nbytes == values.dtype.itemsize:
                continue
            try:
                self.narrowing.check(values)
            except RefusalError as refusal:
                found[id(weight.constant)] = f"weight '{weight.constant.name}': {refusal}"
        return found

    def _ranges(self, model: Model, shapes: Shapes, bench: Workbench, report: Report) -> dict[str, Range]:
        """The ranges of all float32 tensors of the main graph; nothing where they cannot matter or nobody knows."""
        if self.narrowing.kind is not FLOAT16:
            return {}
        if bench.feed is None:
            report.warnings.append(
                "activations were not checked: give samples with --data, or values beyond 65504 become infinite unseen"
            )
            return {}
        if any(graph is not model.graph for graph in graphs(model.graph)):
            report.warnings.append("activations inside If, Loop and Scan were not checked for values beyond 65504")
        names = [t.name for n in model.graph.nodes for t in n.outputs if t.name and shapes.dtype(t) == np.float32]
        return measure(model, names, bench)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A converted model.

    Attributes:
        model: swept.
        plan: of its nodes before.
        casts: that were added.
        report: of its weights and nodes.
    """

    model: Model
    plan: Plan
    casts: int
    report: Report = field(repr=False)

    def tell(self, report: Report) -> None:
        """Report what became of weights and nodes."""
        count, total = len(self.plan.low), len(self.plan.low) + len(self.plan.kept)
        report.change("graph", f"{count} of {total} nodes compute in 16 bits, {self.casts} Casts around them")
        if not count:
            report.warnings.append(
                "no node can compute in 16 bits here, so this is what form store gives; see the skips"
            )
        report.changes.extend(self.report.changes)
        report.skips.extend(self.report.skips)


def _tell_weights(rewrite: Rewrite, names: Mapping[int, Weight], narrowing: Narrowing, report: Report) -> None:
    """Report the constants that are narrow now; the small ones in one line."""
    small = 0
    for key, (old, new) in rewrite.weights.items():
        before, after = values_of(old).nbytes, values_of(new).nbytes
        if before <= 2 * OVERHEAD or key not in names:
            small += 1
            continue
        found = narrowing.check(values_of(old))
        cut = f", {found.beyond} weights cut off" if found.beyond else ""
        action = f"{narrowing.kind.name} in the file and when it runs{cut}"
        report.change(names[key].name, action, bytes_before=before, bytes_after=after, error=found.error)
    if small:
        report.change("graph", f"{small} constants of at most {2 * OVERHEAD} bytes are {narrowing.kind.name}")


def _out_of_range(model: Model, seen: Mapping[str, Range], limit: float, low: str) -> dict[str, str]:
    """Reasons for nodes that read or write values too large for 16 bits, by the name of their first output."""
    large = {name for name, each in seen.items() if max(-each.low, each.high) > limit}
    reason = f"it reads or writes values beyond {limit:.5g} on the samples, too near the end of {low}"
    touching = (n for _, n in nodes(model.graph) if n.outputs and any(t.name in large for t in [*n.inputs, *n.outputs]))
    return {node.outputs[0].name: reason for node in touching}
