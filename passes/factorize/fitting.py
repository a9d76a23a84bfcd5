"""The factors of one layer: nearest to its weight, or to what the layer should give, whichever does better."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnxpress.passes.aims import Aim, ridge_for, shift_for
from onnxpress.passes.equations import Pair
from onnxpress.passes.factorize.schemes.base import Factors, Ranks, Scheme
from onnxpress.passes.factorize.schemes.layer import Layer, rows_of
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


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """What factors are sought for.

    Attributes:
        site: gives the geometry.
        target: T, [groups·out, in·∏ sides].
        metric: H, [groups, k, k]; None for the identity.
        seed: of what is random.
    """

    site: Site
    target: Float64Array
    metric: Float64Array | None
    seed: int

    def fit(self, scheme: Scheme, ranks: Ranks, start: Factors | None = None) -> Factors:
        """Factors of some ranks, perhaps from others that are near.

        Raises:
            RefusalError: they do not converge.
        """
        return scheme.fit(self.site, self.target, self.metric, ranks, self.seed, start)

    def kept(self, factors: Factors) -> float:
        """The part of the energy tr(T·H·Tᵀ) that factors keep."""
        lost, whole = self._energy(self.target - factors.dense()), self._energy(self.target)
        return 1 - lost / whole if whole else 1.0

    def _energy(self, rows: Float64Array) -> float:
        if self.metric is None:
            return float(np.square(rows).sum())
        parts = rows.reshape(len(self.metric), -1, rows.shape[1])
        return float(((parts @ self.metric) * parts).sum())


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
    return _chain(scheme, ranks, factors, rows, account=f"by its weights alone, for {why}" if why else "")


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
            return _better(site, pair, choose, rows, _Manner(seed, ridge, bias))
    except ValueError as failure:
        raise RefusalError(str(failure)) from failure


def fit_either(
    model: Model, site: Site, pair: Pair | RefusalError, choose: Choose, *, seed: int, refit: bool = True
) -> Chain:
    """As `fit_learnt`, or where there are no equations as `fit_plain`."""
    if isinstance(pair, Pair):
        return fit_learnt(model, site, pair, choose, seed=seed, refit=refit)
    return fit_plain(site, choose, seed=seed, why=str(pair))


@dataclass(frozen=True, slots=True)
class _Manner:
    """How a layer is fitted: seed, what draws the wanted weight to the one that is there, whether there is a bias."""

    seed: int
    ridge: float
    bias: bool

    def wanted(self, site: Site, normal: Normal, rows: Array) -> Wanted:
        """What factors are sought for, by some equations."""
        aim = Aim.of(normal, rows, self.ridge, bias=self.bias)
        return Wanted(site, aim.target, aim.metric, self.seed)


def _better(site: Site, pair: Pair, choose: Choose, rows: Array, manner: _Manner) -> Chain:
    bias, wanted = manner.bias, manner.wanted(site, pair.fit, rows)
    scheme, ranks = choose(wanted)
    plain, plain_refusal = _tried(Wanted(site, rows.astype(np.float64), None, manner.seed), scheme, ranks)
    fitted, fitted_refusal = _tried(wanted, scheme, ranks)
    if plain is None and fitted is None:
        raise plain_refusal or RefusalError("has no such factors") from fitted_refusal
    before = math.inf if plain is None else error(pair.held_out, plain.dense())
    after = math.inf
    if fitted is not None:
        found = fitted.dense()
        after = error(pair.held_out, found, shift_for(pair.fit, found, bias=bias))
    dtype = values_of(site.weight).dtype
    if plain is not None and not after < before:
        account = f"output error {before:.2%} on samples held out, not corrected"
        return _chain(scheme, ranks, plain.stored(dtype), rows, account=account)
    total = pair.total
    last = manner.wanted(site, total, rows).fit(scheme, ranks, fitted).stored(dtype)
    account = f"output error {before:.2%} -> {after:.2%} on samples held out"
    return _chain(scheme, ranks, last, rows, shift=shift_for(total, last.dense(), bias=bias), account=account)


def _tried(wanted: Wanted, scheme: Scheme, ranks: Ranks) -> tuple[Factors | None, RefusalError | None]:
    """Factors, or why there are none."""
    try:
        return wanted.fit(scheme, ranks), None
    except RefusalError as refusal:
        return None, refusal


def _chain(
    scheme: Scheme, ranks: Ranks, factors: Factors, rows: Array, *, account: str, shift: Float64Array | None = None
) -> Chain:
    return Chain(scheme, ranks, factors, shift, relative_error(rows, factors.dense()), account)


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
