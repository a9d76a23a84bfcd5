"""Pruning by what layers read: weights go where the outputs suffer least, and those that stay make up for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np

from onnxpress.passes.base import Workbench
from onnxpress.passes.equations import Pair, equations
from onnxpress.passes.inputs import check_sole, check_width, reading_of
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.prune.zeros.budget import ALLOCATIONS, Allocation, Pruner, shares
from onnxpress.passes.prune.zeros.criteria import SALIENCIES, Criterion, Saliency
from onnxpress.passes.prune.zeros.layers import Layer
from onnxpress.passes.prune.zeros.orders import Orders
from onnxpress.passes.prune.zeros.patterns import KNOWN, Form, NofM, parse_pattern
from onnxpress.passes.prune.zeros.targets import Aim, aims_of, check_targets, is_sparsity
from onnxpress.passes.refit import refit_site
from onnxpress.passes.report import Report
from onnxpress.passes.row_sums import ROWS
from onnxpress.passes.selection import Layout, RefusalError, SitePass, check_choice, wrong
from onnxpress.passes.storing import narrowed
from onnxpress.passes.varied import with_varied
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site

_VARIED = 4 * ROWS
"""Tokens up to which samples are varied for an N:M pattern, and rows of a layer then. Made-up rows teach less than real
ones, and here there is time for more of them: no sparsity of layers has to be found out before."""

_EMBEDDING = "is an embedding: its rows are looked up, not summed, so no other weight makes up for one"


@dataclass(frozen=True, kw_only=True)
class PruneSecondOrder(SitePass):
    """Zero weights by the second moments of what each layer reads, and refit those that stay, from samples alone.

    Layers are taken in graph order. Each reads what the layers before it, already pruned, give; what it should give is
    what the original gave. First the dense weight that does this best is fitted, then mask and weights are chosen so
    that little of it is lost, then the weights that stay, and the bias, are fitted by least squares, drawn towards the
    original weights as far as samples that were held out say. No labels, no gradients.

    Attributes:
        sparsity: fraction of zeros afterwards in all layers together, in [0, 1); not needed where `pattern` is N:M,
            which implies it, or where `targets` says what it is.
        targets: sparsities of some layers by globs over site, weight or operator names, as `{"Gemm": 0.9}`; the first
            that matches a site holds for it. Sites that match none go by `sparsity`; without one they are left alone.
        pattern: as in `prune-magnitude`: `unstructured`, `N:M`, `HxW`, `rows`, `columns` or `inputs`.
        saliency: `alps` finds mask and weights together (Meng et al., 2024) and is the best; `obs` zeroes column by
            column while those behind make up for it (Hassibi and Stork, 1993; SparseGPT, 2023); `obd` (LeCun et al.,
            1990) takes w²·Σx², `wanda` (Sun et al., 2024) the same within each output, `magnitude` w².
        allocation: of the sparsity over the layers: `error` weighs each layer's error at several sparsities with what
            that does to the model's outputs, both measured; `uniform` gives all the same; `global` lets the weights of
            least w²·Σx², as a part of their layer's outputs, or of least magnitude, go wherever they are.
        reconstruct: refit the weights that stay, and the biases.
        min_size: weights with fewer elements are left alone.
        vary: where samples of a model that reads tokens are few, learn from variations of them, too: copies with tokens
            replaced by near ones of its embedding table.
        permute: with an N:M pattern, put what lies between two layers in another order, in which groups of M lose less;
            the order changes nothing else. Where an order cannot change, the report says why.
    """

    name: ClassVar[str] = "prune-second-order"
    learns: ClassVar[bool] = True
    sparsity: float | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    pattern: str = "unstructured"
    saliency: Saliency = "alps"
    allocation: Allocation = "error"
    reconstruct: bool = True
    min_size: int = 256
    vary: bool = True
    permute: bool = True

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_choice(self, "saliency", SALIENCIES)
        check_choice(self, "allocation", ALLOCATIONS)
        check_targets(self, "targets")
        for name in ("reconstruct", "vary", "permute"):
            if not isinstance(getattr(self, name), bool):
                raise wrong(self, name, "be true or false")
        try:
            pattern = parse_pattern(self.pattern)
        except (ValueError, TypeError) as error:
            raise wrong(self, "pattern", KNOWN) from error
        if isinstance(pattern, NofM):
            if self.sparsity is not None and self.sparsity != pattern.sparsity:
                raise wrong(self, "sparsity", f"be left out, for pattern {self.pattern} means {pattern.sparsity:g}")
            if self.targets:
                raise wrong(self, "targets", f"be left out, for pattern {self.pattern} means {pattern.sparsity:g}")
        elif not is_sparsity(self.sparsity) and (self.sparsity is not None or not self.targets):
            raise wrong(self, "sparsity", "lie in [0, 1)")

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Prune every site that fits the options.

        Raises:
            FeedError: there are no samples.
        """
        if bench.feed is None:
            raise FeedError(f"{self.name} learns from samples what layers read; give some with --data")
        report, original = self.report(), model.clone()
        pattern, given, rows = parse_pattern(self.pattern), bench.feed, ROWS
        if self.vary:
            enough = _VARIED if isinstance(pattern, NofM) else ROWS
            bench = with_varied(model, bench, report, rows=enough)
            rows = ROWS if bench.feed is given else enough
        sites = [site for site in self.candidates(model, report) if not _refused(model, site, report)]
        pruner = Pruner(self._criterion, self.reconstruct)
        wanted: dict[Site, float] = {}
        for aim in self._aims(sites, report):
            allocation = "uniform" if isinstance(pattern, NofM) else self.allocation
            wanted |= shares(model, aim, pruner, allocation, bench, report)
        orders = None
        if self.permute and isinstance(pattern, NofM):
            orders = Orders.of(model, list(wanted), pattern, seed=bench.seed)
        for site, pair in equations(model, original, list(wanted), bench, rows=rows):
            try:
                if isinstance(pair, RefusalError):
                    raise pair
                self.prune_site(model, site, pair, wanted[site], report, orders=orders)
            except RefusalError as refusal:
                report.skip(site.name, str(refusal))
        if orders is not None:
            orders.apply(model)
        return report

    def _aims(self, sites: Sequence[Site], report: Report) -> list[Aim]:
        pattern = parse_pattern(self.pattern)
        if isinstance(pattern, NofM):
            return [Aim(pattern.sparsity, tuple(sites))] if sites else []
        return aims_of(sites, self.targets, self.sparsity, report)

    def _criterion(self, site: Site) -> Criterion:
        return Criterion(self.saliency, parse_pattern(self.pattern), Form.of(site))

    def prune_site(
        self, model: Model, site: Site, pair: Pair, sparsity: float, report: Report, *, orders: Orders | None = None
    ) -> None:
        """Prune one site by its equations, and refit what is left of it.

        Args:
            model: holds the site.
            site: to be pruned.
            pair: its equations.
            sparsity: fraction that goes.
            report: takes the account.
            orders: choose one of its inputs, in which the pattern holds once the orders are applied.

        Raises:
            RefusalError: its equations cannot be solved.
        """
        layout, stored = Layout.of(site), site.array()
        layer = Layer.of(model, site, pair, self._criterion(site), reconstruct=self.reconstruct)
        try:
            sparse = layer.prune(sparsity, arrange=None if orders is None else partial(orders.choose, site))
        except ValueError as error:
            raise RefusalError(str(error)) from error
        kept = np.where(sparse.mask, layer.weight, 0) if self.reconstruct else sparse.weight
        model.replace_weight(site.weight, narrowed(layout.from_rows(kept), stored.dtype))
        told = f"{1 - np.count_nonzero(kept) / kept.size:.1%} zeros{'' if orders is None else orders.phrase(site)}"
        if self.reconstruct:
            choice = refit_site(model, site, pair, mask=layout.from_rows(sparse.mask))
            told += f", output error {choice.before:.1%} -> {choice.after:.1%} on samples held out"
        _tell(report, site, told, relative_error(stored, site.array()))
        if not sparse.mask.any():
            report.warnings.append(f"{site.name}: all weights went; exclude it, or lower the sparsity")


def _tell(report: Report, site: Site, told: str, error: float) -> None:
    if not error:
        report.skip(site.name, "all its weights stay: those of other layers matter less")
        return
    measured = error if math.isfinite(error) else None
    report.change(site.name, told, bytes_before=site.nbytes, bytes_after=site.nbytes, error=measured)


def _refused(model: Model, site: Site, report: Report) -> bool:
    """Skip a weight for which nothing can be learnt from samples."""
    if any(use.node.op == "Gather" for use in site.uses):
        report.skip(site.name, _EMBEDDING)
        return True
    try:
        check_sole(model, site)
        check_width(site)
        for use in site.uses:
            reading_of(model, use)
    except RefusalError as refusal:
        report.skip(site.name, str(refusal))
        return True
    return False
