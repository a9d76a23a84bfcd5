"""Statistics of the tensors inside a model."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxpress.calibration.observers import Histogram, MinMax, MovingAverage
from onnxpress.calibration.session import Runner
from onnxpress.calibration.stream import describe, observe
from onnxpress.rewriter.errors import ConfigError, FeedError
from onnxpress.rewriter.model import Model

BATCHES = [{"x": np.random.default_rng(i).standard_normal((5, 4)).astype(np.float32)} for i in range(3)]


class Kept:
    """Sees tensors themselves, and keeps them."""

    def __init__(self):
        self.seen = []

    def update(self, array):
        self.seen.append(array)


@pytest.fixture
def runs(monkeypatch):
    """Number of entries of each output, for every run."""
    sizes = []
    run = Runner.run

    def spy(self, batch, *, outputs=None):
        result = run(self, batch, outputs=outputs)
        sizes.append({name: value.size for name, value in result.items()})
        return result

    monkeypatch.setattr(Runner, "run", spy)
    return sizes


@pytest.mark.parametrize("opset", [13, 17, 18])
@pytest.mark.parametrize("axis", [None, 1, -1])
def test_ranges_are_those_of_the_tensors_and_no_tensor_leaves_the_graph(save_model, runs, opset, axis):
    weight = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    path = save_model(nodes, {"x": ["n", 4]}, ["y"], weights={"w": weight}, opset=opset)
    observers = {name: MinMax(axis=axis) for name in ("x", "w", "h", "y")}
    observe(path, observers, BATCHES)
    x = np.concatenate([batch["x"] for batch in BATCHES])
    expected = {"x": x, "w": weight, "h": x @ weight, "y": np.maximum(x @ weight, 0)}
    others = None if axis is None else (0,)
    for name, array in expected.items():
        # float32 sums of four products, in any order
        np.testing.assert_allclose(observers[name].low, array.min(axis=others), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(observers[name].high, array.max(axis=others), rtol=1e-5, atol=1e-6)
    assert len(runs) == 3
    assert max(max(sizes.values()) for sizes in runs) <= 4


def test_the_file_its_bytes_and_the_model_in_memory_give_the_same(linear):
    ranges = []
    for model in (linear, str(linear), linear.read_bytes(), Model.load(linear)):
        observer = MinMax()
        observe(model, {"hidden": observer}, BATCHES)
        ranges.append((float(observer.low), float(observer.high)))
    assert ranges[0] == ranges[1] == ranges[2] == ranges[3]


SHAPES = {"known": ["n", 6, 384], "unknown": ["n", None, None], "all unknown": None}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("opset", [11, 12, 13, 18])
@pytest.mark.parametrize("axis", [None, 1])
def test_histograms_are_those_of_the_tensors(save_model, runs, shape, opset, axis):
    path = save_model([helper.make_node("Neg", ["x"], ["y"])], {"x": shape}, ["y"], opset=opset)
    batches = [
        {"x": np.random.default_rng(i).standard_normal((n, 6, 384)).astype(np.float32)} for i, n in enumerate([2, 1])
    ]
    graph, array = Histogram(axis=axis, entries=1000), Histogram(axis=axis, entries=1000)
    observe(path, {"y": graph}, batches)
    for batch in batches:
        array.update(-batch["x"])
    np.testing.assert_array_equal(graph.low, array.low)
    np.testing.assert_array_equal(graph.high, array.high)
    np.testing.assert_array_equal(graph.exponent, array.exponent)
    if shape == SHAPES["known"]:
        np.testing.assert_array_equal(graph.counts, array.counts)
    leaves = opset < 12 or (shape is None and axis is not None)
    assert (max(max(sizes.values()) for sizes in runs) > 1000) == leaves
    # Each entry stands for as many as the step, so but for the last step all are counted.
    total = sum(batch["x"].size for batch in batches)
    assert 0.98 * total < graph.counts.sum() <= 1.02 * total


def test_a_tensor_too_large_for_the_table_of_steps_is_sampled_all_the_same(save_model):
    path = save_model([helper.make_node("Neg", ["x"], ["y"])], {"x": ["n"]}, ["y"])
    observer = Histogram(entries=1)
    observe(path, {"y": observer}, [{"x": np.arange(5000, dtype=np.float32)}])
    assert observer.counts.sum() == 512 * 10 + 2
    assert (observer.low, observer.high) == (-4999, 0)


def test_histograms_of_no_entries_and_of_scalars(save_model):
    nodes = [helper.make_node("ReduceMax", ["w"], ["s"], keepdims=0), helper.make_node("Mul", ["x", "s"], ["y"])]
    path = save_model(nodes, {"x": ["n", 4]}, ["y"], weights={"w": np.array([2, 3], np.float32)})
    observers = {"y": Histogram(), "s": Histogram(), "x": MovingAverage()}
    observe(path, observers, [{"x": np.zeros((0, 4), np.float32)}])
    assert observers["y"].empty
    assert observers["x"].empty
    assert observers["s"].profile()[0].tolist() == [1]


def test_infinities_stay_out_of_histograms(linear):
    batches = [{"x": batch["x"].copy()} for batch in BATCHES]
    batches[1]["x"][2, 3] = -np.inf
    observer = Histogram()
    observe(linear, {"x": observer}, batches)
    assert (observer.counts.sum(), observer.ignored) == (59, 1)


def test_large_weights_are_not_loaded_to_look_at_types(save_model, monkeypatch):
    weight = np.zeros((64, 64), np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = save_model(nodes, {"x": ["n", 64]}, ["y"], weights={"w": weight})
    opened = []
    start = Runner.__init__

    def spy(self, model, **options):
        opened.append(len(model))
        start(self, model, **options)

    monkeypatch.setattr(Runner, "__init__", spy)
    (found,) = describe(path, ["y"])
    assert (found.element, found.shape, found.is_float) == ("float", ("n", 64), True)
    assert opened[0] < 1000
    with pytest.raises(ConfigError, match="tensor 'z' is not in the main graph"):
        describe(path, ["z"])


@pytest.mark.cuda
def test_ranges_on_cuda_are_those_on_the_cpu(linear):
    ours, theirs = MinMax(), MinMax()
    observe(linear, {"hidden": ours}, BATCHES, providers=["cuda"])
    observe(linear, {"hidden": theirs}, BATCHES)
    # TensorFloat-32 products carry 10 bits of mantissa.
    np.testing.assert_allclose([ours.low, ours.high], [theirs.low, theirs.high], rtol=2e-3, atol=2e-3)


def test_external_data_stay_where_they_are(linear, tmp_path):
    (tmp_path / "e").mkdir()
    onnx.save(onnx.load(linear), tmp_path / "e" / "m.onnx", save_as_external_data=True, location="w", size_threshold=0)
    plain, external = MinMax(), MinMax()
    observe(linear, {"hidden": plain}, BATCHES)
    observe(tmp_path / "e" / "m.onnx", {"hidden": external}, BATCHES)
    assert (plain.low, plain.high) == (external.low, external.high)
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == ["m.onnx", "w"]


def test_shows_tensors_themselves_in_groups_that_fit(linear, runs):
    observers = {name: Kept() for name in ("x", "hidden", "y")}
    observe(linear, observers, BATCHES, memory=200)  # of 80, 60 and 60 bytes
    expected = [Runner(linear).run(batch)["y"] for batch in BATCHES]
    for seen, want in zip(observers["y"].seen, expected, strict=True):
        np.testing.assert_array_equal(seen, want)
    assert len(observers["x"].seen) == len(observers["hidden"].seen) == 3
    runs.clear()
    observe(linear, {name: Kept() for name in ("x", "hidden", "y")}, BATCHES, memory=130)
    assert [list(sizes) for sizes in runs] == [["x"]] * 3 + [["hidden", "y"]] * 3


def test_sizes_that_shapes_do_not_tell_are_counted_in_one_run(save_model, runs):
    nodes = [helper.make_node("Neg", ["x"], ["h"]), helper.make_node("Neg", ["h"], ["y"])]
    path = save_model(nodes, {"x": ["n", None]}, ["y"])
    observe(path, {name: Kept() for name in ("x", "h", "y")}, BATCHES, memory=170)  # of 80 bytes each
    sizing, *walks = [list(sizes) for sizes in runs]
    assert len(sizing) == 3
    assert walks == [["x", "h"]] * 3 + [["y"]] * 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_entries_that_are_not_finite_are_left_out_and_counted(linear, bad):
    batches = [{"x": batch["x"].copy()} for batch in BATCHES]
    batches[1]["x"][2, 3] = bad
    observer, plain = MinMax(), MinMax()
    observe(linear, {"x": observer}, batches)
    for batch in batches:
        plain.update(batch["x"])
    assert (observer.low, observer.high, observer.ignored) == (plain.low, plain.high, 1)


def test_finds_one_nan_among_many_entries(save_model):
    path = save_model([helper.make_node("Neg", ["x"], ["y"])], {"x": ["n"]}, ["y"])
    x = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    x[777] = np.nan
    observer = MinMax()
    observe(path, {"y": observer}, [{"x": x}])
    assert observer.ignored == 1
    assert observer.low == -np.nanmax(x)


def test_takes_integers_booleans_halves_and_scalars(save_model):
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        helper.make_node("Greater", ["x", "zero"], ["b"]),
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("ReduceMax", ["x"], ["s"], keepdims=0),
        helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT),
    ]
    path = save_model(nodes, {"x": ["n", 2]}, ["y"], weights={"zero": np.zeros(1, np.float32)})
    observers = {name: MinMax() for name in "ibhs"}
    observe(path, observers, [{"x": np.array([[1.5, -2.5], [3.25, 0.5]], np.float32)}])
    ranges = {name: (float(seen.low), float(seen.high)) for name, seen in observers.items()}
    assert ranges == {"i": (-2, 3), "b": (0, 1), "h": (-2.5, 3.25), "s": (3.25, 3.25)}


def test_tensors_of_no_entries_have_no_range(save_model):
    path = save_model([helper.make_node("Relu", ["x"], ["y"])], {"x": ["n", 4]}, ["y"])
    observer = MinMax()
    observe(path, {"y": observer}, [{"x": np.zeros((0, 4), np.float32)}])
    assert observer.empty
    assert observer.ignored == 0


def test_new_names_do_not_clash(save_model):
    nodes = [helper.make_node("Neg", ["x"], ["observed/0/0"]), helper.make_node("Neg", ["observed/0/0"], ["y"])]
    path = save_model(nodes, {"x": ["n", 4]}, ["y"])
    observer = MinMax()
    observe(path, {"observed/0/0": observer}, BATCHES)
    assert observer.low == -max(batch["x"].max() for batch in BATCHES)


def test_tells_progress(linear):
    told = []

    class Told:
        def track(self, items, *, label, total=None):
            told.append((label, total))
            yield from items

    observe(linear, {"y": MinMax(), "x": Kept()}, BATCHES, progress=Told())
    assert told == [("ranges", None), ("activations", None)]


def test_nothing_to_observe_opens_nothing(tmp_path):
    observe(tmp_path / "none.onnx", {}, [])


def test_refuses_tensors_and_feeds_that_are_not_there(linear):
    with pytest.raises(ConfigError, match="tensor 'z' is not in the main graph"):
        observe(linear, {"z": MinMax()}, BATCHES)
    for observer in (MinMax(), Kept()):
        with pytest.raises(FeedError, match="the feed holds no samples"):
            observe(linear, {"y": observer}, [])
