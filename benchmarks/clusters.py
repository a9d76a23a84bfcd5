"""Optimal clusters of many weights, ours beside scikit-learn's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.loading import LOADS
from onnxpress.passes.kernels.kmeans import kmeans_1d

CLUSTERS, WEIGHTS = 16, 1_000_000
DISTRIBUTIONS = (
    "normal",
    "Laplace",
    "uniform",
    "two normal",
    "Student's t",
    "normal in float16",
    "normal, 90 % zeros",
)


@dataclass(frozen=True, slots=True)
class Clusters:
    """Optimal clusters beside scikit-learn's KMeans with one start.

    Attributes:
        seconds: the median.
        sklearn_seconds: the median.
        faster: median of the ratios of neighbouring runs.
        error_ratio: our squared error over theirs, the greatest over their seeds.
    """

    seconds: float
    sklearn_seconds: float
    faster: float
    error_ratio: float


def weights_of(name: str) -> NDArray[np.float32]:
    """One million weights of a distribution."""
    random = np.random.default_rng(0)
    drawn: NDArray[np.floating]
    if name == "normal in float16":
        drawn = random.standard_normal(WEIGHTS).astype(np.float16)
    elif name == "normal, 90 % zeros":
        drawn = np.where(random.random(WEIGHTS) < 0.9, 0, random.standard_normal(WEIGHTS))
    elif name == "two normal":
        drawn = np.where(random.random(WEIGHTS) < 0.3, random.normal(-3, 0.1, WEIGHTS), random.normal(1, 1, WEIGHTS))
    elif name == "Student's t":
        drawn = random.standard_t(3, WEIGHTS)
    else:
        draw = {"normal": random.standard_normal, "uniform": random.random, "Laplace": random.laplace}[name]
        drawn = draw(size=WEIGHTS)
    return drawn.astype(np.float32)


def clusters(name: str) -> Clusters:
    """One million weights in 16 clusters, ours and scikit-learn's in turns."""
    from sklearn.cluster import KMeans

    weights = weights_of(name)
    ours, theirs, errors = [], [], []
    for turn in range(LOADS):
        began = time.perf_counter()
        centroids, codes = kmeans_1d(weights, CLUSTERS)
        middle = time.perf_counter()
        other = KMeans(CLUSTERS, n_init=1, random_state=turn).fit(weights.reshape(-1, 1))
        ours.append(middle - began)
        theirs.append(time.perf_counter() - middle)
        errors.append(float(((weights - centroids[codes]).astype(np.float64) ** 2).sum()) / float(other.inertia_))
    faster = float(np.median(np.divide(theirs, ours)))
    return Clusters(float(np.median(ours)), float(np.median(theirs)), faster, max(errors))


def clusters_table(beside: Mapping[str, Clusters]) -> Table:
    """Ours beside scikit-learn's."""
    columns = ("weights", "ms", "scikit-learn ms", "times faster", "error over theirs")
    result = Table(*columns, title=f"{WEIGHTS:,} weights, {CLUSTERS} clusters")
    for name, each in beside.items():
        times = (f"{1e3 * each.seconds:.1f}", f"{1e3 * each.sklearn_seconds:.0f}", f"{each.faster:.1f}")
        result.add_row(name, *times, f"{each.error_ratio:.4f}")
    return result
