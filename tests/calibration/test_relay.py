"""A model run in stages: each node once, and no more kept than later nodes read."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxpress.calibration.relay import Relay
from onnxpress.calibration.session import Runner
from onnxpress.rewriter.errors import ConfigError, FeedError, ModelError
from onnxpress.rewriter.model import Model

RANDOM = np.random.default_rng(0)
BATCHES = [{"x": RANDOM.standard_normal((rows, 4)).astype(np.float32)} for rows in (5, 2, 3)]


@pytest.fixture
def parts(monkeypatch):
    """Operators of each session that ran, in the order of the runs' beginnings."""
    opened = []
    start = Runner.__init__

    def spy(self, model, **options):
        opened.append([node.op_type for node in onnx.load_model_from_string(model).graph.node])
        start(self, model, **options)

    monkeypatch.setattr(Runner, "__init__", spy)
    return opened


@pytest.fixture
def residual(save_model):
    """x @ w -> a -> Relu -> b; b @ v -> c; a + c -> d -> Tanh -> y."""
    weights = {name: RANDOM.standard_normal((4, 4)).astype(np.float32) for name in "wv"}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "v"], ["c"], name="second"),
        helper.make_node("Add", ["a", "c"], ["d"]),
        helper.make_node("Tanh", ["d"], ["y"]),
    ]
    return Model.load(save_model(nodes, {"x": ["n", 4]}, ["y"], weights=weights))


def direct(model, name):
    """A tensor of every batch, of a session of its own."""
    proto = model.to_proto()
    del proto.graph.output[:]
    proto.graph.output.add(name=name)
    return [Runner(proto.SerializeToString()).run(batch)[name] for batch in BATCHES]


def check(found, model, *names):
    for name in names:
        for got, wanted in zip(found, direct(model, name), strict=True):
            np.testing.assert_allclose(got[name], wanted, rtol=1e-5, atol=1e-6)  # sums of four float32 products


def test_each_node_runs_once(residual, parts):
    with Relay(BATCHES) as relay:
        stages = [list(relay.run(residual, [name])) for name in ("x", "b", "c", "y")]
    assert parts == [["MatMul", "Relu"], ["MatMul"], ["Add", "Tanh"]]
    for name, found in zip(("x", "b", "c", "y"), stages, strict=True):
        assert [list(each) for each in found] == [[name]] * 3
    for name, found in zip(("b", "c", "y"), stages[1:], strict=True):
        check(found, residual, name)


def test_keeps_only_what_later_nodes_read(residual, tmp_path):
    kept = []
    with Relay(BATCHES, folder=tmp_path) as relay:
        for name in ("b", "c", "d", "y"):
            list(relay.run(residual, [name]))
            files = sum(1 for path in tmp_path.rglob("*.npy"))
            assert files == 3 * len(relay.kept)
            kept.append(set(relay.kept))
    assert kept == [{"a", "b"}, {"a", "c"}, {"d"}, set()]
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_weights_behind_may_change(residual):
    with Relay(BATCHES) as relay:
        list(relay.run(residual, ["b"]))
        weight = next(each for each in residual.constants() if each.name == "v")
        residual.replace_weight(weight, 3 * residual.array(weight))
        check(list(relay.run(residual, ["d"])), residual, "d")


def test_what_was_computed_is_not_computed_again_when_weights_before_change(residual):
    before = direct(residual, "a")
    with Relay(BATCHES) as relay:
        list(relay.run(residual, ["a"]))
        weight = next(each for each in residual.constants() if each.name == "w")
        residual.replace_weight(weight, 3 * residual.array(weight))
        for got, wanted in zip(relay.run(residual, ["a", "b"]), before, strict=True):
            np.testing.assert_array_equal(got["a"], wanted)
            np.testing.assert_array_equal(got["b"], np.maximum(wanted, 0))


def test_inputs_weights_and_kept_tensors_may_be_asked_for(residual, parts):
    with Relay(BATCHES) as relay:
        list(relay.run(residual, ["b"]))
        found = list(relay.run(residual, ["w", "b", "x"]))
        assert len(parts) == 1
    check(found, residual, "b")
    for each, batch in zip(found, BATCHES, strict=True):
        assert list(each) == ["w", "b", "x"]
        np.testing.assert_array_equal(each["x"], batch["x"])
        assert each["w"].shape == (4, 4)


