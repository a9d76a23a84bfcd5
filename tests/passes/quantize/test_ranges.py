"""Ranges of activations, by every method, from samples and from files."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxpress.calibration.feeds import Feed, open_feed
from onnxpress.calibration.observers import Histogram
from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.affine import UINT8, Grid
from onnxpress.passes.kernels.clipping import entropy_range, mse_range, percentile_range
from onnxpress.passes.quantize.ranges import METHODS, Estimate, gather, measure
from onnxpress.rewriter.errors import ConfigError, FeedError
from onnxpress.rewriter.model import Model

BATCHES = [{"x": np.random.default_rng(i).standard_t(3, (50, 8)).astype(np.float32)} for i in range(4)]
FOUR_BITS = Grid(0, 15, np.dtype(np.uint8))


def build(*, clip=0.0):
    """x -> MatMul -> h -> Relu -> r -> MatMul -> m -> Clip -> y; i is a tensor of integers."""
    random = np.random.default_rng(0)
    weights = {"w": random.standard_normal((8, 8)), "v": random.standard_normal((8, 4)), "low": clip, "high": 6.0}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["m"]),
        helper.make_node("Clip", ["m", "low", "high"], ["c"]),
        helper.make_node("Cast", ["c"], ["i"], to=TensorProto.INT64),
        helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 8), ("y", 4))]
    stored = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], stored)
    return Model.from_proto(helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)]))


@pytest.fixture
def bench():
    return Workbench(feed=open_feed(BATCHES, inputs=build().inputs))


def expected():
    x = np.concatenate([batch["x"] for batch in BATCHES])
    model = build()
    arrays = {each.name: model.array(each) for each in model.constants()}
    return {"x": x, "h": x @ arrays["w"], "r": np.maximum(x @ arrays["w"], 0)}


def test_by_default_ranges_are_minimum_and_maximum(bench):
    ranges = measure(build(), ["h", "r"], bench)
    assert list(ranges) == ["h", "r", "x"]
    for name, array in expected().items():
        # float32 sums of eight products, in any order
        np.testing.assert_allclose([ranges[name].low, ranges[name].high], [array.min(), array.max()], rtol=1e-5)
        assert ranges[name].usable


def test_a_mean_range_is_narrower_than_all_that_was_seen(bench):
    whole, mean = measure(build(), ["h"], bench), measure(build(), ["h"], bench, estimate=Estimate(method="average"))
    assert whole["h"].low < mean["h"].low < 0 < mean["h"].high < whole["h"].high


@pytest.mark.parametrize("grid", [UINT8, FOUR_BITS])
def test_methods_on_histograms_are_told_percentage_and_codes(bench, grid):
    observer = Histogram()
    observer.update(BATCHES[0]["x"])
    for batch in BATCHES[1:]:
        observer.update(batch["x"])
    profile = observer.profile()
    expected = {
        "percentile": percentile_range(*profile, percent=97.5),
        "mse": mse_range(*profile, grid=grid),
        "entropy": entropy_range(*profile, codes=grid.high - grid.low + 1),
    }
    for method, bounds in expected.items():
        found = measure(build(), ["x"], bench, estimate=Estimate(method=method, percent=97.5, grid=grid))["x"]
        assert (found.low, found.high) == bounds
        assert observer.low < found.low < 0 < found.high < observer.high


@pytest.mark.parametrize("method", METHODS)
def test_a_file_gives_the_same_ranges_as_the_samples(bench, tmp_path, method):
    estimate = Estimate(method=method)
    gather(build(), bench, kind=estimate.kind).save(tmp_path / "seen.npz")
    fresh = measure(build(), ["r"], bench, estimate=estimate)
    assert measure(build(), ["r"], Workbench(), estimate=estimate, calibration=tmp_path / "seen.npz") == fresh


def test_gathers_floats_but_what_vanishes_into_the_operator_before(bench):
    found = gather(build(), bench)
    assert set(found.observers) == {"x", "r", "c", "y"}
    assert found.batches == 4
    # ONNX Runtime keeps a Clip that does not begin at zero, so codes would stand before it.
    assert set(gather(build(clip=-1.0), bench).observers) == {"x", "r", "m", "c", "y"}


def test_counts_the_batches_of_a_feed_of_unknown_length():
    feed = Feed([*open_feed(BATCHES, inputs=build().inputs).samples()])
    assert feed.count is None
    assert gather(build(), Workbench(feed=feed), kind="minmax").batches == 4


def test_a_histogram_gives_minimum_and_maximum_too(bench, tmp_path):
    gather(build(), bench).save(tmp_path / "seen.npz")
    stored = measure(build(), ["r"], Workbench(), calibration=tmp_path / "seen.npz")
    assert stored == measure(build(), ["r"], bench)


def test_tensors_with_odd_entries_are_told(tmp_path):
    bad = [{"x": batch["x"].copy()} for batch in BATCHES]
    bad[1]["x"][0, 0] = 1e38
    bench = Workbench(feed=open_feed(bad, inputs=build().inputs))
    model = build()
    (weight,) = [each for each in model.constants() if each.name == "w"]
    model.replace_weight(weight, model.array(weight) * np.float32(100))
    for method in METHODS:
        ranges = measure(model, ["h"], bench, estimate=Estimate(method=method))
        assert not ranges["h"].usable
        assert ranges["h"].odd == 8


def test_refuses_samples_and_files_that_cannot_be_used(bench, tmp_path):
    with pytest.raises(FeedError, match="come from samples"):
        measure(build(), ["h"], Workbench())
    with pytest.raises(ConfigError, match="no file"):
        measure(build(), ["r"], Workbench(), calibration=tmp_path / "none.npz")
    path = tmp_path / "seen.npz"
    gather(build(), bench, kind="minmax").save(path)
    with pytest.raises(ConfigError, match=r"--method minmax has no range by mse; calibrate with --method histogram"):
        measure(build(), ["r"], Workbench(), calibration=path, estimate=Estimate(method="mse"))
    with pytest.raises(ConfigError, match=r"seen\.npz has nothing on tensor 'h'; run onnxpress calibrate again"):
        measure(build(), ["h"], Workbench(), calibration=path)
    other = build()
    (weight,) = [each for each in other.constants() if each.name == "w"]
    other.replace_weight(weight, np.zeros((8, 8), np.float32))
    with pytest.raises(ConfigError, match=r"seen\.npz was made with another model"):
        measure(other, ["r"], Workbench(), calibration=path)
    gather(build(), bench).save(path)
    with pytest.raises(ConfigError, match="histograms has no mean range; calibrate with --method average"):
        measure(build(), ["r"], Workbench(), calibration=path, estimate=Estimate(method="average"))


def test_refuses_estimates_that_mean_nothing():
    for percent in (0, 100.5, float("nan")):
        with pytest.raises(ConfigError, match="percent"):
            Estimate(method="percentile", percent=percent)
    with pytest.raises(ConfigError, match="method 'kl' is unknown; give minmax, average, percentile, mse, entropy"):
        Estimate(method="kl")
