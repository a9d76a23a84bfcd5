"""Layers that have no equations, each with the reason."""

import numpy as np
from onnx import TensorProto, helper

from onnxpress.calibration.feeds import open_feed
from onnxpress.passes.base import Workbench
from onnxpress.passes.equations import equations
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.sites import find_sites


def node(op, inputs, output, **attrs):
    return helper.make_node(op, inputs, [output], name=f"make_{output}", **attrs)


def refusal_of(model, original, samples, index=0):
    sites = find_sites(model)
    found = {site.name: pair for site, pair in equations(model, original, sites, samples)}
    refusal = found[sites[index].name]
    assert isinstance(refusal, RefusalError)
    return str(refusal)


def test_refuses_layers_that_it_cannot_see(chain, build, bench, array, batches):
    embedding = build(
        [node("Gather", ["w", "i"], "g"), node("MatMul", ["g", "v"], "h"), node("Add", ["h", "x"], "y")],
        {"w": array(4, 3), "i": np.array([1, 2]), "v": array(3, 6)},
        x=["n", 6],
    )
    samples = bench(embedding, array(2, 6), array(2, 6))
    assert "Gather does not multiply rows" in refusal_of(embedding.clone(), embedding, samples)
    twice = build([node("MatMul", ["x", "w"], "p"), node("Add", ["p", "w"], "y")], {"w": array(6, 6)}, x=[6, 6])
    assert "Add 'make_y' reads its weight, too" in refusal_of(twice.clone(), twice, bench(twice, array(6, 6)))
    other = build([node("MatMul", ["x", "w"], "z")], {"w": array(6, 5)}, x=["n", 6], outputs=["z"])
    assert "the original has no layer that writes 'z'" in refusal_of(other, chain, bench(chain, *batches))


def test_refuses_layers_inside_a_branch(build, bench, array, batches):
    result = helper.make_tensor_value_info("t", TensorProto.FLOAT, None)
    then = helper.make_graph([node("MatMul", ["x", "w"], "t")], "then", [], [result])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["t"])], "else", [], [result])
    branch = helper.make_node("If", ["p"], ["y"], then_branch=then, else_branch=other)
    model = build([branch], {"p": np.array(True), "w": array(6, 6)}, x=["n", 6])
    assert "inside a branch or a loop" in refusal_of(model.clone(), model, bench(model, *batches))


def test_refuses_rows_that_are_not_those_of_the_original(build, bench, array, batches):
    def reading(start):
        numbers = {"from": np.array([start]), "to": np.array([9]), "w": array(6, 2)}
        return build([node("Slice", ["x", "from", "to"], "h"), node("MatMul", ["h", "w"], "y")], numbers, x=["n", 6])

    original = reading(0)
    assert "it reads 4 rows where the original reads" in refusal_of(reading(1), original, bench(original, *batches))


def test_refuses_what_is_too_wide_and_does_the_others(build, bench, array, batches):
    """8200 inputs: the weight is small, but their second moments are not."""
    nodes = [
        node("MatMul", ["x", "w"], "p"),
        node("Tile", ["p", "times"], "q"),
        node("MatMul", ["q", "u"], "r"),
        node("MatMul", ["r", "v"], "y"),
    ]
    weights = {"w": array(6, 8), "times": np.array([1, 1025]), "u": array(8200, 5), "v": array(5, 3)}
    original = build(nodes, weights, x=["n", 6])
    model = original.clone()
    found = {site.name: pair for site, pair in equations(model, original, find_sites(model), bench(model, *batches))}
    wide = found.pop("make_r")
    assert str(wide) == "it reads 8200 inputs: the second moments of so many take 4 GB"
    assert [(name, pair.total.count) for name, pair in found.items()] == [("make_p", 27), ("make_y", 27)]


def test_a_table_that_is_looked_up_is_not_called_too_wide(build, array):
    """9000 rows, of which each lookup takes one."""
    model = build([node("Gather", ["w", "x"], "y")], {"w": array(9000, 4)}, x=["n"], dtype=TensorProto.INT64)
    feed = open_feed(iter([{"x": np.arange(5)}]), inputs=model.inputs)
    ((_, why),) = equations(model, model.clone(), find_sites(model), Workbench(feed=feed, threads=1))
    assert str(why) == "Gather does not multiply rows of an activation by its weight"
