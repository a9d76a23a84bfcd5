"""Normal equations of layers: of what they read in the pruned model, for what the original gives."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxpress.calibration.feeds import open_feed
from onnxpress.calibration.session import Runner
from onnxpress.passes.base import Workbench
from onnxpress.passes.equations import equations
from onnxpress.passes.inputs import activation_of, view_of
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites

DRAW = np.random.default_rng(0)
BATCHES = [DRAW.standard_normal((rows, 6)).astype(np.float32) for rows in (5, 4, 6, 5, 7)]


def array(*shape):
    return DRAW.standard_normal(shape).astype(np.float32)


def node(op, inputs, output, **attrs):
    return helper.make_node(op, inputs, [output], name=f"make_{output}", **attrs)


def value_of(model, name, x):
    proto = model.to_proto()
    del proto.graph.output[:]
    proto.graph.output.add(name=name)
    return Runner(proto.SerializeToString()).run({"x": x})[name]


def rows_of(model, site, use=0):
    """Rows of all batches, [groups, n, k]."""
    use = site.uses[use]
    view, name = view_of(use), activation_of(use).name
    return [view.rows(value_of(model, name, batch) if name != "x" else batch) for batch in BATCHES]


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


def pairs_of(original, samples, **options):
    """The equations of a model that nobody pruned."""
    model = original.clone()
    return [pair for _, pair in equations(model, original, find_sites(model), samples, **options)]


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


@pytest.fixture
def chain(build):
    """x @ w + c -> Relu -> h; h @ v -> y."""
    nodes = [
        node("MatMul", ["x", "w"], "p"),
        node("Add", ["p", "c"], "q"),
        node("Relu", ["q"], "h"),
        node("MatMul", ["h", "v"], "y"),
    ]
    return build(nodes, {"w": array(6, 5), "c": array(5), "v": array(5, 3)}, x=["n", 6])


def test_reads_the_pruned_model_and_wants_what_the_original_gives(chain, bench):
    model = changed(chain, 0)
    first, second = find_sites(model)
    found = dict(equations(model, chain, [second, first], bench(chain, *BATCHES)))
    assert list(found) == [first, second]
    for site, twin in zip((first, second), find_sites(chain), strict=True):
        wanted = product(twin, np.concatenate(rows_of(chain, twin), axis=1))
        check(found[site], np.concatenate(rows_of(model, site), axis=1), wanted)


def test_sees_what_the_caller_did_to_the_layer_before(chain, bench):
    model = chain.clone()
    pairs = {}
    for site, pair in equations(model, chain, find_sites(model), bench(chain, *BATCHES)):
        pairs[site] = pair
        model.replace_weight(site.weight, 2 * site.array())
    second = find_sites(model)[1]
    doubled = np.concatenate(rows_of(model, second), axis=1)
    assert np.abs(doubled - np.concatenate(rows_of(chain, find_sites(chain)[1]), axis=1)).max() > 0.5
    check(list(pairs.values())[1], doubled, np.concatenate([value_of(chain, "y", batch) for batch in BATCHES]))


def test_parts_samples(chain, bench):
    pair, _ = pairs_of(chain, bench(chain, *BATCHES))
    assert (pair.fit.count, pair.held_out.count) == (22, 5)
    feed = bench(chain, np.concatenate(BATCHES)[:24])
    pair, _ = pairs_of(chain, feed, held_out=0.5)
    assert (pair.fit.count, pair.held_out.count) == (12, 12)


def test_wants_what_the_bias_of_the_original_is_more(chain, bench):
    model = chain.clone()
    bias = next(each for each in model.constants() if each.name == "c")
    model.replace_weight(bias, model.array(bias) - 2)
    site = find_sites(model)[0]
    ((_, pair),) = equations(model, chain, [site], bench(chain, *BATCHES))
    rows = np.concatenate(rows_of(model, site), axis=1)
    check(pair, rows, product(site, rows) + 2)


def test_layers_that_read_the_same_share_a_moment(build, bench):
    nodes = [
        node("MatMul", ["x", "w"], "p"),
        node("MatMul", ["p", "u"], "q"),
        node("MatMul", ["x", "v"], "r"),
        node("Add", ["q", "r"], "y"),
    ]
    model = build(nodes, {"w": array(6, 5), "u": array(5, 3), "v": array(6, 3)}, x=["n", 6])
    clone = model.clone()
    found = dict(equations(clone, model, find_sites(clone), bench(model, *BATCHES)))
    first, third, second = found
    assert [each.name for each in found] == ["make_p", "make_r", "make_q"]
    assert found[first].fit.moment is found[third].fit.moment
    for site in (first, second, third):
        rows = np.concatenate(rows_of(clone, site), axis=1)
        check(found[site], rows, product(site, rows))


def test_a_weight_that_is_used_twice_has_the_rows_of_both(build, bench):
    nodes = [
        node("MatMul", ["x", "w"], "p"),
        node("Tanh", ["p"], "q"),
        node("MatMul", ["q", "w"], "r"),
        node("MatMul", ["r", "v"], "y"),
    ]
    original = build(nodes, {"w": array(6, 6), "v": array(6, 2)}, x=["n", 6])
    model = original.clone()
    pairs = []
    for site, pair in equations(model, original, find_sites(model), bench(model, *BATCHES)):
        pairs.append(pair)
        if len(pairs) == 1:
            rows = np.concatenate(rows_of(model, site) + rows_of(model, site, use=1), axis=1)
            check(pair, rows, product(site, rows))
            model.replace_weight(site.weight, 0.5 * site.array())
    twin = find_sites(original)[1]
    wanted = product(twin, np.concatenate(rows_of(original, twin), axis=1))
    check(pairs[1], np.concatenate(rows_of(model, find_sites(model)[1]), axis=1), wanted)


def test_rows_that_are_gone_are_not_wanted(chain, bench):
    model = chain.clone()
    first, second = find_sites(model)
    kept = np.array([0, 2, 3])
    model.replace_weight(first.weight, first.array()[:, kept])
    bias = next(each for each in model.constants() if each.name == "c")
    model.replace_weight(bias, model.array(bias)[kept])
    model.replace_weight(second.weight, second.array()[kept])
    samples = bench(chain, *BATCHES)
    found = [pair for _, pair in equations(model, chain, [first, second], samples, kept_out={first.name: kept})]
    rows = np.concatenate(rows_of(model, first), axis=1)
    check(found[0], rows, product(find_sites(chain)[0], rows)[:, kept])
    wanted = np.concatenate([value_of(chain, "y", batch) for batch in BATCHES])
    check(found[1], np.concatenate(rows_of(model, second), axis=1), wanted)
    (_, refusal), _ = equations(model, chain, [first, second], samples)
    assert isinstance(refusal, RefusalError)
    assert str(refusal) == "it has 3 outputs of the 5 that the original has, and nothing tells which"


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_of_a_convolution_that_are_left(build, groups):
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


def test_rows_that_are_not_finite_are_left_out(chain, bench):
    broken = [batch.copy() for batch in BATCHES]
    broken[0][1, 2], broken[3][0, 0] = np.nan, np.inf
    pair, _ = pairs_of(chain, bench(chain, *broken))
    assert pair.total.count == 25
    assert np.isfinite(pair.total.moment).all()
    empty = [np.full_like(batch, np.nan) for batch in BATCHES]
    refusal, _ = pairs_of(chain, bench(chain, *empty))
    assert str(refusal) == "the samples show it too few rows without NaN or infinities"


def halve(model, site):
    model.replace_weight(site.weight, site.array() * (site.array() > 0))


def beside(build, *, late):
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


def of_all(model, name):
    return np.concatenate([value_of(model, name, batch) for batch in BATCHES])


@pytest.mark.parametrize("late", [False, True])
def test_the_last_layer_makes_up_for_what_is_added_behind(build, bench, late):
    original = beside(build, late=late)
    model, pairs = original.clone(), {}
    for site, pair in equations(model, original, find_sites(model), bench(original, *BATCHES)):
        pairs[site.name] = pair
        halve(model, site)
    first, last, read = ("p", "r", "g") if late else ("r", "p", "h")
    gap = of_all(original, first) - of_all(model, first)
    assert np.abs(gap).max() > 0.1
    check(pairs[f"make_{last}"], of_all(model, read)[np.newaxis], of_all(original, last) + gap)
    # the other changes behind it, so its own output counts alone
    check(pairs[f"make_{first}"], of_all(model, "h" if late else "g")[np.newaxis], of_all(original, first))


@pytest.mark.parametrize("groups", [1, 2])
def test_makes_up_for_the_channels_that_are_left_of_a_shortcut(build, groups):
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


def test_does_not_make_up_for_what_is_added_to_every_row_alike(build, bench):
    nodes = [
        node("ReduceMean", ["x"], "m", axes=[0], keepdims=1),
        node("MatMul", ["m", "s"], "r"),
        node("MatMul", ["x", "a"], "p"),
        node("Add", ["p", "r"], "y"),
    ]
    original = build(nodes, {"s": array(6, 4), "a": array(6, 4)}, x=["n", 6])
    model = original.clone()
    halve(model, find_sites(model)[0])
    (*_, (site, pair)) = equations(model, original, find_sites(model), bench(original, *BATCHES))
    assert site.name == "make_p"
    check(pair, np.concatenate(BATCHES)[np.newaxis], of_all(original, "p"))


def refusal_of(model, original, samples, index=0):
    sites = find_sites(model)
    found = {site.name: pair for site, pair in equations(model, original, sites, samples)}
    refusal = found[sites[index].name]
    assert isinstance(refusal, RefusalError)
    return str(refusal)


def test_refuses_layers_that_it_cannot_see(chain, build, bench):
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
    assert "the original has no layer that writes 'z'" in refusal_of(other, chain, bench(chain, *BATCHES))


def test_refuses_layers_inside_a_branch(build, bench):
    result = helper.make_tensor_value_info("t", TensorProto.FLOAT, None)
    then = helper.make_graph([node("MatMul", ["x", "w"], "t")], "then", [], [result])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["t"])], "else", [], [result])
    branch = helper.make_node("If", ["p"], ["y"], then_branch=then, else_branch=other)
    model = build([branch], {"p": np.array(True), "w": array(6, 6)}, x=["n", 6])
    assert "inside a branch or a loop" in refusal_of(model.clone(), model, bench(model, *BATCHES))


def test_refuses_rows_that_are_not_those_of_the_original(build, bench):
    def reading(start):
        numbers = {"from": np.array([start]), "to": np.array([9]), "w": array(6, 2)}
        return build([node("Slice", ["x", "from", "to"], "h"), node("MatMul", ["h", "w"], "y")], numbers, x=["n", 6])

    original = reading(0)
    assert "it reads 4 rows where the original reads" in refusal_of(reading(1), original, bench(original, *BATCHES))


def test_refuses_to_work_without_samples(chain):
    with pytest.raises(FeedError, match="give some with --data"):
        next(equations(chain, chain.clone(), find_sites(chain), Workbench()))


@pytest.mark.parametrize("part", [0.0, 1.0])
def test_refuses_to_hold_out_nothing_or_all(chain, bench, part):
    with pytest.raises(ValueError, match=r"held_out .* must lie in \(0, 1\)"):
        next(equations(chain, chain.clone(), find_sites(chain), bench(chain, *BATCHES), held_out=part))


def test_a_model_that_is_its_own_original_runs_once(chain, bench, monkeypatch):
    runs = []
    run = Runner.run

    def count(self, *given, **options):
        runs.append(1)
        return run(self, *given, **options)

    monkeypatch.setattr(Runner, "run", count)
    own = list(equations(chain, chain, find_sites(chain), bench(chain, *BATCHES)))
    once = len(runs)
    runs.clear()
    twice = list(equations(chain, chain.clone(), find_sites(chain), bench(chain, *BATCHES)))
    assert once == len(BATCHES)  # the first layer reads an input, the second what one run gives
    assert len(runs) == 2 * once
    for (_, one), (_, other) in zip(own, twice, strict=True):
        np.testing.assert_array_equal(one.total.moment, other.total.moment)
        np.testing.assert_array_equal(one.total.cross, other.total.cross)


def test_refuses_what_is_too_wide_and_does_the_others(build, bench):
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
    found = {site.name: pair for site, pair in equations(model, original, find_sites(model), bench(model, *BATCHES))}
    wide = found.pop("make_r")
    assert str(wide) == "it reads 8200 inputs: the second moments of so many take 4 GB"
    assert [(name, pair.total.count) for name, pair in found.items()] == [("make_p", 27), ("make_y", 27)]


def test_a_table_that_is_looked_up_is_not_called_too_wide(build):
    """9000 rows, of which each lookup takes one."""
    model = build([node("Gather", ["w", "x"], "y")], {"w": array(9000, 4)}, x=["n"], dtype=TensorProto.INT64)
    feed = open_feed(iter([{"x": np.arange(5)}]), inputs=model.inputs)
    ((_, why),) = equations(model, model.clone(), find_sites(model), Workbench(feed=feed, threads=1))
    assert str(why) == "Gather does not multiply rows of an activation by its weight"


def test_counts_batches_of_a_feed_that_does_not_tell(chain):
    feed = open_feed(iter([{"x": batch} for batch in BATCHES]), inputs=chain.inputs)
    assert feed.count is None
    pair, _ = pairs_of(chain, Workbench(feed=feed, threads=1))
    assert (pair.fit.count, pair.held_out.count) == (22, 5)


def test_leaves_the_models_as_they_are(chain, bench):
    model: Model = chain.clone()
    before = model.to_proto().SerializeToString(), chain.to_proto().SerializeToString()
    list(equations(model, chain, find_sites(model), bench(chain, *BATCHES)))
    assert before == (model.to_proto().SerializeToString(), chain.to_proto().SerializeToString())


@pytest.mark.parametrize(("rows", "count"), [(30, 30), (1000, 300)])
def test_sums_about_as_many_rows_as_asked(chain, bench, rows, count):
    batches = [array(100, 6) for _ in range(3)]
    # four rows for each of six inputs are the least
    assert [pair.total.count for pair in pairs_of(chain, bench(chain, *batches), rows=rows)] == [count] * 2
