"""Magnitude pruning: the smallest weights become zero."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np

from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.kernels.pruning import Pruned, Threshold, magnitude_threshold
from onnxpress.passes.kernels.units import unit_threshold
from onnxpress.passes.prune.zeros.patterns import KNOWN, Blocks, Form, NofM, Pattern, Units, Unstructured, parse_pattern
from onnxpress.passes.prune.zeros.targets import Aim, aims_of, check_targets, is_sparsity
from onnxpress.passes.report import Report
from onnxpress.passes.selection import LAZY, Layout, RefusalError, SitePass, check_choice, wrong
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site
from onnxpress.rewriter.weights import Produced, Streamed, Values, values_of

_EMBEDDING = (
    "is an embedding: the size of its rows says how frequent a token is, not what may go; "
    "set embeddings to prune it all the same"
)
_NOT_SUMMED = "is an embedding: its rows are looked up, not summed, so N:M has no axis to run along"


@dataclass(frozen=True, kw_only=True)
class PruneMagnitude(SitePass):
    """Zero the weights of smallest magnitude (Han et al., 2015, "Learning both Weights and Connections").

    The weights stay dense arrays that happen to hold zeros; `encode` stores them small. A weight that is zero already
    counts towards the sparsity. A large model is never in memory whole: its weights are read piece by piece, and the
    large ones are pruned again when they are written.

    Attributes:
        sparsity: fraction of zeros afterwards, in [0, 1); not needed where `pattern` is N:M, which implies it, or where
            `targets` says what it is.
        targets: sparsities of some sites by globs over site, weight or operator names, as `{"Gemm": 0.9}`; the first
            that matches a site holds for it. Sites that match none go by `sparsity`; without one they are left alone.
        scope: `global` finds one threshold for all sites of a target together, `tensor` one for each site.
        pattern: `unstructured`; `N:M`, as `2:4`, keeps the N largest of every M along the reduction axis (in, then
            kernel). Others let weights go together, by their root mean square: `HxW`, as `4x1`, blocks of H outputs and
            W inputs; `rows` whole outputs; `columns` one position of the kernel in one input channel, for all outputs;
            `inputs` whole input channels.
        embeddings: prune tables that Gather reads, too.
        min_size: weights with fewer elements are left alone.
    """

    name: ClassVar[str] = "prune-magnitude"
    sparsity: float | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    scope: Literal["global", "tensor"] = "global"
    pattern: str = "unstructured"
    embeddings: bool = False
    min_size: int = 256

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_choice(self, "scope", ("global", "tensor"))
        check_targets(self, "targets")
        try:
            pattern = parse_pattern(self.pattern)
        except (ValueError, TypeError) as error:
            raise wrong(self, "pattern", KNOWN) from error
        if isinstance(pattern, NofM):
            if self.sparsity is not None and self.sparsity != pattern.sparsity:
                raise wrong(self, "sparsity", f"be left out, for pattern {self.pattern} means {pattern.sparsity:g}")
            if self.targets:
                raise wrong(self, "targets", f"be left out, for pattern {self.pattern} means {pattern.sparsity:g}")
            return
        if not is_sparsity(self.sparsity) and (self.sparsity is not None or not self.targets):
            raise wrong(self, "sparsity", "lie in [0, 1)")

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Prune every site that fits the options."""
        report, pattern = self.report(), parse_pattern(self.pattern)
        sites = [site for site in self.candidates(model, report) if not self._refused(site, pattern, report)]
        budgets = self._budgets(sites, pattern, report)
        steps = [(budget, site) for budget in budgets for site in budget.aim.sites]
        for budget, site in bench.progress.track(steps, label=self.name, total=len(steps)):
            try:
                cut = _Cut(pattern, Layout.of(site), Form.of(site), budget.threshold())
                budget.spend(_prune(model, site, cut, report))
            except RefusalError as refusal:
                report.skip(site.name, str(refusal))
        return report

    def _budgets(self, sites: Sequence[Site], pattern: Pattern, report: Report) -> list[_Budget]:
        """Which sites go by one threshold."""
        if isinstance(pattern, NofM):
            return [_Budget(Aim(pattern.sparsity, tuple(sites)))]
        aims = aims_of(sites, self.targets, self.sparsity, report)
        if self.scope == "tensor":
            aims = [Aim(aim.sparsity, (site,)) for aim in aims for site in aim.sites]
        return [_Budget(aim, pattern) for aim in aims]

    def _refused(self, site: Site, pattern: Pattern, report: Report) -> bool:
        """Skip an embedding, also one that is tied to another layer."""
        if all(use.node.op != "Gather" for use in site.uses):
            return False
        if isinstance(pattern, NofM) or not self.embeddings:
            report.skip(site.name, _NOT_SUMMED if isinstance(pattern, NofM) else _EMBEDDING)
            return True
        return False


