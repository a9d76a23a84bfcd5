"""Few Gaussians in place of the distribution of many weights (Ullrich et al., "Soft Weight-Sharing", 2017)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Codes, Float64Array, pieces, smallest_unsigned

LEARNED = 1 << 15
"""Values that a mixture is learnt from at most; of more, a sample."""

_EVEN = 4
"""One in so many components starts evenly spread, so that outliers find one near."""

_BINS = 4096
"""Of the histogram that tells where values are dense."""

_NARROW = 1e-6
"""Standard deviation at the start, at least, in parts of the largest value."""

_ROUNDS = 100
"""Of expectation and maximisation, at most."""

_SCORES = 1 << 22
"""Likelihoods held at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """Gaussians, the spike at zero among them.

    Attributes:
        means: ascending, [components]; that of the spike is 0.0.
        variances: positive, [components].
        portions: positive, [components]; they sum to one where all components are there.
        spike: which of them is the spike.
    """

    means: Float64Array
    variances: Float64Array
    portions: Float64Array
    spike: int

    def assign(self, values: Array) -> Codes:
        """The component that is most responsible for each value; zero belongs to the spike.

        Args:
            values: any shape and float dtype, finite.
        """
        codes = np.empty(values.shape, smallest_unsigned(self.means.size))
        flat = codes.reshape(-1)
        level = np.log(self.portions) - np.log(self.variances) / 2
        start = 0
        for piece in pieces(values, size=max(1, _SCORES // self.means.size)):
            wide = piece.astype(np.float64)
            score = level - (wide[:, np.newaxis] - self.means) ** 2 / (2 * self.variances)
            flat[start : start + wide.size] = np.where(wide == 0, self.spike, np.argmax(score, axis=1))
            start += wide.size
        return codes

    def merged(self, overlap: float) -> Mixture:
        """The same with neighbours that overlap more taken together, those that overlap most first.

        Args:
            overlap: Bhattacharyya's coefficient ∫ √(p·q), 0 for components that are apart, 1 for equal ones.
        """
        means, variances, portions = (list(map(float, each)) for each in (self.means, self.variances, self.portions))
        spike = self.spike
        while len(means) > 1:
            shared = overlaps(np.array(means), np.array(variances))
            at = int(np.argmax(shared))
            if shared[at] <= overlap:
                break
            pair, weight = slice(at, at + 2), np.array(portions[at : at + 2])
            weight /= weight.sum()
            square = float(weight @ (np.array(variances[pair]) + np.array(means[pair]) ** 2))
            mean = 0.0 if spike in (at, at + 1) else float(weight @ np.array(means[pair]))
            means[pair], variances[pair], portions[pair] = [mean], [square - mean**2], [sum(portions[pair])]
            spike -= spike > at
        return Mixture(np.array(means), np.array(variances), np.array(portions), spike)


def overlaps(means: Float64Array, variances: Float64Array) -> Float64Array:
    """Bhattacharyya's coefficient of each Gaussian and the next, [components − 1]."""
    total = variances[:-1] + variances[1:]
    height = np.sqrt(2 * np.sqrt(variances[:-1] * variances[1:]) / total)
    found: Float64Array = height * np.exp(-(np.diff(means) ** 2) / (4 * total))
    return found


def fit_mixture(values: Array, components: int, *, seed: int = 0) -> Mixture:
    """A mixture by expectation maximisation, from narrow components that lie as densely as the values ask for.

    They lie by the cube root of the density of the values, as levels do that lose least (Panter and Dite, 1951), a
    quarter of them evenly. Zeros do not take part; they make the spike the heavier.

    Args:
        values: any shape and float dtype, finite.
        components: at least 2; the one that ends nearest to zero becomes the spike.
        seed: of the sample.

    Raises:
        ValueError: values that are not finite, or too few that are not zero.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    chosen, zeros = _sample(values, seed)
    if chosen.size < 2 * components:
        raise ValueError(f"{chosen.size} weights that are not zero are too few for {components} components")
    scale = float(np.abs(chosen).max())
    start = _start(chosen / scale, components)
    widths = np.maximum(np.gradient(start) / 2, _NARROW)
    mixture = GaussianMixture(
        components,
        covariance_type="spherical",
        means_init=start[:, np.newaxis],
        weights_init=np.full(components, 1 / components),
        precisions_init=widths**-2,
        init_params="random",  # all is given; k-means would run in vain
        max_iter=_ROUNDS,
        reg_covar=1e-9,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(chosen[:, np.newaxis] / scale)
    return _spiked(mixture.means_[:, 0] * scale, mixture.covariances_ * scale**2, mixture.weights_ * (1 - zeros), zeros)


def settle(values: Array, mixture: Mixture) -> tuple[Mixture, Float64Array]:
    """Who takes part, and what the values of each component become.

    Args:
        values: any shape and float dtype, finite.
        mixture: of them.

    Returns:
        The mixture without components that are most responsible for no value, which changes no other's values, and for
        each the mean of its values; the spike stays, with 0.0.
    """
    count, total = np.zeros(mixture.means.size), np.zeros(mixture.means.size)
    for piece in pieces(values):
        codes = mixture.assign(piece)
        count += np.bincount(codes, minlength=count.size)
        total += np.bincount(codes, piece.astype(np.float64), minlength=count.size)
    used = count > 0
    used[mixture.spike] = True
    means = total / np.maximum(count, 1)
    means[mixture.spike] = 0
    left = mixture.means[used], mixture.variances[used], mixture.portions[used]
    return Mixture(*left, int(np.count_nonzero(used[: mixture.spike]))), means[used]


def _sample(values: Array, seed: int) -> tuple[Float64Array, float]:
    """Values to learn from, without zeros, and the part of zeros."""
    count = zeros = 0
    for piece in pieces(values):
        if not np.isfinite(piece).all():
            raise ValueError("cannot fit values that are not finite")
        zeros += int(np.count_nonzero(piece == 0))
        count += piece.size
    random = np.random.default_rng(seed)
    part = min(1.0, LEARNED / max(1, count - zeros))
    kept = []
    for piece in pieces(values):
        held = piece[piece != 0].astype(np.float64)
        kept.append(held if part == 1 else held[random.random(held.size) < part])
    return np.concatenate(kept), zeros / max(1, count)


def _start(values: Float64Array, components: int) -> Float64Array:
    """Means to begin with, ascending; the nearest to zero is moved there."""
    edges = np.linspace(values.min(), values.max(), _BINS + 1)
    dense = np.cumsum(np.histogram(values, edges)[0] ** (1 / 3))
    even = min(components, max(2, components // _EVEN))
    parts = (np.arange(components - even) + 0.5) / max(1, components - even)
    start = np.concatenate([np.linspace(edges[0], edges[-1], even), np.interp(parts, dense / dense[-1], edges[1:])])
    start[np.argmin(np.abs(start))] = 0
    return np.sort(start)


def _spiked(means: Float64Array, variances: Float64Array, portions: Float64Array, zeros: float) -> Mixture:
    """Components in order, the one nearest to zero the spike, which takes the zeros in."""
    alive = portions > 0
    means, variances, portions = means[alive], variances[alive], portions[alive]
    nearest = int(np.argmin(np.abs(means)))
    variances[nearest] += means[nearest] ** 2
    means[nearest] = 0
    portions[nearest] += zeros
    order = np.argsort(means)
    return Mixture(means[order], variances[order], portions[order], int(np.flatnonzero(order == nearest)[0]))
