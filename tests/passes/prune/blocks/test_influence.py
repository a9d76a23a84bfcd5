"""A model whose branches can be switched off."""

import math

import numpy as np
import pytest
from onnx import helper

from onnxpress.calibration.feeds import Feed
from onnxpress.passes.base import Workbench
from onnxpress.passes.prune.blocks.averages import Means
from onnxpress.passes.prune.blocks.branch import remove_branch
from onnxpress.passes.prune.blocks.influence import SwitchedModel
from onnxpress.passes.prune.blocks.residual import find_branches
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.shapes import infer_shapes

X = np.random.default_rng(1).standard_normal((3, 4, 8)).astype(np.float32)


@pytest.fixture
def model(build, random):
    """Two residual blocks before a Softmax."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="one"),
        helper.make_node("Add", ["x", "a"], ["s"]),
        helper.make_node("MatMul", ["s", "v"], ["b"], name="two"),
        helper.make_node("Add", ["s", "b"], ["t"]),
        helper.make_node("Softmax", ["t"], ["y"], axis=-1),
    ]
    return build(nodes, {name: random.standard_normal((8, 8)).astype(np.float32) for name in "wv"}, x=("n", 8))


def branches_of(model):
    return find_branches(model, infer_shapes(model))[0]


def expected(model, chosen, stand_in=0.0):
    """In NumPy: dB of what the Softmax reads, without its mean."""
    w, v = (model.graph.nodes[index].inputs[1].values.astype(np.float64) for index in (0, 2))
    signal = noise = 0.0
    for x in X.astype(np.float64):
        whole = (x + x @ w) + (x + x @ w) @ v
        s = x + (stand_in if 0 in chosen else x @ w)
        part = s + (0.0 if 1 in chosen else s @ v)
        whole, part = (each - each.mean(axis=-1, keepdims=True) for each in (whole, part))
        signal, noise = signal + (whole**2).sum(), noise + ((whole - part) ** 2).sum()
    return 10 * math.log10(signal / noise)


@pytest.mark.parametrize("chosen", [[0], [1], [0, 1]])
def test_says_what_is_left_without_some_branches(model, bench, chosen):
    with SwitchedModel(model, branches_of(model), Means({}), bench(model, *X)) as switched:
        assert switched.useful
        assert switched.sqnr([]) == math.inf
        assert switched.sqnr(chosen) == pytest.approx(expected(model, chosen), rel=1e-3)  # float32


def test_an_average_stands_in(model, bench):
    means = Means({"one": np.full((1, 8), 0.7)})
    with SwitchedModel(model, branches_of(model), means, bench(model, *X)) as switched:
        assert switched.sqnr([0]) == pytest.approx(expected(model, [0], stand_in=0.7), rel=1e-3)  # float32


def test_a_model_without_the_branch_is_as_good_as_one_with_it_switched_off(model, bench):
    branches = branches_of(model)
    with SwitchedModel(model, branches, Means({}), bench(model, *X)) as switched:
        remove_branch(model, branches[1])
        sweep(model)
        assert switched.compare(model) == pytest.approx(switched.sqnr([1]), rel=1e-4)  # float32


def test_the_model_stays_as_it_is(model, bench):
    before = model.to_proto().SerializeToString(deterministic=True)
    with SwitchedModel(model, branches_of(model), Means({}), bench(model, *X)) as switched:
        switched.sqnr([0])
    assert model.to_proto().SerializeToString(deterministic=True) == before


def test_needs_samples(model):
    with pytest.raises(FeedError, match="--data"):
        SwitchedModel(model, [], Means({}), Workbench())
    with pytest.raises(FeedError, match="holds no samples"):
        SwitchedModel(model, [], Means({}), Workbench(feed=Feed([], count=0)))
