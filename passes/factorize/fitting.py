"""The factors of one layer: nearest to its weight, or to what the layer should give, whichever does better."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxpress.passes.aims import Aim, ridge_for, shift_for
from onnxpress.passes.equations import Pair
from onnxpress.passes.factorize.bending import Bend, Trial, bend_of
from onnxpress.passes.factorize.schemes.base import Factors, Ranks, Scheme
from onnxpress.passes.factorize.schemes.layer import Layer, rows_of
from onnxpress.passes.factorize.wanted import Wanted
from onnxpress.passes.inputs import check_sole
from onnxpress.passes.intercepts import intercept_of
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.kernels.least_squares import error
from onnxpress.passes.kernels.normal import Normal
from onnxpress.passes.selection import RefusalError
from onnxpress.passes.storing import narrowed
from onnxpress.passes.threads import threads_for
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site
from onnxpress.rewriter.weights import values_of

Choose = Callable[[Wanted], tuple[Scheme, Ranks]]
"""Which chain a layer gets."""


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """What is to take the place of a layer.

    Attributes:
        scheme: how it is written.
        ranks: of its factors.
        factors: as the model stores them.
        shift: what the bias gains; None for nothing.
        error: of the weight, ‖W − W'‖ / ‖W‖.
        account: what else there is to tell; may be empty.
    """

    scheme: Scheme
    ranks: Ranks
    factors: Factors
    shift: Float64Array | None
    error: float
    account: str


def fit_plain(site: Site, choose: Choose, *, seed: int, why: str = "") -> Chain:
    """The factors nearest to a weight.

    Args:
        site: of the weight.
        choose: gets the weight, and no metric.
        seed: of what is random.
        why: it is not fitted to samples, for the account.

    Raises:
        RefusalError: there is no such chain, or it saves nothing.
    """
    rows = rows_of(site)
    wanted = Wanted(site, rows.astype(np.float64), None, seed)
    with threads_for(min(rows.shape)):
        scheme, ranks = choose(wanted)
        factors = wanted.fit(scheme, ranks).stored(values_of(site.weight).dtype)
    lost = relative_error(rows, factors.dense())
    return Chain(scheme, ranks, factors, None, lost, f"by its weights alone, for {why}" if why else "")


def fit_learnt(model: Model, site: Site, pair: Pair, choose: Choose, *, seed: int, refit: bool = True) -> Chain:
    """The factors that come nearest to what a layer should give; those nearest to its weight where these do better.

    Args:
        model: holds the site.
        site: of the weight.
        pair: its equations, parted by samples: those held out judge.
        choose: gets the wanted weight and its metric.
        seed: of what is random.
        refit: want the dense weight that makes up for the layers before, instead of the one that is there.

    Raises:
        RefusalError: there is no such chain, it saves nothing, or the equations cannot be solved.
    """
    rows, bias = rows_of(site), intercept_of(model, site) is not None
    try:
        with threads_for(rows.shape[1]):
            ridge = ridge_for(pair, rows, bias=bias) if refit else math.inf
            return _Layer(site, pair, rows, ridge, bias, seed).better(choose, bend_of(model, site, pair))
    except ValueError as failure:
        raise RefusalError(str(failure)) from failure


def fit_either(
    model: Model, site: Site, pair: Pair | RefusalError, choose: Choose, *, seed: int, refit: bool = True
) -> Chain:
    """As `fit_learnt`, or where there are no equations as `fit_plain`."""
    if isinstance(pair, Pair):
        return fit_learnt(model, site, pair, choose, seed=seed, refit=refit)
    return fit_plain(site, choose, seed=seed, why=str(pair))


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """A layer to be fitted to samples.

    Attributes:
        site: of its weight.
        pair: its equations.
        rows: its weight.
        ridge: how much the wanted weight is drawn towards the one that is there.
        bias: whether there is one to fit.
        seed: of what is random.
    """

    site: Site
    pair: Pair
    rows: Array
    ridge: float
    bias: bool
    seed: int

    def better(self, choose: Choose, bend: Bend | None) -> Chain:
        """The chain that does better on samples held out.

        Args:
            choose: gets what is wanted.
            bend: makes outputs right behind the activation that reads them; None for before it.

        Raises:
            RefusalError: there is none.
        """
        wanted, held_out = self._wanted(self.pair.fit), self.pair.held_out
        form = choose(wanted)
        plain, plain_refusal = _tried(Wanted(self.site, self.rows.astype(np.float64), None, self.seed), form)
        fitted, fitted_refusal = _tried(wanted, form)
        before = math.inf if plain is None else error(held_out, plain.dense())
        after = math.inf if fitted is None else error(held_out, fitted.dense(), self._shift(self.pair.fit, fitted))
        best = None if after < before else plain
        trial = None if bend is None or fitted is None else bend.trial(wanted, form, fitted, rival=best)
        if best is not None and trial is None:
            account = f"output error {before:.2%} on samples held out, not corrected"
            return self._chain(form, best.stored(self._dtype), None, account)
        if fitted is None:
            raise plain_refusal or RefusalError("has no such factors") from fitted_refusal
        told = f"{before:.2%}" if best else f"{before:.2%} -> {after:.2%}"
        return self._learnt(form, fitted, trial, f"output error {told} on samples held out")

    def _learnt(self, form: tuple[Scheme, Ranks], start: Factors, trial: Trial | None, account: str) -> Chain:
        """The factors by all samples, from those by the samples to fit."""
        wanted, moved = self._wanted(self.pair.total), None
        found = wanted.fit(*form, start)
        if trial is not None:
            found, moved = trial.repeat(wanted, form, found)
            account += f", behind {trial.bend.behind.op} {trial.before:.2%} -> {trial.after:.2%}"
        stored = found.stored(self._dtype)
        shift = self._shift(self.pair.total, stored)
        return self._chain(form, stored, shift if shift is None or moved is None else shift + moved, account)

    def _chain(self, form: tuple[Scheme, Ranks], factors: Factors, shift: Float64Array | None, account: str) -> Chain:
        return Chain(*form, factors, shift, relative_error(self.rows, factors.dense()), account)

    def _wanted(self, normal: Normal) -> Wanted:
        """What factors are sought for, by some equations."""
        aim = Aim.of(normal, self.rows, self.ridge, bias=self.bias)
        return Wanted(self.site, aim.target, aim.metric, self.seed)

    def _shift(self, normal: Normal, factors: Factors) -> Float64Array | None:
        return shift_for(normal, factors.dense(), bias=self.bias)

    @property
    def _dtype(self) -> np.dtype[Any]:
        return values_of(self.site.weight).dtype


def _tried(wanted: Wanted, form: tuple[Scheme, Ranks]) -> tuple[Factors | None, RefusalError | None]:
    """Factors, or why there are none."""
    try:
        return wanted.fit(*form), None
    except RefusalError as refusal:
        return None, refusal


def write_dense(model: Model, site: Site, chain: Chain) -> None:
    """Give a layer the weight and the bias that its chain stands for, so that the layers behind read what it will give.

    A weight that others read, too, stays.

    Raises:
        RefusalError: the type of weight or bias cannot hold them; nothing was changed.
    """
    try:
        check_sole(model, site)
    except RefusalError:
        return
    stored = values_of(site.weight)
    weight = narrowed(Layer.of(site).from_rows(chain.factors.dense()), stored.dtype)
    intercept = intercept_of(model, site)
    if chain.shift is not None and intercept is not None:
        intercept.add(model, chain.shift)
    model.replace_weight(site.weight, weight)
