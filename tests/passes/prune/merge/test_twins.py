import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.prune.merge.twins import dissect
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.couplings import find_couplings


def between(build, random, *nodes, weights=None, x=("n", 6)):
    """The group of units between two products, with some nodes in between; they read h and write g."""
    arrays = {"w": random.standard_normal((6, 8), np.float32), "v": random.standard_normal((8, 3), np.float32)}
    first, last = (
        helper.make_node("MatMul", ["x", "w"], ["h"], name="fc"),
        helper.make_node("MatMul", ["g", "v"], ["y"]),
    )
    model = build([first, *nodes, last], arrays | (weights or {}), x=x)
    return find_couplings(model).by_name("fc")


@pytest.mark.parametrize(
    ("op", "factors"),
    [("Identity", "any"), ("Relu", "positive"), ("LeakyRelu", "positive"), ("Sigmoid", "one"), ("Tanh", "one")],
)
def test_tells_which_multiples_pass(build, random, op, factors):
    assert dissect(between(build, random, helper.make_node(op, ["h"], ["g"]))).factors == factors


def test_a_bias_of_each_unit_is_a_part_of_it(build, random):
    bias = random.standard_normal(8).astype(np.float32)
    anatomy = dissect(between(build, random, helper.make_node("Add", ["h", "b"], ["g"]), weights={"b": bias}))
    assert anatomy.factors == "any"
    assert [(member.tensor.name, part) for member, part in anatomy.parts] == [("w", "source"), ("b", "source")]
    assert [each.tensor.name for each in anatomy.readers] == ["v"]


def test_what_is_added_to_all_units_alike_allows_no_factor(build, random):
    group = between(build, random, helper.make_node("Add", ["h", "b"], ["g"]), weights={"b": np.ones(1, np.float32)})
    assert dissect(group).factors == "one"


@pytest.mark.parametrize(("op", "part"), [("Mul", "gain"), ("Div", "gain"), ("PRelu", "slope"), ("Sub", "source")])
def test_tells_gains_from_sources(build, random, op, part):
    values = random.uniform(0.5, 1, 8).astype(np.float32)
    anatomy = dissect(between(build, random, helper.make_node(op, ["h", "b"], ["g"]), weights={"b": values}))
    assert [(member.tensor.name, each) for member, each in anatomy.parts] == [("w", "source"), ("b", part)]
    assert anatomy.factors == ("positive" if op == "PRelu" else "any")


def test_a_unit_times_itself_allows_no_factor(build, random):
    nodes = [helper.make_node("Sigmoid", ["h"], ["s"]), helper.make_node("Mul", ["h", "s"], ["g"])]
    assert dissect(between(build, random, *nodes)).factors == "one"
    nodes = [helper.make_node("Relu", ["h"], ["s"]), helper.make_node("Mul", ["h", "s"], ["g"])]
    assert dissect(between(build, random, *nodes)).factors == "one"


def convolutions(build, random, *nodes, weights):
    arrays = {
        "w": random.standard_normal((4, 2, 1, 1), np.float32),
        "v": random.standard_normal((3, 4, 1, 1), np.float32),
    }
    first, last = helper.make_node("Conv", ["x", "w"], ["h"], name="conv"), helper.make_node("Conv", ["g", "v"], ["y"])
    model = build([first, *nodes, last], arrays | weights, x=(1, 2, 5, 5))
    return find_couplings(model).by_name("conv")


def test_a_depthwise_kernel_is_a_gain_and_its_bias_a_source(build, random):
    kernels = {"d": random.standard_normal((4, 1, 3, 3), np.float32), "b": np.ones(4, np.float32)}
    node = helper.make_node("Conv", ["h", "d", "b"], ["g"], group=4)
    anatomy = dissect(convolutions(build, random, node, weights=kernels))
    parts = [(member.tensor.name, part) for member, part in anatomy.parts]
    assert parts == [("w", "source"), ("d", "gain"), ("b", "source")]
    assert anatomy.factors == "any"


@pytest.mark.parametrize(("value", "factors"), [(0.0, "any"), (1.0, "one")])
def test_padding_with_zeros_keeps_factors(build, random, value, factors):
    pads = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "c": np.array(value, np.float32)}
    node = helper.make_node("Pad", ["h", "p", "c"], ["g"])
    assert dissect(convolutions(build, random, node, weights=pads)).factors == factors


def test_slopes_near_zero_are_alike(build, random):
    slopes = np.array([0.01, 0.02, 1, 1, 1, 1, 1, 1], np.float32)
    group = between(build, random, helper.make_node("PRelu", ["h", "b"], ["g"]), weights={"b": slopes})
    anatomy = dissect(group)
    w = next(member.tensor for member, part in anatomy.parts if part == "source").values
    assert (
        anatomy.pairs().costs(np.array([0]), np.array([1])) < np.square(w[:, 0]).sum() * 2.1
    )  # not the ratio of the slopes, but their distance


def test_refuses_what_is_read_without_weights(build, random):
    """The scores of x are products of units with units: a twin cannot take over."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["q"], name="fc"),
        helper.make_node("MatMul", ["x", "u"], ["k"]),
        helper.make_node("Transpose", ["k"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["q", "t"], ["y"]),
    ]
    arrays = {name: random.standard_normal((6, 8), np.float32) for name in ("w", "u")}
    group = find_couplings(build(nodes, arrays, x=(5, 6))).by_name("fc")
    assert group.frozen is None
    with pytest.raises(RefusalError, match="MatMul '' reads its units without weights"):
        dissect(group)


def test_refuses_weights_that_are_no_numbers(build, random):
    group = between(
        build, random, helper.make_node("Add", ["h", "b"], ["g"]), weights={"b": np.full(8, np.nan, np.float32)}
    )
    with pytest.raises(RefusalError, match="NaN or infinite"):
        dissect(group).pairs()
