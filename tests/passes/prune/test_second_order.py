"""Zeros by what layers read: the asked fraction, better than magnitude, with an account of every layer."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.prune.magnitude import PruneMagnitude
from onnxpress.passes.prune.second_order import PruneSecondOrder
from onnxpress.rewriter.errors import ConfigError, FeedError
from onnxpress.rewriter.sites import find_sites


@pytest.fixture
def network(build, random):
    """Conv, Gemm and MatMul with a bias behind it."""
    nodes = [
        helper.make_node("Conv", ["x", "a", "ab"], ["c"], name="conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["cr"]),
        helper.make_node("Flatten", ["cr"], ["f"]),
        helper.make_node("Gemm", ["f", "b", "bb"], ["g"], name="gemm"),
        helper.make_node("Relu", ["g"], ["gr"]),
        helper.make_node("MatMul", ["gr", "d"], ["m"], name="matmul"),
        helper.make_node("Add", ["m", "db"], ["y"]),
    ]
    shapes = {"a": (8, 3, 3, 3), "ab": (8,), "b": (72, 24), "bb": (24,), "d": (24, 12), "db": (12,)}
    weights = {name: (random.standard_normal(shape) / 3).astype(np.float32) for name, shape in shapes.items()}
    return build(nodes, weights, x=("n", 3, 6, 6))


def smooth(random, count):
    """Images whose pixels are alike, so that one makes up for another."""
    coarse = random.standard_normal((count, 3, 3, 3)).repeat(2, axis=2).repeat(2, axis=3)
    return (coarse + 0.3 * random.standard_normal((count, 3, 6, 6))).astype(np.float32)


@pytest.fixture
def samples(bench, random):
    return lambda model: bench(model, *(smooth(random, 32) for _ in range(8)))


@pytest.fixture
def distance(run):
    """Relative error of the outputs on images that no pass has seen."""
    unseen = smooth(np.random.default_rng(1), 64)

    def between(model, original):
        wanted = run(original, unseen)[0]
        return float(np.linalg.norm(run(model, unseen)[0] - wanted) / np.linalg.norm(wanted))

    return between


def zeros(model):
    return {site.name: 1 - np.count_nonzero(site.array()) / site.size for site in find_sites(model)}


def overall(model):
    sites = find_sites(model)
    return 1 - sum(np.count_nonzero(site.array()) for site in sites) / sum(site.size for site in sites)


@pytest.mark.parametrize("saliency", ["magnitude", "wanda", "obd", "obs", "alps"])
def test_each_saliency_with_reconstruction_beats_magnitude(network, samples, distance, saliency):
    plain = PruneMagnitude(sparsity=0.6, min_size=1)(network).model
    found = PruneSecondOrder(sparsity=0.6, saliency=saliency, min_size=1)(network, samples(network)).model
    assert overall(found) == pytest.approx(0.6, abs=0.005)
    assert distance(found, network) < 0.8 * distance(plain, network)


@pytest.mark.parametrize("allocation", ["error", "uniform", "global"])
def test_each_allocation_keeps_the_sparsity(network, samples, allocation):
    found = PruneSecondOrder(sparsity=0.5, allocation=allocation, min_size=1)(network, samples(network)).model
    assert overall(found) == pytest.approx(0.5, abs=0.005)
    if allocation == "uniform":
        assert list(zeros(found).values()) == pytest.approx([0.5] * 3, abs=0.005)


def test_two_of_four_stay_along_the_inputs(network, samples):
    found = PruneSecondOrder(pattern="2:4", exclude=("conv",), min_size=1)(network, samples(network)).model
    gemm = next(site for site in find_sites(found) if site.name == "gemm").array()
    assert (np.count_nonzero(gemm.T.reshape(24, 18, 4), axis=2) <= 2).all()
    assert zeros(found)["conv"] == 0


@pytest.mark.parametrize("pattern", ["4x1", "rows", "columns", "inputs"])
def test_units_of_a_pattern_go_whole(network, samples, pattern):
    found = PruneSecondOrder(sparsity=0.5, pattern=pattern, include=("gemm",), min_size=1)
    gemm = next(s for s in find_sites(found(network, samples(network)).model) if s.name == "gemm").array().T != 0
    units = {"4x1": gemm.reshape(6, 4, 72).swapaxes(1, 2).reshape(-1, 4), "rows": gemm}.get(pattern, gemm.T)
    assert (units.all(axis=1) | ~units.any(axis=1)).all()
    assert np.count_nonzero(~units.any(axis=1)) == len(units) // 2


def test_targets_name_layers_and_operators(network, samples):
    prune = PruneSecondOrder(targets={"Gemm": 0.75, "conv": 0.25}, min_size=1)
    found = prune(network, samples(network))
    assert zeros(found.model) == pytest.approx({"conv": 0.25, "gemm": 0.75, "matmul": 0}, abs=0.005)
    assert [skip.site for skip in found.report.skips] == ["matmul"]


def test_reconstruction_lowers_the_error(network, samples, distance):
    with_, without = (
        PruneSecondOrder(sparsity=0.6, saliency="obd", allocation="uniform", reconstruct=on, min_size=1)(
            network, samples(network)
        ).model
        for on in (True, False)
    )
    assert distance(with_, network) < 0.8 * distance(without, network)
    kept = next(s for s in find_sites(without) if s.name == "gemm").array()
    whole = next(s for s in find_sites(network) if s.name == "gemm").array()
    np.testing.assert_array_equal(kept, np.where(kept != 0, whole, 0))


def test_the_report_tells_of_each_layer(network, samples):
    report = PruneSecondOrder(sparsity=0.5, min_size=1)(network, samples(network)).report
    assert [change.site for change in report.changes] == ["conv", "gemm", "matmul"]
    assert all("zeros, output error" in change.action for change in report.changes)
    assert {curve.site for curve in report.curves} == {"conv", "gemm", "matmul"}
    assert all(list(curve.errors) == sorted(curve.errors, reverse=True) for curve in report.curves)


def test_the_same_seed_gives_the_same_model(network, samples):
    bench = samples(network)
    first, second = (PruneSecondOrder(sparsity=0.5, min_size=1)(network, bench).model for _ in range(2))
    for one, other in zip(find_sites(first), find_sites(second), strict=True):
        np.testing.assert_array_equal(one.array(), other.array())


def test_the_model_it_is_given_stays(network, samples):
    before = {site.name: site.array().copy() for site in find_sites(network)}
    PruneSecondOrder(sparsity=0.5, min_size=1)(network, samples(network))
    for site in find_sites(network):
        np.testing.assert_array_equal(site.array(), before[site.name])


def test_small_and_excluded_layers_are_skipped_with_the_reason(network, samples):
    report = PruneSecondOrder(sparsity=0.5, min_size=300, exclude=("gemm",))(network, samples(network)).report
    told = {skip.site: skip.reason for skip in report.skips}
    assert told["conv"].startswith("has 216 weights, fewer than min_size 300")
    assert told["gemm"] == "excluded by the recipe"
    assert not report.changes


def test_embeddings_are_left_alone(build, random):
    nodes = [helper.make_node("Gather", ["table", "x"], ["e"], name="embed")]
    nodes.append(helper.make_node("MatMul", ["e", "w"], ["y"], name="layer"))
    weights = {
        name: random.standard_normal(shape).astype(np.float32)
        for name, shape in {"table": (50, 16), "w": (16, 20)}.items()
    }
    model = build(nodes, weights, x=("n", 4), dtype=7, gives=1)
    from onnxpress.calibration.feeds import open_feed

    feed = open_feed([{"x": random.integers(0, 50, (8, 4))} for _ in range(4)], inputs=model.inputs)
    found = PruneSecondOrder(sparsity=0.5, min_size=1)(model, Workbench(feed=feed, threads=1))
    assert [skip.site for skip in found.report.skips] == ["embed"]
    assert "is an embedding" in found.report.skips[0].reason
    assert zeros(found.model)["layer"] == pytest.approx(0.5, abs=0.01)


def test_needs_samples(network):
    with pytest.raises(FeedError, match="prune-second-order learns from samples"):
        PruneSecondOrder(sparsity=0.5)(network)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "sparsity must lie in"),
        ({"sparsity": 1.0}, "sparsity must lie in"),
        ({"sparsity": 0.5, "saliency": "luck"}, "saliency must be magnitude or"),
        ({"sparsity": 0.5, "allocation": "fair"}, "allocation must be"),
        ({"sparsity": 0.5, "pattern": "5:4"}, "pattern must be"),
        ({"sparsity": 0.3, "pattern": "2:4"}, "sparsity must be left out"),
        ({"pattern": "2:4", "targets": {"*": 0.5}}, "targets must be left out"),
        ({"sparsity": 0.5, "reconstruct": 1}, "reconstruct must be true or false"),
        ({"targets": {"*": 2}}, "targets must"),
    ],
)
def test_refuses_bad_options(options, reason):
    with pytest.raises(ConfigError, match=reason):
        PruneSecondOrder(**options)