def test_a_tensor_that_was_dropped_is_computed_again(residual):
    with Relay(BATCHES) as relay:
        list(relay.run(residual, ["y"]))
        assert relay.kept == ()
        check(list(relay.run(residual, ["c", "b"])), residual, "b", "c")


def test_looking_ahead_keeps_nothing(residual, parts):
    with Relay(BATCHES) as relay:
        list(relay.run(residual, ["a"]))
        ahead = list(relay.run(residual, ["c", "a"], keep=False))
        assert relay.kept == ("a",)
        list(relay.run(residual, ["b"]))
    assert parts == [["MatMul"], ["Relu", "MatMul"], ["Relu"]]
    check(ahead, residual, "a", "c")


def test_a_walk_that_is_left_changes_nothing(residual, tmp_path):
    with Relay(BATCHES, folder=tmp_path) as relay:
        walk = relay.run(residual, ["b"])
        next(walk)
        walk.close()
        assert relay.kept == ()
        assert not list(tmp_path.rglob("*.npy"))
        check(list(relay.run(residual, ["c"])), residual, "c")


def test_a_model_with_fewer_channels_behind_goes_on(residual):
    with Relay(BATCHES) as relay:
        list(relay.run(residual, ["a"]))
        for each in residual.graph.nodes:
            if each.name == "second":
                residual.replace_weight(each.inputs[1], np.ones((4, 1), np.float32))
        found = [each["c"].shape for each in relay.run(residual, ["c"])]
    assert found == [(5, 1), (2, 1), (3, 1)]


def test_branches_may_read_what_is_kept(save_model):
    """If(p) then a + a else a, with a = Neg(x) captured."""
    then = helper.make_graph([helper.make_node("Add", ["a", "a"], ["t"])], "then", [], [value("t")])
    other = helper.make_graph([helper.make_node("Identity", ["a"], ["e"])], "else", [], [value("e")])
    nodes = [
        helper.make_node("Neg", ["x"], ["a"]),
        helper.make_node("Exp", ["a"], ["b"]),
        helper.make_node("If", ["p"], ["c"], then_branch=then, else_branch=other),
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    model = Model.load(save_model(nodes, {"x": ["n", 4]}, ["y"], weights={"p": np.array(True)}))
    with Relay(BATCHES) as relay:
        list(relay.run(model, ["b"]))
        assert set(relay.kept) == {"a", "b"}
        check(list(relay.run(model, ["y"])), model, "y")


def test_batches_may_give_a_tensor_different_ranks(save_model):
    """If a batch has one row, a drops that axis."""
    then = helper.make_graph([helper.make_node("Squeeze", ["x", "axes"], ["t"])], "then", [], [value("t")])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["e"])], "else", [], [value("e")])
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["rows"]),
        helper.make_node("Equal", ["rows", "one"], ["p"]),
        helper.make_node("If", ["p"], ["a"], then_branch=then, else_branch=other),
        helper.make_node("Neg", ["a"], ["y"]),
    ]
    numbers = {"zero": np.array(0), "one": np.array(1), "axes": np.array([0])}
    model = Model.load(save_model(nodes, {"x": ["n", 4]}, ["y"], weights=numbers))
    batches = [{"x": BATCHES[0]["x"][:rows]} for rows in (3, 1)]
    with Relay(batches) as relay:
        list(relay.run(model, ["a"]))
        found = [each["y"] for each in relay.run(model, ["y"])]
    np.testing.assert_array_equal(found[0], -batches[0]["x"])
    np.testing.assert_array_equal(found[1], -batches[1]["x"][0])


