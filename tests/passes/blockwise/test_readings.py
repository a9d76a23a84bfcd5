import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.blockwise import readings
from onnxpress.passes.blockwise.readings import bundles, with_moments
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.sites import find_sites


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs)


@pytest.fixture
def model(build, random):
    """Two products of x, one of their sum, and one weight that two products share."""
    weights = {name: random.standard_normal((8, 8)).astype(np.float32) for name in "abcd"}
    nodes = [
        node("MatMul", ["x", "a"], ["p"]),
        node("MatMul", ["x", "b"], ["q"]),
        node("Add", ["p", "q"], ["r"]),
        node("MatMul", ["r", "c"], ["s"]),
        node("MatMul", ["r", "d"], ["t"]),
        node("MatMul", ["t", "d"], ["u"]),
        node("Add", ["s", "u"], ["y"]),
    ]
    return build(nodes, weights, x=("n", 8))


def test_sites_that_read_the_same_are_one_bundle(model):
    found = bundles(model, find_sites(model))
    assert [[site.name for site in each.sites] for each in found] == [
        ["MatMul_p", "MatMul_q"],
        ["MatMul_s"],
        ["MatMul_t"],
    ]
    assert [len(each.readings) for each in found] == [1, 1, 2]


@pytest.mark.parametrize("memory", [1, 1 << 30])
def test_moments_are_those_of_all_rows(model, bench, random, memory, monkeypatch):
    monkeypatch.setattr(readings, "MEMORY", memory)
    samples = [random.standard_normal((5, 8)).astype(np.float32) for _ in range(3)]
    rows = np.concatenate(samples)
    weights = {site.name[-1]: site.array() for site in find_sites(model)}
    r = rows @ weights["p"] + rows @ weights["q"]
    t = r @ weights["t"]
    expected = [rows.T @ rows, r.T @ r, r.T @ r + t.T @ t]
    found = bundles(model, find_sites(model))
    for bundle, moment in zip(with_moments(model, found, bench(model, *samples)), expected, strict=True):
        np.testing.assert_allclose(bundle.moment, moment[None], rtol=1e-4, atol=1e-3)
    assert all(each.moment is None for each in found)


def test_says_what_cannot_be_observed(build, random):
    table = random.standard_normal((20, 8)).astype(np.float32)
    stack = random.standard_normal((3, 8, 8)).astype(np.float32)
    nodes = [node("Gather", ["t", "x"], ["g"]), node("MatMul", ["g", "w"], ["y"])]
    model = build(nodes, {"t": table, "w": stack}, x=(3, 2), dtype=7, gives=1)
    assert [each.reason for each in bundles(model, find_sites(model))] == [
        "a table is looked up, not multiplied",
        "its weight is a stack of matrices, each for rows of its own",
    ]


def test_needs_samples(model):
    with pytest.raises(FeedError, match="--data"):
        next(with_moments(model, bundles(model, find_sites(model)), Workbench()))