@dataclass(slots=True)
class _Budget:
    """The threshold that the sites of one target share, and the ties of it that are left."""

    aim: Aim
    pattern: Unstructured | Units | None = None
    left: Threshold | None = None
    refusal: RefusalError | None = None

    def threshold(self) -> Threshold | None:
        """What the next site is cut by; None where the pattern needs none.

        Raises:
            RefusalError: there is none, for some weights are no numbers.
        """
        if self.refusal is not None:
            raise self.refusal
        if self.left is None and self.pattern is not None:
            try:
                self.left = _threshold(self.pattern, self.aim)
            except RefusalError as refusal:
                self.refusal = refusal
                raise
        return self.left

    def spend(self, tied: int) -> None:
        """Count the ties that one site took."""
        if self.left is not None:
            self.left = replace(self.left, ties=self.left.ties - tied)


@dataclass(frozen=True, slots=True)
class _Count:
    """What pruning does to a weight: zeros after and before, ties of the threshold spent, relative error."""

    zeros: int
    already: int
    tied: int
    error: float


@dataclass(frozen=True, slots=True)
class _Cut:
    """Prunes one weight; an unstructured one piece by piece, for it may be larger than what memory should hold."""

    pattern: Pattern
    layout: Layout
    form: Form
    threshold: Threshold | None

    def now(self, weight: Array) -> Pruned:
        """The pruned weight."""
        if isinstance(self.pattern, NofM):
            return self.pattern.cut(self.layout, weight)
        if self.threshold is None:
            raise ValueError("weights and units of them go by a threshold")
        return self.pattern.cut(self.layout, weight, self.threshold, self.form)

    def later(self, old: Values) -> Values:
        """The pruned weight, computed whenever it is read."""
        if isinstance(self.pattern, Unstructured) and self.threshold is not None:
            pattern, threshold = self.pattern, self.threshold
            return Streamed(
                old.shape, old.dtype, lambda: (each.pruned for each in pattern.pieces(old.load(), threshold))
            )
        return Produced(old.shape, old.dtype, lambda: self.now(old.load()).weight)

    def count(self, weight: Array) -> _Count:
        """What pruning would do."""
        if not isinstance(self.pattern, Unstructured) or self.threshold is None:
            pruned = self.now(weight)
            return _Count(pruned.zeros, pruned.already, pruned.tied, relative_error(weight, pruned.weight))
        zeros = already = tied = 0
        lost = total = 0.0
        for piece in self.pattern.pieces(weight, self.threshold):
            zeros, already, tied = zeros + piece.already + piece.gone, already + piece.already, tied + piece.tied
            wide = piece.source.astype(np.float64)
            total += float(np.dot(wide, wide))
            wide[piece.pruned != 0] = 0
            lost += float(np.dot(wide, wide))
        return _Count(zeros, already, tied, math.sqrt(lost / total) if total else 0.0)


def _prune(model: Model, site: Site, cut: _Cut, report: Report) -> int:
    """Prune one site; what a large one becomes is computed when it is written. Returns the ties spent."""
    old = values_of(site.weight)
    weight = old.load()
    count = cut.count(weight)
    if count.zeros == count.already:
        report.skip(
            site.name, f"nothing to zero: {count.already / site.size:.1%} is zero already, the rest is too large"
        )
        return count.tied
    model.replace_weight(site.weight, cut.now(weight).weight if old.nbytes < LAZY else cut.later(old))
    _tell(report, site, count)
    return count.tied


@dataclass(frozen=True, slots=True)
class _Scores:
    """The scores of all sites, computed anew in every reading."""

    pattern: Unstructured | Units
    sites: Sequence[Site]

    def __iter__(self) -> Iterator[Array]:
        return (self.pattern.scores(Layout.of(site), site.array(), Form.of(site)) for site in self.sites)


def _threshold(pattern: Unstructured | Units, aim: Aim) -> Threshold:
    """The threshold for some sites together.

    Raises:
        RefusalError: there is none.
    """
    scores = _Scores(pattern, aim.sites)
    try:
        if isinstance(pattern, Unstructured | Blocks):
            return magnitude_threshold(scores, aim.sparsity)
        few = list(scores)  # one for each row or column, which differ in length from site to site
        sizes = [site.size // each.size for site, each in zip(aim.sites, few, strict=True)]
        return unit_threshold(few, sizes, aim.sparsity)
    except ValueError as error:  # NaN is no magnitude
        raise RefusalError(str(error)) from error


def _tell(report: Report, site: Site, count: _Count) -> None:
    before = f", {count.already / site.size:.1%} before" if count.already >= 0.0005 * site.size else ""
    report.change(
        site.name,
        f"{count.zeros / site.size:.1%} zeros{before}",
        bytes_before=site.nbytes,
        bytes_after=site.nbytes,
        error=count.error if math.isfinite(count.error) else None,  # a weight that is no number has none
    )
    if count.zeros == site.size:
        report.warnings.append(f"{site.name}: all weights went; exclude it, lower the sparsity, or use scope 'tensor'")
