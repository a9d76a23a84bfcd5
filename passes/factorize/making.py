"""Chosen chains, fitted to samples one layer after the other, and put in the places of their layers."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from onnxpress.passes.base import Workbench
from onnxpress.passes.equations import Pair
from onnxpress.passes.factorize.fitting import Chain
from onnxpress.passes.factorize.lookup import fit_seen
from onnxpress.passes.factorize.offers import Choice
from onnxpress.passes.factorize.sequential import fit_in_turn, put
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.refit import account, refit_site
from onnxpress.passes.report import Report
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, find_sites
from onnxpress.rewriter.walk import nodes_behind


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A model with chains.

    Attributes:
        model: a copy of the one that was given.
        choice: the offers that were taken.
        report: a change for each of them, and for layers behind that were refitted, with what was measured.
        refused: reasons why others could not be fitted, by name of the site.
    """

    model: Model
    choice: Choice
    report: Report
    refused: Mapping[str, str]


def make(
    model: Model, choice: Choice, bench: Workbench, *, refitted: Collection[str] | None = (), nonlinear: bool = False
) -> Made:
    """Fit all chains of a choice, each to what its layer reads behind the chains before it.

    Args:
        model: is not changed.
        choice: offers for layers of it.
        bench: brings the samples to learn from.
        refitted: names of sites whose weights make up for chains before them, where they are not chosen; None where
            chains do not, either.
        nonlinear: fit chains to what an activation makes of the outputs, where that does better.

    Raises:
        FeedError: there are no samples.
    """
    copy, report, refit = model.clone(), Report("factorize"), refitted is not None

    def chain(site: Site, pair: Pair | RefusalError) -> Chain | None:
        offer = choice.get(site.name)
        if offer is None:
            _refit(copy, site, pair, report)
            return None
        return fit_seen(copy, site, pair, lambda _: (offer.scheme, offer.ranks), bench, refit=refit)

    sites = _in_turn(copy, choice, refitted or ())
    found, refused = fit_in_turn(copy, model, sites, bench, chain, bent=choice if nonlinear and refit else ())
    order = [site.name for site in find_sites(copy)]
    for site, each in found:
        put(copy, site, each, report)
    sweep(copy)
    report.changes.sort(key=lambda change: order.index(change.site))
    return Made(copy, {site.name: choice[site.name] for site, _ in found}, report, refused)


def _in_turn(model: Model, choice: Choice, refitted: Collection[str]) -> list[Site]:
    """Sites that get chains, and those behind them that are refitted."""
    sites = find_sites(model)
    behind = nodes_behind(model.graph, [use.node for site in sites if site.name in choice for use in site.uses])
    return [site for site in sites if site.name in choice or (site.name in refitted and id(site.node) in behind)]


def _refit(model: Model, site: Site, pair: Pair | RefusalError, report: Report) -> None:
    """Give a layer the weight that makes up for the chains before it, where that does better on samples held out.

    Raises:
        RefusalError: nothing is known of what it reads, or its equations cannot be solved.
    """
    if isinstance(pair, RefusalError):
        raise pair
    before = site.array()
    found = refit_site(model, site, pair)
    if math.isfinite(found.ridge):
        nbytes, error = site.nbytes, relative_error(before, site.array())
        report.change(site.name, account(found), bytes_before=nbytes, bytes_after=nbytes, error=error)
