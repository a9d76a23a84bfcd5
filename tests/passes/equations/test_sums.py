"""What is summed: what a layer reads in the pruned model, for what the original gives."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.calibration.feeds import open_feed
from onnxpress.calibration.session import Runner
from onnxpress.passes.base import Workbench
from onnxpress.passes.equations import equations
from onnxpress.passes.inputs import activation_of, view_of
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.rewriter.sites import find_sites


def node(op, inputs, output, **attrs):
    return helper.make_node(op, inputs, [output], name=f"make_{output}", **attrs)


def values_of(model, name, batches):
    """An activation of every batch."""
    if name == "x":
        return batches
    proto = model.to_proto()
    del proto.graph.output[:]
    proto.graph.output.add(name=name)
    runner = Runner(proto.SerializeToString())
    return [runner.run({"x": batch})[name] for batch in batches]


def value_of(model, name, batches):
    """An activation of all batches."""
    return np.concatenate(values_of(model, name, batches))


def rows_of(model, site, batches, use=0):
    """Rows of all batches, [groups, n, k]."""
    view, name = view_of(site.uses[use]), activation_of(site.uses[use]).name
    return np.concatenate([view.rows(batch) for batch in values_of(model, name, batches)], axis=1)


def product(site, rows):
    """[n, out]."""
    matrix = Layout.of(site).to_rows(site.array())
    parts = np.split(matrix, len(rows))
    return np.concatenate([each @ part.T for each, part in zip(rows, parts, strict=True)], axis=1)


def changed(model, index):
    """A clone with another weight at a site."""
    other = model.clone()
    site = find_sites(other)[index]
    other.replace_weight(site.weight, site.array() * (np.arange(site.size, dtype=np.float32).reshape(site.shape) % 2))
    return other


def check(pair, rows, wanted):
    """The sums are those of rows [groups, n, k] and outputs [n, out]."""
    total, groups = pair.total, len(rows)
    parts = wanted.reshape(len(wanted), groups, -1).transpose(1, 0, 2)
    assert total.count == rows.shape[1]
    # float32 products of at most some hundred rows
    close = {"rtol": 1e-4, "atol": 1e-3}
    np.testing.assert_allclose(total.moment, rows.transpose(0, 2, 1) @ rows, **close)
    np.testing.assert_allclose(total.cross, parts.transpose(0, 2, 1) @ rows, **close)
    np.testing.assert_allclose(total.input_sum, rows.sum(axis=1), **close)
    np.testing.assert_allclose(total.output_sum, parts.sum(axis=1), **close)
    np.testing.assert_allclose(total.energy, (parts**2).sum(axis=1), **close)


def test_reads_the_pruned_model_and_wants_what_the_original_gives(chain, bench, batches):
    model = changed(chain, 0)
    first, second = find_sites(model)
    found = dict(equations(model, chain, [second, first], bench(chain, *batches)))
    assert list(found) == [first, second]
    for site, twin in zip((first, second), find_sites(chain), strict=True):
        wanted = product(twin, rows_of(chain, twin, batches))
        check(found[site], rows_of(model, site, batches), wanted)


def test_sees_what_the_caller_did_to_the_layer_before(chain, bench, batches):
    model = chain.clone()
    pairs = {}
    for site, pair in equations(model, chain, find_sites(model), bench(chain, *batches)):
        pairs[site] = pair
        model.replace_weight(site.weight, 2 * site.array())
    second = find_sites(model)[1]
    doubled = rows_of(model, second, batches)
    assert np.abs(doubled - rows_of(chain, find_sites(chain)[1], batches)).max() > 0.5
    check(list(pairs.values())[1], doubled, value_of(chain, "y", batches))


def test_wants_what_the_bias_of_the_original_is_more(chain, bench, batches):
    model = chain.clone()
    bias = next(each for each in model.constants() if each.name == "c")
    model.replace_weight(bias, model.array(bias) - 2)
    site = find_sites(model)[0]
    ((_, pair),) = equations(model, chain, [site], bench(chain, *batches))
    rows = rows_of(model, site, batches)
    check(pair, rows, product(site, rows) + 2)


def test_layers_that_read_the_same_share_a_moment(build, bench, array, batches):
    nodes = [
        node("MatMul", ["x", "w"], "p"),
        node("MatMul", ["p", "u"], "q"),
        node("MatMul", ["x", "v"], "r"),
        node("Add", ["q", "r"], "y"),
    ]
    model = build(nodes, {"w": array(6, 5), "u": array(5, 3), "v": array(6, 3)}, x=["n", 6])
    clone = model.clone()
    found = dict(equations(clone, model, find_sites(clone), bench(model, *batches)))
    first, third, second = found
    assert [each.name for each in found] == ["make_p", "make_r", "make_q"]
    assert found[first].fit.moment is found[third].fit.moment
    for site in (first, second, third):
        rows = rows_of(clone, site, batches)
        check(found[site], rows, product(site, rows))


def test_a_weight_that_is_used_twice_has_the_rows_of_both(build, bench, array, batches):
    nodes = [
        node("MatMul", ["x", "w"], "p"),
        node("Tanh", ["p"], "q"),
        node("MatMul", ["q", "w"], "r"),
        node("MatMul", ["r", "v"], "y"),
    ]
    original = build(nodes, {"w": array(6, 6), "v": array(6, 2)}, x=["n", 6])
    model = original.clone()
    pairs = []
    for site, pair in equations(model, original, find_sites(model), bench(model, *batches)):
        pairs.append(pair)
        if len(pairs) == 1:
            rows = np.concatenate([rows_of(model, site, batches, use) for use in (0, 1)], axis=1)
            check(pair, rows, product(site, rows))
            model.replace_weight(site.weight, 0.5 * site.array())
    twin = find_sites(original)[1]
    wanted = product(twin, rows_of(original, twin, batches))
    check(pairs[1], rows_of(model, find_sites(model)[1], batches), wanted)


def test_rows_that_are_gone_are_not_wanted(chain, bench, batches):
    model = chain.clone()
    first, second = find_sites(model)
    kept = np.array([0, 2, 3])
    model.replace_weight(first.weight, first.array()[:, kept])
    bias = next(each for each in model.constants() if each.name == "c")
    model.replace_weight(bias, model.array(bias)[kept])
    model.replace_weight(second.weight, second.array()[kept])
    samples = bench(chain, *batches)
    found = [pair for _, pair in equations(model, chain, [first, second], samples, kept_out={first.name: kept})]
    rows = rows_of(model, first, batches)
    check(found[0], rows, product(find_sites(chain)[0], rows)[:, kept])
    wanted = value_of(chain, "y", batches)
    check(found[1], rows_of(model, second, batches), wanted)
    (_, refusal), _ = equations(model, chain, [first, second], samples)
    assert isinstance(refusal, RefusalError)
    assert str(refusal) == "it has 3 outputs of the 5 that the original has, and nothing tells which"


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_of_a_convolution_that_are_left(build, array, groups):
    weights = {"w": array(4, 4 // groups, 3, 3), "b": array(4)}
    conv = node("Conv", ["x", "w", "b"], "y", group=groups, pads=[1, 1, 1, 1], strides=[2, 1])
    original = build([conv], weights, x=[None, None, None, None])
    model = original.clone()
    site = find_sites(model)[0]
    kept = np.arange(4) if groups == 1 else np.array([2, 3])
    model.replace_weight(site.weight, site.array()[kept])
    model.replace_weight(site.node.inputs[2], weights["b"][kept])
    site.node.attrs["group"] = max(1, groups // 2) if groups > 1 else 1
    # the inputs of the groups that are gone go, too
    batches = [array(2, 4, 5, size) for size in (4, 6)]
    if groups > 1:
        cut = helper.make_node("Slice", ["x", "from", "to", "axis"], ["s"])
        numbers = {"from": np.array([2]), "to": np.array([4]), "axis": np.array([1])}
        both = build(
            [cut, node("Conv", ["s", "w", "b"], "y", **dict(site.node.attrs))],
            numbers | {"w": weights["w"][kept], "b": weights["b"][kept]},
            x=[None, None, None, None],
        )
        model, site = both, find_sites(both)[0]
    feed = Workbench(feed=open_feed([{"x": batch} for batch in batches], inputs=original.inputs), threads=1)
    ((_, pair),) = equations(model, original, [site], feed, kept_out={site.name: kept})
    view = view_of(site.uses[0])
    rows = np.concatenate([view.rows(batch if groups == 1 else batch[:, 2:]) for batch in batches], axis=1)
    check(pair, rows, product(site, rows))


def halve(model, site):
    model.replace_weight(site.weight, site.array() * (site.array() > 0))


def beside(build, array, *, late):
    """x @ a -> Relu -> h; h @ b + c + g @ s -> y, with g = Sigmoid(x); the product behind the shortcut, or before."""
    layer, shortcut = node("MatMul", ["h", "b"], "p"), node("MatMul", ["g", "s"], "r")
    nodes = [
        node("MatMul", ["x", "a"], "q"),
        node("Relu", ["q"], "h"),
        node("Sigmoid", ["x"], "g"),
        *((layer, shortcut) if late else (shortcut, layer)),
        node("Add", ["p", "c"], "o"),
        node("Add", ["r", "o"], "y"),
    ]
    return build(nodes, {"a": array(6, 5), "s": array(6, 4), "b": array(5, 4), "c": array(4)}, x=["n", 6])


@pytest.mark.parametrize("late", [False, True])
def test_the_last_layer_makes_up_for_what_is_added_behind(build, bench, array, batches, late):
    original = beside(build, array, late=late)
    model, pairs = original.clone(), {}
    for site, pair in equations(model, original, find_sites(model), bench(original, *batches)):
        pairs[site.name] = pair
        halve(model, site)
    first, last, read = ("p", "r", "g") if late else ("r", "p", "h")
    gap = value_of(original, first, batches) - value_of(model, first, batches)
    assert np.abs(gap).max() > 0.1
    check(pairs[f"make_{last}"], value_of(model, read, batches)[np.newaxis], value_of(original, last, batches) + gap)
    # the other changes behind it, so its own output counts alone
    check(
        pairs[f"make_{first}"],
        value_of(model, "h" if late else "g", batches)[np.newaxis],
        value_of(original, first, batches),
    )


@pytest.mark.parametrize("groups", [1, 2])
def test_makes_up_for_the_channels_that_are_left_of_a_shortcut(build, array, groups):
    weights = {"s": array(4, 4, 1, 1), "w": array(4, 4 // groups, 3, 3)}
    nodes = [
        node("Conv", ["x", "s"], "r"),
        node("Conv", ["x", "w"], "p", group=groups, pads=[1, 1, 1, 1]),
        node("Add", ["p", "r"], "y"),
    ]
    original = build(nodes, weights, x=[None, 4, None, None])
    model, kept = original.clone(), np.array([0, 2])
    shortcut, layer = find_sites(model)
    model.replace_weight(shortcut.weight, 0.5 * shortcut.array()[kept])
    model.replace_weight(layer.weight, layer.array()[kept])
    batches = [array(2, 4, 5, size) for size in (4, 6)]
    feed = Workbench(feed=open_feed([{"x": batch} for batch in batches], inputs=original.inputs), threads=1)
    gone = {shortcut.name: kept, layer.name: kept}
    (*_, (_, pair)) = equations(model, original, [shortcut, layer], feed, kept_out=gone)
    rows = np.concatenate([view_of(layer.uses[0]).rows(batch) for batch in batches], axis=1)
    small = [view_of(shortcut.uses[0]).rows(batch) for batch in batches]
    gap = 0.5 * product(find_sites(original)[0], np.concatenate(small, axis=1))[:, kept]
    check(pair, rows, product(find_sites(original)[1], rows)[:, kept] + gap)


def test_does_not_make_up_for_what_is_added_to_every_row_alike(build, bench, array, batches):
    nodes = [
        node("ReduceMean", ["x"], "m", axes=[0], keepdims=1),
        node("MatMul", ["m", "s"], "r"),
        node("MatMul", ["x", "a"], "p"),
        node("Add", ["p", "r"], "y"),
    ]
    original = build(nodes, {"s": array(6, 4), "a": array(6, 4)}, x=["n", 6])
    model = original.clone()
    halve(model, find_sites(model)[0])
    (*_, (site, pair)) = equations(model, original, find_sites(model), bench(original, *batches))
    assert site.name == "make_p"
    check(pair, np.concatenate(batches)[np.newaxis], value_of(original, "p", batches))
