"""Group-wise pruning of kernel positions: whole columns of the im2col matrix, so that dense products get smaller."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from onnxpress.passes.base import Workbench
from onnxpress.passes.equations import Pair, equations
from onnxpress.passes.prune.positions.kept import Kept, KeptRule, prune_site
from onnxpress.passes.prune.positions.rewriting import rewrite
from onnxpress.passes.prune.zeros.targets import is_sparsity
from onnxpress.passes.report import Report
from onnxpress.passes.selection import (
    RefusalError,
    SitePass,
    check_choice,
    check_count,
    check_exactly_one,
    check_flag,
    wrong,
)
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.model import DEFAULT_DOMAINS, Model
from onnxpress.rewriter.sites import Site

_NO_SAMPLES = "no samples: positions go by the size of their weights, the rest is not refitted; give some with --data"


@dataclass(frozen=True, kw_only=True)
class PrunePositions(SitePass):
    """Drop positions of Conv kernels for all filters together (Lebedev and Lempitsky, 2016, "group-wise brain damage").

    A position of a k x k kernel in one input channel is a column of the matrix that multiplies the patches. Without it
    the product is smaller: a Conv with a smaller or dilated kernel, a sum of few such, or a matrix times shifted copies
    of the input. It is written so where that is measured to be faster; else the positions stay as zeros, which make
    the file smaller once it is encoded. With samples the positions go that are missed least once the others make up
    for them by least squares, and the others are refitted.

    Attributes:
        positions: how many are kept in each input channel, at least 1.
        sparsity: fraction that goes, in [0, 1); at least one position stays.
        error: as much goes as leaves the relative error of the layer at no more than this, in [0, 1): that of its
            outputs as second moments predict it, without samples that of its weight. 0 drops what is zero already.
        per_channel: each input channel has a set of positions of its own; by default all have the same.
        shape: `free`; or `box`, positions that lie evenly in a box, so that one smaller Conv does.
        saliency: `magnitude` or `moments` (which needs samples); None takes moments where there are samples.
        reconstruct: refit the weights that are kept, where there are samples.
        rewrite: write smaller products where they are faster; else only zeros are left.
    """

    name: ClassVar[str] = "prune-positions"
    learns: ClassVar[bool] = True
    positions: int | None = None
    sparsity: float | None = None
    error: float | None = None
    per_channel: bool = False
    shape: Literal["free", "box"] = "free"
    saliency: Literal["magnitude", "moments"] | None = None
    reconstruct: bool = True
    rewrite: bool = True

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_exactly_one(self, ("positions", "sparsity", "error"))
        if self.positions is not None:
            check_count(self, "positions")
        for each in ("sparsity", "error"):
            if getattr(self, each) is not None and not is_sparsity(getattr(self, each)):
                raise wrong(self, each, "lie in [0, 1)")
        for each in ("per_channel", "reconstruct", "rewrite"):
            check_flag(self, each)
        check_choice(self, "shape", ("free", "box"))
        if self.saliency is not None:
            check_choice(self, "saliency", ("magnitude", "moments"))
        if self.per_channel and self.shape == "box":
            raise wrong(self, "shape", "be free with per_channel: a box is one Conv only where all channels share it")

    @property
    def times(self) -> bool:
        """See `Pass.times`."""
        return self.rewrite

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Prune the kernel of every Conv that fits the options, then write smaller products."""
        report = self.report()
        if bench.feed is None and self.saliency == "moments":
            raise FeedError("second moments come from samples; give some with --data, or set saliency to magnitude")
        sites = [site for site in self.candidates(model, report) if not _refused(site, report)]
        if bench.feed is None and sites and self.saliency is None:
            report.warnings.append(_NO_SAMPLES)
        done: list[Kept] = []
        for site, pair in self._steps(model, sites, bench):
            try:
                done.append(prune_site(model, site, self._rule(), pair))
            except RefusalError as refusal:
                report.skip(site.name, str(refusal))
        if self.rewrite:
            rewrite(model, done, bench, report)
        else:
            for each in done:
                report.change(
                    each.site.name,
                    f"{each.action}; zeros, which are smaller only once encoded",
                    bytes_before=each.site.nbytes,
                    bytes_after=each.site.nbytes,
                    error=each.error,
                )
        return report

    def _rule(self) -> KeptRule:
        return KeptRule(
            positions=self.positions,
            sparsity=self.sparsity,
            error=self.error,
            per_channel=self.per_channel,
            box=self.shape == "box",
            moments=self.saliency != "magnitude",
            refit=self.reconstruct,
        )

    def _steps(
        self, model: Model, sites: Sequence[Site], bench: Workbench
    ) -> Iterator[tuple[Site, Pair | RefusalError | None]]:
        """Every site with its equations, where they are of use."""
        if bench.feed is None or (self.saliency == "magnitude" and not self.reconstruct):
            for site in bench.progress.track(sites, label=self.name, total=len(sites)):
                yield site, None
        else:
            yield from equations(model, model.clone(), sites, bench)


def _refused(site: Site, report: Report) -> bool:
    """Skip what has no positions that could go."""
    if any(use.node.op not in ("Conv", "FusedConv") for use in site.uses):
        report.skip(site.name, f"is a weight of {site.op}; only the kernel of a Conv has positions")
    elif site.op == "Conv" and (site.node.domain or "") not in DEFAULT_DOMAINS:
        report.skip(site.name, f"is a weight of {site.node.domain}.Conv; only the kernel of a standard Conv is known")
    elif math.prod(site.shape[2:]) == 1:
        sides = "x".join(map(str, site.shape[2:]))
        report.skip(site.name, f"has a {sides} kernel: no position can go; prune-channels removes whole inputs")
    else:
        return False
    return True
