"""Layers factorized one after the other, and replaced by chains of smaller ones."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from onnxpress.passes.activations import activation_behind
from onnxpress.passes.base import Workbench
from onnxpress.passes.equations import Pair, equations
from onnxpress.passes.factorize.chain import refuse_different_uses, replace_by_chain
from onnxpress.passes.factorize.fitting import Chain, fit_plain, write_dense
from onnxpress.passes.factorize.lookup import fit_seen
from onnxpress.passes.factorize.matrix import refuse_old
from onnxpress.passes.factorize.rules import RankedPass, shown
from onnxpress.passes.factorize.schemes.base import Ranks, Scheme
from onnxpress.passes.factorize.wanted import Wanted
from onnxpress.passes.report import Report
from onnxpress.passes.selection import RefusalError, check_flag, skipping
from onnxpress.passes.varied import with_varied
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site


@dataclass(frozen=True, kw_only=True)
class FactorizePass(RankedPass):
    """A pass that replaces layers by chains of smaller ones.

    With samples, layers are taken in graph order: each reads what the layers before, already factorized, give, and its
    factors and its bias are those that come nearest to what the original gave (Zhang et al., "Accelerating Very Deep
    Convolutional Networks", 2016). Where factors nearest to the weights alone do better on samples held out, these are
    taken. Without samples, and for layers whose inputs cannot be observed, the error of the weights counts.

    Attributes:
        correct: with samples, fit to the outputs of layers; otherwise samples are not used.
        refit: make up for the layers before, too. Without, the factors are those that change least what a layer makes
            of what it reads, and only the bias makes up for more: for samples unlike what the model will see.
        nonlinear: with `refit`, fit to what a Relu, Clip, LeakyRelu, PRelu or maxout makes of the outputs: where it is
            flat, errors do no harm. Only where that does better on samples held out; takes about twice the time.
        vary: where samples of a model that reads tokens are few, learn from variations of them, too, as
            `prune-second-order` does.
    """

    learns: ClassVar[bool] = True
    correct: bool = True
    refit: bool = True
    nonlinear: bool = False
    vary: bool = True

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_flag(self, "correct")
        check_flag(self, "refit")
        check_flag(self, "nonlinear")
        check_flag(self, "vary")

    @abstractmethod
    def scheme(self, site: Site) -> Scheme:
        """How a site is to be written.

        Raises:
            RefusalError: not at all.
        """

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Factorize every site that is made smaller by it."""
        report = self.report()
        sites = self._possible(model, report)
        if bench.feed is None or not self.correct:
            for site in bench.progress.track(sites, label=self.name, total=len(sites)):
                with skipping(report, site.name):
                    chain = fit_plain(site, self._chosen, seed=bench.seed)
                    put(model, site, chain, report)
        elif sites:
            self._learn(model, sites, bench, report)
        sweep(model)
        return report

    def _learn(self, model: Model, sites: Sequence[Site], bench: Workbench, report: Report) -> None:
        """What is learnt from samples."""
        original = model.clone()
        bench = with_varied(original, bench, report) if self.vary else bench

        def chain(site: Site, pair: Pair | RefusalError) -> Chain:
            return fit_seen(model, site, pair, self._chosen, bench, refit=self.refit)

        bent = [site.name for site in sites] if self.nonlinear and self.refit else ()
        found, refused = fit_in_turn(model, original, sites, bench, chain, bent=bent)
        for name, why in refused.items():
            report.skip(name, why)
        for site, each in found:
            put(model, site, each, report)

    def _possible(self, model: Model, report: Report) -> list[Site]:
        """The candidates that can be written as chains."""
        left = []
        for site in self.candidates(model, report):
            with skipping(report, site.name):
                refuse_different_uses(site)
                refuse_old(model, site)
                scheme = self.scheme(site)
                scheme.refuse(site)
                self.foreseen(scheme, site)
                left.append(site)
        return left

    def _chosen(self, wanted: Wanted) -> tuple[Scheme, Ranks]:
        scheme = self.scheme(wanted.site)
        return scheme, self.choose(scheme, wanted)


def fit_in_turn(
    model: Model,
    original: Model,
    sites: Sequence[Site],
    bench: Workbench,
    fit: Callable[[Site, Pair | RefusalError], Chain | None],
    *,
    bent: Collection[str] = (),
) -> tuple[list[tuple[Site, Chain]], dict[str, str]]:
    """Chains for sites, each fitted to what its layer reads behind the chains before it.

    Between two steps nothing but weights may change: layers get the dense weights that their chains stand for, and
    `put` sets the chains in their places in the end.

    Args:
        model: holds the sites; their weights and biases change.
        original: what it was.
        sites: in any order.
        bench: brings the samples to learn from.
        fit: makes a chain of a site's equations, or does something else with the site.
        bent: names of sites whose chains are fitted to what an activation makes of the outputs (`bending`).

    Returns:
        The chains, and reasons why others could not be fitted, by name of the site.

    Raises:
        FeedError: there are no samples.
    """
    found, refused = list[tuple[Site, Chain]](), dict[str, str]()
    kept = [site.name for site in sites if site.name in bent and activation_behind(model, site)]
    for site, pair in equations(model, original, sites, bench, kept=kept):
        try:
            if (chain := fit(site, pair)) is not None:
                write_dense(model, site, chain)
                found.append((site, chain))
        except RefusalError as refusal:
            refused[site.name] = str(refusal)
    return found, refused


def put(model: Model, site: Site, chain: Chain, report: Report) -> None:
    """Put a chain in the place of a layer, and tell of it."""
    before = site.nbytes
    cost, full = chain.scheme.cost(site, chain.ranks), chain.scheme.ranks(site)
    after = replace_by_chain(model, site, chain.factors.links())
    told = [shown(chain.ranks, full), cost.share(), *([chain.account] if chain.account else [])]
    report.change(site.name, ", ".join(told), bytes_before=before, bytes_after=after, error=chain.error)
