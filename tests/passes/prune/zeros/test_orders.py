"""N:M pruning with the inputs of layers in another order."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.kernels.permutation import kept_by_groups
from onnxpress.passes.prune.zeros.orders import Orders
from onnxpress.passes.prune.zeros.patterns import NofM
from onnxpress.passes.prune.zeros.second_order import PruneSecondOrder
from onnxpress.passes.selection import Layout
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.sites import find_sites

TWO = NofM(2, 4)


def weights(**shapes):
    draw = np.random.default_rng(3)
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def hidden(build):
    """x @ a -> Relu -> @ b, transposed: the first half of 40 hidden units counts for far more than the other."""
    arrays = weights(a=(24, 40), b=(12, 40))
    arrays["b"] = arrays["b"] * np.repeat([2, 0.2], 20).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="first"),
        helper.make_node("Relu", ["p"], ["q"]),
        helper.make_node("Gemm", ["q", "b"], ["y"], name="second", transB=1),
    ]
    return build(nodes, arrays, x=("n", 24))


def texts(count=4):
    return [each.astype(np.float32) for each in np.random.default_rng(0).standard_normal((count, 60, 24))]


def noise(run, original, model):
    wanted, found = (np.concatenate([run(each, x)[0] for x in texts()]) for each in (original, model))
    return float(np.square(wanted - found).sum() / np.square(wanted).sum())


def test_the_order_changes_no_output_and_serves_the_pattern(hidden, run):
    model = hidden.clone()
    sites = find_sites(model)
    orders = Orders.of(model, sites, TWO)
    scores = np.square(sites[1].array(), dtype=np.float64)
    order = orders.choose(sites[1], scores)
    orders.apply(model)
    for x in texts(1):
        # sums of 40 float32 in another order
        np.testing.assert_allclose(run(model, x)[0], run(hidden, x)[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(sites[1].array(), find_sites(hidden)[1].array()[:, order])
    kept = [kept_by_groups(each, keep=2, group=4) for each in (scores, np.square(sites[1].array(), dtype=np.float64))]
    assert kept[1] > 1.1 * kept[0]


@pytest.mark.parametrize("saliency", ["magnitude", "wanda", "obd", "obs", "alps"])
def test_a_better_order_loses_less_and_the_pattern_holds(hidden, bench, run, saliency):
    found = {}
    for permute in (True, False):
        result = PruneSecondOrder(pattern="2:4", saliency=saliency, permute=permute)(hidden, bench(hidden, *texts()))
        for site in find_sites(result.model):
            rows = Layout.of(site).to_rows(site.array()).reshape(-1, 4)
            assert (np.count_nonzero(rows, axis=1) == 2).all()
        found[permute] = noise(run, hidden, result.model)
    assert found[True] < 0.95 * found[False]


def test_the_report_says_what_an_order_gained_or_why_there_is_none(hidden, bench):
    changes = PruneSecondOrder(pattern="2:4")(hidden, bench(hidden, *texts())).report.changes
    told = {change.site: change.action for change in changes}
    assert "with its inputs in their order ('x' is an input of the model)" in told["first"]
    assert "with its inputs in another order, where" in told["second"]
    changes = PruneSecondOrder(pattern="2:4", permute=False)(hidden, bench(hidden, *texts())).report.changes
    assert not any("order" in change.action for change in changes)


def test_the_same_seed_gives_the_same_model(hidden, bench):
    first, second = (PruneSecondOrder(pattern="2:4")(hidden, bench(hidden, *texts())).model for _ in range(2))
    for one, other in zip(find_sites(first), find_sites(second), strict=True):
        np.testing.assert_array_equal(one.array(), other.array())


def reasons(model, pattern=TWO):
    sites = find_sites(model)
    orders = Orders.of(model, sites, pattern)
    return {site.name: orders.reasons.get(site) for site in sites}


def test_inputs_that_two_layers_read_stay(build):
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="first"),
        helper.make_node("MatMul", ["p", "b"], ["q"], name="left"),
        helper.make_node("MatMul", ["p", "c"], ["r"], name="right"),
        helper.make_node("Add", ["q", "r"], ["y"]),
    ]
    found = reasons(build(nodes, weights(a=(8, 16), b=(16, 8), c=(16, 8)), x=("n", 8)))
    assert found["left"] == found["right"] == "other layers with the pattern read them, too"


def test_inputs_of_several_layers_side_by_side_stay(build):
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="left"),
        helper.make_node("MatMul", ["x", "b"], ["q"], name="right"),
        helper.make_node("Concat", ["p", "q"], ["r"], axis=1),
        helper.make_node("MatMul", ["r", "c"], ["y"], name="both"),
    ]
    found = reasons(build(nodes, weights(a=(8, 16), b=(8, 16), c=(32, 8)), x=("n", 8)))
    assert found["both"] == "they belong to several groups of coupled axes"


@pytest.mark.parametrize(("kernel", "free"), [(1, True), (3, False)])
def test_kernels_of_more_than_one_position_stay(build, kernel, free):
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["p"], name="first"),
        helper.make_node("Relu", ["p"], ["q"]),
        helper.make_node("Conv", ["q", "b"], ["y"], name="second"),
    ]
    found = reasons(build(nodes, weights(a=(16, 4, 3, 3), b=(8, 16, kernel, kernel)), x=("n", 4, 9, 9)))
    assert found["second"] == (None if free else "several of its columns have to go together")


def test_what_is_normalised_stays(build):
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="first"),
        helper.make_node("LayerNormalization", ["p", "s"], ["q"], name="norm"),
        helper.make_node("MatMul", ["q", "b"], ["y"], name="second"),
    ]
    found = reasons(build(nodes, weights(a=(8, 16), s=(16,), b=(16, 8)), x=("n", 8)))
    assert "mean and variance would change" in found["second"]


def test_weights_without_worth_keep_their_order(hidden):
    first, second = find_sites(hidden)
    orders = Orders.of(hidden, [first, second], TWO)
    for scores in (np.zeros((12, 40)), np.full((12, 40), np.inf)):
        assert orders.choose(second, scores) is None
    assert orders.choose(first, np.ones((40, 24))) is None
    assert orders.phrase(second) == " with its inputs in their order (no other is better)"


def test_permute_is_true_or_false():
    with pytest.raises(ConfigError, match="permute"):
        PruneSecondOrder(pattern="2:4", permute=1)
