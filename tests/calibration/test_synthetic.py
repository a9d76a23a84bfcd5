"""Inputs made up from declared shapes."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxpress.calibration.batches import fit
from onnxpress.calibration.session import Runner
from onnxpress.calibration.synthetic import synthesise, synthesise_runnable
from onnxpress.rewriter.errors import ConfigError, FeedError
from onnxpress.rewriter.specs import InputSpec


def spec(name, dtype, *shape):
    return InputSpec(name, np.dtype(dtype), shape)


def first(*inputs, **options):
    return next(iter(synthesise(inputs, samples=1, seed=0, **options)))


def test_same_seed_same_samples_on_every_walk():
    inputs = [spec("x", "float32", "n", 5)]
    feed = synthesise(inputs, samples=3, seed=1)
    walks = [
        np.concatenate([batch["x"] for batch in made]) for made in (feed, feed, synthesise(inputs, samples=3, seed=1))
    ]
    np.testing.assert_array_equal(walks[0], walks[1])
    np.testing.assert_array_equal(walks[0], walks[2])
    assert len(np.unique(walks[0])) == 15
    assert not np.array_equal(walks[0][0], next(iter(synthesise(inputs, samples=1, seed=2)))["x"][0])
    assert feed.count == 3


def test_warns():
    assert synthesise([spec("x", "float32", "n", 5)], samples=1, seed=0).warnings == (
        "no samples were given: inputs are made up (x [1, 5]), so accuracy and ranges mean little; "
        "give samples with --data",
    )


def test_sizes_of_open_dimensions():
    batch = first(
        spec("ids", "int64", "batch", "length"),
        spec("state", "float32", 2, "batch", "length", 7),
        spec("image", "float32", None, "?", None, "w"),
        spec("last", "float32", "m", "h", "w", 3),
        spec("one", "float32"),
    )
    assert {name: array.shape for name, array in batch.items()} == {
        "ids": (1, 32),
        "state": (2, 1, 224, 7),
        "image": (1, 3, 224, 224),
        "last": (1, 224, 224, 3),
        "one": (),
    }


def test_overrides_by_name_or_axis():
    inputs = [spec("x", "float32", "n", "t", None)]
    assert first(*inputs, overrides={"n": 3, "t": 5, "x:2": 7})["x"].shape == (3, 5, 7)
    for wrong, hint in (({"q": 1}, "'q' is no open dimension"), ({"t": 0}, "dimension 't' cannot be 0")):
        with pytest.raises(ConfigError, match=hint):
            first(*inputs, overrides=wrong)


def test_contents_follow_type_and_name():
    batch = first(
        spec("input_ids", "int64", 1, 50),
        spec("attention_mask", "int64", 1, 4),
        spec("float_mask", "float32", 1, 4),
        spec("token_type_ids", "int64", 1, 4),
        spec("position_ids", "int32", 2, 4),
        spec("sr", "int64"),
        spec("pixels", "uint8", 1, 1000),
        spec("flag", "bool", 50),
        spec("half", "float16", 50),
    )
    assert set(batch["input_ids"].ravel()) == set(range(8))
    assert batch["attention_mask"].all()
    assert (batch["float_mask"] == 1).all()
    assert not batch["token_type_ids"].any()
    np.testing.assert_array_equal(batch["position_ids"], [[0, 1, 2, 3]] * 2)
    assert batch["sr"] == 16000
    assert batch["pixels"].max() > 250
    assert set(batch["flag"]) == {True, False}
    assert batch["half"].std() > 0.5
    fit(batch, [InputSpec(name, array.dtype, array.shape) for name, array in batch.items()], where="batch 0")


@pytest.mark.parametrize(
    ("made", "hint"),
    [
        (InputSpec("x", np.dtype("float32"), None), "input 'x' has no declared shape, .*; give samples with --data"),
        (spec("x", object, 2), "input 'x' is text, which cannot be made up; give samples"),
        (spec("x", "float32", 1 << 20, 1 << 20), "more than 1 GiB; give samples"),
    ],
)
def test_refuses_what_cannot_be_made_up(made, hint):
    with pytest.raises(FeedError, match=hint):
        first(made)


def test_refuses_no_samples_and_negative_seeds():
    for options, hint in (({"samples": 0, "seed": 0}, "cannot make up 0"), ({"samples": 1, "seed": -1}, "seed -1")):
        with pytest.raises(ConfigError, match=hint):
            synthesise([spec("x", "float32", 1)], **options)


def matmul(save_model, rows, shape):
    weight = np.zeros((rows, 3), np.float32)
    return Runner(
        save_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": shape}, ["y"], weights={"w": weight})
    )


def test_tries_sizes_until_the_model_runs(save_model):
    feed = synthesise_runnable(matmul(save_model, 48, ["n", "k"]), samples=2, seed=0)
    assert [batch["x"].shape for batch in feed] == [(1, 48)] * 2
    assert "x [1, 48]" in feed.warnings[0]


def test_makes_the_unnamed_batch_axis_of_a_state_one(save_model):
    nodes = [
        helper.make_node("Concat", ["x", "s"], ["joined"], axis=1),
        helper.make_node("Reshape", ["s", "shape"], ["flat"]),
        helper.make_node("Identity", ["joined"], ["y"]),
    ]
    inputs = {"x": [None, None], "s": [1, None]}
    runner = Runner(save_model(nodes, inputs, ["y", "flat"], weights={"shape": np.array([1, 1], np.int64)}))
    batch = next(iter(synthesise_runnable(runner, samples=1, seed=0)))
    assert batch["s"].shape == (1, 1)
    assert batch["x"].shape[1] > 1


def test_keeps_to_overrides_while_trying(save_model):
    runner = matmul(save_model, 7, ["n", "k"])
    assert next(iter(synthesise_runnable(runner, samples=1, seed=0, overrides={"k": 7})))["x"].shape == (1, 7)


def test_refuses_a_model_that_runs_on_no_size(save_model):
    with pytest.raises(FeedError, match=r"model.onnx runs on no made-up input \(10 sizes tried\)") as caught:
        synthesise_runnable(matmul(save_model, 7, ["n", "k"]), samples=1, seed=0)
    assert "; give samples with --data; the first refusal: Non-zero status code" in str(caught.value)
    assert caught.value.__cause__ is not None


def test_tries_smaller_integers_where_a_table_has_few_rows(save_model):
    nodes = [helper.make_node("Gather", ["table", "roles"], ["y"])]
    table = np.zeros((3, 4), np.float32)
    path = save_model(nodes, {"roles": [1, "n"]}, ["y"], weights={"table": table}, types={"roles": TensorProto.INT64})
    batch = next(iter(synthesise_runnable(Runner(path), samples=1, seed=0)))
    assert batch["roles"].shape == (1, 32)
    assert set(np.unique(batch["roles"])) == {0, 1}


def test_types_of_a_real_session_are_made_up(save_model):
    path = save_model([helper.make_node("Identity", ["x"], ["y"])], {"x": [2]}, ["y"], types={"x": TensorProto.INT8})
    assert next(iter(synthesise_runnable(Runner(path), samples=1, seed=0)))["x"].dtype == np.int8
