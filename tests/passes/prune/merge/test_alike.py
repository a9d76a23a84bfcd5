"""Units of equal values on samples, whatever their weights are."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from onnxpress.passes.prune.merge.merge import MergeNeurons
from onnxpress.rewriter.sites import find_sites


def normal(random, *shape):
    return random.standard_normal(shape).astype(np.float32)


def shapes(model):
    return {site.name: site.shape for site in find_sites(model)}


def check_equal(run, model, merged, x):
    # other order of float32 sums
    np.testing.assert_allclose(run(merged, x)[0], run(model, x)[0], rtol=1e-4, atol=1e-4)


def test_finds_units_of_equal_values_whatever_their_weights(build, run, bench, random):
    """Of inputs whose second half is the first, other weights give the same units."""
    w = normal(random, 6, 8)
    w[:, 1] = np.roll(w[:, 0], 3)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="fc"),
        helper.make_node("Relu", ["h"], ["g"]),
        helper.make_node("MatMul", ["g", "v"], ["y"], name="last"),
    ]
    model = build(nodes, {"w": w, "v": normal(random, 8, 3)}, x=("n", 6))
    x = np.tile(normal(random, 32, 3), 2)
    result = MergeNeurons(count=1, by="activations")(model, bench(model, x[:16], x[16:]))
    assert shapes(result.model) == {"fc": (6, 7), "last": (7, 3)}
    check_equal(run, model, result.model, x)
    assert MergeNeurons(max_error=1e-3)(model).report.changes == []


def test_observes_channels_of_convolutions(build, run, bench, random):
    w = normal(random, 6, 2, 1, 1)
    w[4] = w[3, ::-1]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], name="first"),
        helper.make_node("Sigmoid", ["h"], ["g"]),
        helper.make_node("Conv", ["g", "v"], ["y"], name="last"),
    ]
    model = build(nodes, {"w": w, "v": normal(random, 3, 6, 3, 3)}, x=("n", 2, 5, 5))
    x = np.repeat(normal(random, 2, 1, 5, 5), 2, axis=1)
    result = MergeNeurons(count=1, by="activations")(model, bench(model, x))
    assert shapes(result.model) == {"first": (5, 2, 1, 1), "last": (3, 5, 3, 3)}
    check_equal(run, model, result.model, x)


def test_observes_units_that_a_weight_on_the_left_reads(build, run, bench, random):
    w = normal(random, 8, 6)
    w[5] = 2 * w[2]
    nodes = [
        helper.make_node("MatMul", ["w", "x"], ["h"], name="fc"),
        helper.make_node("Relu", ["h"], ["g"]),
        helper.make_node("MatMul", ["v", "g"], ["y"], name="last"),
    ]
    model = build(nodes, {"w": w, "v": normal(random, 3, 8)}, x=("n", 6, 4))
    x = normal(random, 5, 6, 4)
    result = MergeNeurons(count=1, by="activations")(model, bench(model, x))
    assert shapes(result.model) == {"fc": (7, 6), "last": (3, 7)}
    check_equal(run, model, result.model, x)


def test_says_that_values_inside_a_branch_cannot_be_observed(build, bench, random):
    ends = [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)]
    stored = [numpy_helper.from_array(normal(random, *shape), name) for name, shape in (("w", (6, 8)), ("v", (8, 6)))]
    layers = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="fc"),
        helper.make_node("MatMul", ["h", "v"], ["t"], name="last"),
    ]
    yes = helper.make_graph(layers, "yes", [], ends, stored)
    no = helper.make_graph([helper.make_node("Identity", ["x"], ["t"])], "no", [], ends)
    node = helper.make_node("If", ["which"], ["y"], then_branch=yes, else_branch=no)
    model = build([node], {"which": np.array(True)}, x=("n", 6))
    report = MergeNeurons(count=1, by="activations")(model, bench(model, normal(random, 4, 6))).report
    reasons = {each.site: each.reason for each in report.skips}
    assert reasons["fc"] == "the values of its units cannot be observed; merge it by weights"


def test_says_that_values_are_no_numbers(build, bench, random):
    w = normal(random, 6, 8)
    w[0, 0] = np.inf
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="fc"),
        helper.make_node("MatMul", ["h", "v"], ["y"], name="last"),
    ]
    model = build(nodes, {"w": w, "v": normal(random, 8, 3)}, x=("n", 6))
    report = MergeNeurons(count=1, by="activations")(model, bench(model, normal(random, 4, 6))).report
    reasons = {each.site: each.reason for each in report.skips}
    assert reasons["fc"] == "the values of its units cannot be observed; merge it by weights"
    assert not report.changes
