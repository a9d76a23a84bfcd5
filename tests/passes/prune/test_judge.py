"""Noise of outputs, judged where a Softmax or Sigmoid does not hide it."""

import math

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.prune.judge import Judge, find_end


def chain(build, *nodes, opset=17):
    """Nodes one behind the other, from x to y."""
    names = ["x", *(f"t{index}" for index in range(len(nodes) - 1)), "y"]
    made = [
        helper.make_node(op, [before], [after], **attrs)
        for (op, attrs), before, after in zip(nodes, names[:-1], names[1:], strict=True)
    ]
    return build([helper.make_node("Neg", ["x"], ["z"]), *made], {}, x=("n", 3, 4), outputs=("y", "z"), opset=opset)


@pytest.fixture
def plain(build):
    """A judge of two outputs that nothing bounds."""
    return Judge(chain(build, ("Abs", {})))


@pytest.mark.parametrize(
    ("nodes", "opset", "end"),
    [
        ([("Abs", {})], 17, ("y", 0, None, False)),
        ([("Abs", {}), ("Sigmoid", {})], 17, ("t0", 1, None, False)),
        ([("Abs", {}), ("Softmax", {})], 17, ("t0", 1, -1, False)),
        ([("Abs", {}), ("Softmax", {})], 12, ("t0", 1, 1, True)),
        ([("Abs", {}), ("LogSoftmax", {"axis": 2}), ("Identity", {})], 17, ("t0", 2, 2, False)),
        ([("Abs", {}), ("Sigmoid", {}), ("Softmax", {})], 17, ("t0", 2, None, False)),
        ([("Abs", {}), ("Softmax", {"axis": 1}), ("ArgMax", {"axis": 1})], 17, ("t0", 2, 1, False)),
    ],
)
def test_goes_back_to_what_is_not_bounded(build, nodes, opset, end):
    model = chain(build, *nodes, opset=opset)
    found = find_end(model, model.graph.outputs[0])
    name, depth, axis, onward = end
    assert (found.name, found.depth, found.axis) == (name, depth, axis)
    assert found.onward == onward or axis is None


def test_what_is_judged_becomes_an_output_once(build):
    model = chain(build, ("Abs", {}), ("Softmax", {}))
    judge = Judge(model)
    assert judge.outputs == ["t0", "z"]
    assert [each.name for each in model.graph.outputs] == ["y", "z", "t0"]
    assert Judge(model).outputs == ["t0", "z"]
    assert [each.name for each in model.graph.outputs] == ["y", "z", "t0"]


def test_noise_is_that_of_the_worst_output_over_all_batches(plain):
    first, second = np.ones((2, 4), np.float32), 2 * np.ones((1, 4), np.float32)
    plain.learn({"y": first, "z": first})
    plain.learn({"y": second, "z": second})
    assert plain.useful
    assert plain.noise([{"y": first, "z": first}, {"y": second, "z": second}]) == 0
    found = plain.noise([{"y": first, "z": first}, {"y": second + 1, "z": second + 2}])
    assert found == pytest.approx(4 * 4 / (8 + 16), rel=1e-12)


@pytest.mark.parametrize("axis", [1, 2, -1])
@pytest.mark.parametrize("opset", [12, 17])
def test_what_a_softmax_does_not_see_is_no_noise(build, random, axis, opset):
    model = chain(build, ("Abs", {}), ("Softmax", {"axis": axis}), opset=opset)
    judge = Judge(model)
    logits, z = random.standard_normal((2, 3, 4)), np.ones((2, 3, 4), np.float32)
    axes = tuple(range(axis % 3, 3)) if opset < 13 else (axis,)
    unseen = logits.std(axis=axes, keepdims=True)  # differs for each distribution
    judge.learn({"t0": logits, "z": z})
    assert judge.noise([{"t0": logits + unseen, "z": z}]) < 1e-25  # float64 sums
    seen = np.zeros_like(logits)
    seen[:, 0, 0] = 1
    assert judge.noise([{"t0": logits + seen, "z": z}]) > 1e-3


def test_one_number_for_each_row_is_noise_where_a_softmax_takes_both_axes(build, random):
    judge = Judge(chain(build, ("Abs", {}), ("Softmax", {"axis": 1}), opset=12))
    logits, z = random.standard_normal((2, 3, 4)), np.ones((2, 3, 4), np.float32)
    judge.learn({"t0": logits, "z": z})
    assert judge.noise([{"t0": logits + np.arange(3.0)[:, np.newaxis], "z": z}]) > 0.1


def test_what_is_masked_before_a_softmax_does_not_hide_the_rest(build, random):
    judge = Judge(chain(build, ("Abs", {}), ("Softmax", {})))
    logits, z = random.standard_normal((2, 3, 4)), np.ones((2, 3, 4), np.float32)
    logits[:, :, 3] = -np.inf
    judge.learn({"t0": logits, "z": z})
    other = logits.copy()
    other[:, :, 0] += 1
    assert judge.noise([{"t0": logits + 1, "z": z}]) < 1e-25
    assert 0.01 < judge.noise([{"t0": other, "z": z}]) < math.inf


@pytest.mark.parametrize("wrong", [np.nan, np.inf, None])
def test_no_number_and_another_shape_are_infinitely_bad(plain, wrong):
    y = np.ones((2, 4), np.float32)
    plain.learn({"y": y, "z": y})
    other = y[:1] if wrong is None else np.where(np.arange(4) == 2, np.float32(wrong), y)
    assert plain.noise([{"y": y, "z": other}]) == math.inf


def test_what_was_no_number_before_does_not_count(plain):
    y = np.array([1, np.nan, np.inf], np.float32)
    plain.learn({"y": y, "z": y})
    assert plain.noise([{"y": y, "z": y}]) == 0


def test_noise_where_all_was_zero_is_infinite(plain):
    zeros = np.zeros((2, 4), np.float32)
    plain.learn({"y": zeros, "z": zeros})
    assert plain.noise([{"y": zeros, "z": zeros}]) == 0
    assert plain.noise([{"y": zeros, "z": zeros + 1}]) == math.inf


def test_whole_numbers_are_not_judged(plain):
    whole = np.ones((2, 4), np.int64)
    plain.learn({"y": whole, "z": whole})
    assert not plain.useful
    assert plain.noise([{"y": whole + 1, "z": whole}]) == 0


def test_names_of_a_later_version_are_told(build):
    judge = Judge(chain(build, ("Abs", {}), ("Softmax", {})))
    later = chain(build, ("Abs", {}), ("Softmax", {}))
    later.graph.nodes[1].outputs[0].name = "renamed"
    assert judge.expose(later) == {"t0": "renamed", "z": "z"}
    assert [each.name for each in later.graph.outputs] == ["y", "z", "renamed"]
