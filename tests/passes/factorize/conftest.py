"""A clock for factorizations: a model takes as long as it has weights, so that nothing is really timed."""

from collections.abc import Callable

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.factorize import inplace, latency
from onnxpress.passes.pace import Pace
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites


def _seconds(model: Model) -> float:
    return 1e-6 * sum(site.size for site in find_sites(model))


@pytest.fixture
def seconds() -> Callable[[Model], float]:
    """What the clock says of a model."""
    return _seconds


@pytest.fixture
def clock(monkeypatch) -> Callable[..., list[Model]]:
    """Sets how long models take; gives a list of those that were timed whole."""

    def set_to(alone: Callable[[Model], float] = _seconds, whole: Callable[[Model], float] = _seconds) -> list[Model]:
        timed: list[Model] = []

        def rounds(models, shape, dtype, provider, bench, *, seconds):
            return np.array([[alone(model) for model in models]] * 3)

        def pace(reference, models, bench, **options):
            timed.extend(models)
            ratios = [whole(reference) / whole(model) for model in models]
            return [Pace(ratio, (ratio, ratio)) for ratio in ratios]

        monkeypatch.setattr(latency, "timed", rounds)
        monkeypatch.setattr(inplace, "pace", pace)
        return timed

    return set_to


def of_rank(rows: int, columns: int, rank: int, seed: int) -> np.ndarray:
    """A matrix of a rank, and a little noise."""
    random = np.random.default_rng(seed)
    low = random.standard_normal((rows, rank)) @ random.standard_normal((rank, columns)) / np.sqrt(rank * rows)
    return (low + 1e-3 * random.standard_normal((rows, columns))).astype(np.float32)


@pytest.fixture
def layers(build) -> Model:
    """A convolution of low rank, and two products of matrices: one of low rank, one of none."""
    random = np.random.default_rng(5)
    nodes = [
        helper.make_node("Conv", ["x", "a", "c"], ["t"], name="conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["t"], ["u"]),
        helper.make_node("Flatten", ["u"], ["v"]),
        helper.make_node("Gemm", ["v", "b", "d"], ["w"], name="low", transB=1),
        helper.make_node("Relu", ["w"], ["z"]),
        helper.make_node("MatMul", ["z", "e"], ["y"], name="full"),
    ]
    weights = {
        "a": of_rank(24, 72, 8, 1).reshape(24, 8, 3, 3),
        "c": random.standard_normal(24).astype(np.float32),
        "b": of_rank(64, 216, 16, 2),
        "d": random.standard_normal(64).astype(np.float32),
        "e": (random.standard_normal((64, 40)) / 8).astype(np.float32),
    }
    return build(nodes, weights, x=("n", 8, 6, 6))


@pytest.fixture
def samples(bench, layers) -> Workbench:
    """Batches for these layers."""
    random = np.random.default_rng(9)
    return bench(layers, *random.standard_normal((8, 32, 8, 6, 6)).astype(np.float32))