def value(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


def test_what_no_array_holds_is_computed_again(save_model, parts):
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["s"], axis=1, keepdims=1),
        helper.make_node("ConcatFromSequence", ["s"], ["a"], axis=1),
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("ConcatFromSequence", ["s"], ["c"], axis=1),
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    model = Model.load(save_model(nodes, {"x": ["n", 4]}, ["y"]))
    with Relay(BATCHES) as relay:
        list(relay.run(model, ["b"]))
        assert set(relay.kept) == {"b"}
        found = list(relay.run(model, ["y"]))
    assert parts[-1] == ["SplitToSequence", "ConcatFromSequence", "Add"]
    for each, batch in zip(found, BATCHES, strict=True):
        np.testing.assert_array_equal(each["y"], 0 * batch["x"])
    with Relay(BATCHES) as relay, pytest.raises(ConfigError, match="'s' is of a type that NumPy has no arrays of"):
        list(relay.run(model, ["s"]))


def test_integers_and_scalars_are_kept_as_they_are(save_model):
    nodes = [
        helper.make_node("Size", ["x"], ["n"]),
        helper.make_node("Cast", ["n"], ["f"], to=TensorProto.FLOAT16),
        helper.make_node("Neg", ["f"], ["g"]),
    ]
    model = Model.load(save_model(nodes, {"x": ["n", 4]}, ["g"]))
    with Relay(BATCHES) as relay:
        names = ("n", "f", "g")
        found = [[each[name] for each in relay.run(model, [name])] for name in names]
    assert [each[0].dtype.name for each in found] == ["int64", "float16", "float16"]
    assert [int(each) for each in found[2]] == [-20, -8, -12]


def test_a_tensor_without_inputs_has_a_value_for_every_batch(save_model):
    nodes = [
        helper.make_node("Constant", [], ["k"], value_floats=[1.0, 2.0, 3.0, 4.0]),
        helper.make_node("Add", ["x", "k"], ["y"]),
    ]
    model = Model.load(save_model(nodes, {"x": ["n", 4]}, ["y"]))
    with Relay(BATCHES) as relay:
        assert [each["k"].tolist() for each in relay.run(model, ["k"])] == [[1.0, 2.0, 3.0, 4.0]] * 3


def test_weights_of_a_file_are_read_where_they_are(save_model, tmp_path):
    weight = RANDOM.standard_normal((4, 600)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    path = save_model(nodes, {"x": ["n", 4]}, ["y"], weights={"w": weight})
    Model.load(path).save(tmp_path / "external.onnx", external_data=True)
    model = Model.load(tmp_path / "external.onnx")
    with Relay(BATCHES) as relay:
        check(list(relay.run(model, ["y"])), Model.load(path), "y")


def test_refuses_feeds_that_are_empty_or_change(residual):
    with Relay([]) as relay, pytest.raises(FeedError, match="holds no samples"):
        list(relay.run(residual, ["a"]))
    feed = list(BATCHES)
    with Relay(feed) as relay:
        list(relay.run(residual, ["a"]))
        feed.pop()
        with pytest.raises(FeedError, match="gave 2 batches, but 3 before"):
            list(relay.run(residual, ["x"]))


def test_refuses_a_sample_that_lacks_an_input(residual):
    feed = [BATCHES[0], {"z": BATCHES[1]["x"]}]
    with Relay(feed) as relay, pytest.raises(FeedError, match="batch 1 lacks the input 'x', it holds 'z'; give all"):
        list(relay.run(residual, ["a"]))


def test_refuses_tensors_that_are_not_there(residual):
    with Relay(BATCHES) as relay, pytest.raises(ConfigError, match="'nowhere' is not in the main graph"):
        list(relay.run(residual, ["nowhere"]))


def test_a_full_disk_ends_in_one_line_and_leaves_no_file(residual, tmp_path, monkeypatch):
    save, left = np.save, [4]

    def full(path, array, **options):
        left[0] -= 1
        if not left[0]:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(path, array, **options)

    monkeypatch.setattr(np, "save", full)
    with Relay(BATCHES, folder=tmp_path) as relay:
        with pytest.raises(ModelError, match=r"cannot keep activations in .*: No space left on device; use fewer"):
            list(relay.run(residual, ["b"]))
        assert relay.kept == ()
        assert not list(tmp_path.rglob("*.npy"))
