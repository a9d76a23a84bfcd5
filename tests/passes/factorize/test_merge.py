from functools import reduce
from itertools import pairwise

import numpy as np
import onnx
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.factorize.auto import Factorize
from onnxpress.passes.factorize.merge import MergeProducts, merge_chains
from onnxpress.passes.factorize.svd import FactorizeSVD
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.quantize.static import QuantizeStatic
from onnxpress.passes.report import Report


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def check_same(run, model, result, x):
    found, wanted = run(result.model, x)[0], run(model, x)[0]
    assert found.shape == wanted.shape
    # sums of sums of float32 terms, in another order
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * max(1.0, float(np.abs(wanted).max())))


def layer(number: int, op: str, *weights: str, source: str, target: str, **attrs) -> onnx.NodeProto:
    return helper.make_node(op, [source, *weights], [target], name=f"layer{number}", **attrs)


@given(st.data())
def test_a_merged_pair_of_matrices_is_reproduced(build, run, data):
    draw = data.draw
    inside, middle, out = (draw(st.integers(1, 9), label=name) for name in ("in", "middle", "out"))
    biased = draw(st.tuples(st.booleans(), st.booleans()), label="biases")
    ops = draw(st.tuples(*[st.sampled_from(["MatMul", "Gemm"])] * 2), label="operators")
    shape = (4, inside) if "Gemm" in ops else draw(st.sampled_from([(inside,), (4, inside), (2, 3, inside)]))
    nodes, weights, source = [], {}, "x"
    for number, (op, sizes) in enumerate(zip(ops, [(inside, middle), (middle, out)], strict=True)):
        turned = op == "Gemm" and draw(st.booleans(), label="transB")
        weights[f"w{number}"] = normal(*(sizes[::-1] if turned else sizes), seed=number)
        names, attrs = [f"w{number}"], {}
        if op == "Gemm":
            attrs = {"transB": int(turned), "alpha": draw(st.sampled_from([1.0, 0.5, -2.0])), "beta": 0.25}
        if biased[number]:
            weights[f"b{number}"] = normal(sizes[1], seed=number + 5)
        if biased[number] and op == "Gemm":
            names.append(f"b{number}")
        nodes.append(layer(number, op, *names, source=source, target=f"t{number}", **attrs))
        source = f"t{number}"
        if biased[number] and op == "MatMul":
            nodes.append(helper.make_node("Add", [source, f"b{number}"], [f"s{number}"]))
            source = f"s{number}"
    model = build([*nodes, helper.make_node("Relu", [source], ["y"])], weights, x=shape)
    result = Pipeline([MergeProducts()])(model)
    pays = inside * out < middle * (inside + out)
    assert len(result.reports[-1].changes) == pays
    check_same(run, model, result, normal(*shape, seed=9))


@given(st.data())
def test_a_merged_pair_of_convolutions_is_reproduced(build, run, data):
    draw = data.draw
    axes = draw(st.integers(1, 3), label="axes")
    inside, middle, out = (draw(st.integers(1, 4), label=name) for name in ("in", "middle", "out"))
    wide_behind = draw(st.booleans(), label="wide behind")
    sides = tuple(draw(st.lists(st.integers(1, 3), min_size=axes, max_size=axes), label="sides"))
    each = {
        "strides": draw(st.lists(st.integers(1, 2), min_size=axes, max_size=axes), label="strides"),
        "dilations": draw(st.lists(st.integers(1, 2), min_size=axes, max_size=axes), label="dilations"),
    }
    if draw(st.booleans(), label="automatic"):
        each["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
        each["dilations"] = [1] * axes  # ONNX Runtime does not pad dilated kernels by itself
    else:
        each["pads"] = draw(st.lists(st.integers(0, 2), min_size=2 * axes, max_size=2 * axes), label="pads")
    point = {"strides": draw(st.lists(st.integers(1, 2), min_size=axes, max_size=axes), label="point's strides")}
    weights = {"w0": (middle, inside), "w1": (out, middle)}
    ones = (1,) * axes
    kernels = [ones, sides] if wide_behind else [sides, ones]
    arrays = {name: normal(*weights[name], *kernel, seed=9) for name, kernel in zip(weights, kernels, strict=True)}
    biases = draw(st.tuples(st.booleans(), st.booleans()), label="biases")
    arrays |= {f"b{n}": normal(size, seed=n) for n, size in enumerate((middle, out)) if biases[n]}
    nodes = [
        layer(
            n, "Conv", *(name for name in (f"w{n}", f"b{n}") if name in arrays), source="xt"[n], target="ty"[n], **attrs
        )
        for n, attrs in enumerate([point, each] if wide_behind else [each, point])
    ]
    shape = (2, inside, *[9] * axes)
    model = build(nodes, arrays, x=shape)
    check_same(run, model, Pipeline([MergeProducts()])(model), normal(*shape, seed=3))


@given(st.lists(st.integers(1, 12), min_size=3, max_size=7))
def test_of_several_matrices_the_fewest_multiply_adds_are_left(build, run, sizes):
    weights = {f"w{n}": normal(*pair, seed=n) for n, pair in enumerate(pairwise(sizes))}
    names = ["x", *(f"t{n}" for n in range(len(weights) - 1)), "y"]
    nodes = [layer(n, "MatMul", f"w{n}", source=names[n], target=names[n + 1]) for n in range(len(weights))]
    model = build(nodes, weights, x=(3, sizes[0]))
    result = Pipeline([MergeProducts()])(model)
    held = sum(each.size for each in map(result.model.array, result.model.constants()))
    assert held == fewest(sizes)
    check_same(run, model, result, normal(3, sizes[0], seed=9))


def fewest(sizes: list[int]) -> int:
    """Over all ways to part the row of matrices into products."""
    best = [0]
    for end in range(1, len(sizes)):
        best.append(min(best[start] + sizes[start] * sizes[end] for start in range(end)))
    return best[-1]


def test_weights_on_the_left_are_merged(build, run):
    nodes = [
        helper.make_node("MatMul", ["a", "x"], ["t"], name="one"),
        helper.make_node("Add", ["t", "c"], ["s"]),
        helper.make_node("MatMul", ["b", "s"], ["y"], name="two"),
    ]
    model = build(nodes, {"a": normal(20, 5), "c": normal(20, 1, seed=1), "b": normal(4, 20, seed=2)}, x=(2, 5, 3))
    result = MergeProducts()(model)
    assert [node.op for node in result.model.graph.nodes] == ["MatMul", "Add"]
    check_same(run, model, result, normal(2, 5, 3))


def test_a_transposed_input_stays_transposed(build, run):
    nodes = [
        helper.make_node("Gemm", ["x", "a"], ["t"], name="one", transA=1),
        helper.make_node("Gemm", ["t", "b"], ["y"], name="two", transB=1),
    ]
    model = build(nodes, {"a": normal(5, 20), "b": normal(4, 20, seed=2)}, x=(5, 3))
    result = MergeProducts()(model)
    assert len(result.model.graph.nodes) == 1
    check_same(run, model, result, normal(5, 3))


def test_reports_what_it_saves(build):
    nodes = [layer(0, "MatMul", "a", source="x", target="t"), layer(1, "MatMul", "b", source="t", target="y")]
    model = build(nodes, {"a": normal(8, 30), "b": normal(30, 6)}, x=(3, 8))
    before = model.to_proto().SerializeToString()
    result = MergeProducts()(model)
    (change,) = result.report.changes
    assert change.site == "layer1"
    assert change.action == "merged with 'layer0' before it: 8·6 multiply-adds instead of 8·30 + 30·6"
    assert (change.bytes_before, change.bytes_after) == (1680, 192)
    assert 0 < change.error < 1e-6  # rounding to float32
    assert [node.name for node in result.model.graph.nodes] == ["layer1"]
    assert model.to_proto().SerializeToString() == before


def test_what_factorization_leaves_between_two_layers_is_merged(build, run):
    nodes = [
        layer(0, "Conv", "a", "c", source="x", target="t"),
        layer(1, "Conv", "b", source="t", target="y", pads=[1, 1, 1, 1], strides=[2, 2]),
    ]
    weights = {"a": normal(32, 24, 1, 1), "c": normal(32), "b": normal(28, 32, 3, 3, seed=1)}
    model = build(nodes, weights, x=(1, 24, 9, 9))
    chains = FactorizeSVD(rank=6, conv="spatial")(model)
    result = Pipeline([MergeProducts()])(chains.model)
    assert len(chains.model.graph.nodes) == 4
    assert [node.name for node in result.model.graph.nodes] == [
        "layer0_narrow",
        "layer0_wide",
        "layer1_vertical",
        "layer1_horizontal",
    ]
    check_same(run, chains.model, result, normal(1, 24, 9, 9))


def row(build, *sizes: int):
    """Products of matrices, one behind the other."""
    weights = {f"w{n}": normal(*pair, seed=n) for n, pair in enumerate(pairwise(sizes))}
    names = ["x", *(f"t{n}" for n in range(len(weights) - 1)), "y"]
    nodes = [layer(n, "MatMul", f"w{n}", source=names[n], target=names[n + 1]) for n in range(len(weights))]
    return build(nodes, weights, x=(3, sizes[0]))


def test_chains_are_merged_with_each_other_and_with_what_may_change(build):
    model = FactorizeSVD(rank=4, include=("layer0", "layer1"))(row(build, 30, 40, 50, 6)).model
    before = ["layer0", "layer1", "layer2"]
    merged = {}
    for allowed in (before, before[:2]):
        copy, report = model.clone(), Report("factorize")
        merge_chains(copy, report, before=before, allowed=allowed)
        merged[len(allowed)] = [change.site for change in report.changes]
    inner = ["layer1_narrow"] * 2  # 4·40 + 40·4 become 4·4, which then goes into what reads or gives it
    assert merged == {3: ["layer2", *inner], 2: inner}


def test_layers_without_a_chain_beside_them_are_left(build):
    model, report = row(build, 6, 40, 6), Report("factorize")
    merge_chains(model, report, before=["layer0", "layer1"], allowed=["layer0", "layer1"])
    assert (report.changes, report.skips) == ([], [])


def test_factorize_merges_what_its_chains_leave(build, bench, run, clock):
    clock()
    low = [normal(48, 4, seed=n) @ normal(4, 48, seed=n + 9) / 20 for n in range(2)]
    nodes = [layer(0, "MatMul", "a", source="x", target="t"), layer(1, "MatMul", "b", source="t", target="y")]
    model = build(nodes, dict(zip("ab", low, strict=True)), x=("n", 48))
    result = Factorize(min_sqnr=20.0)(model, bench(model, *normal(8, 32, 48)))
    assert any(change.action.startswith("merged with") for change in result.report.changes)
    assert len(result.model.graph.nodes) < 4
    x = normal(20, 48, seed=7)
    wanted = run(model, x)[0]
    assert np.square(run(result.model, x)[0] - wanted).sum() < 0.01 * np.square(wanted).sum()  # 20 dB


def test_merged_layers_are_quantized_and_encoded(build, bench, run):
    nodes = [
        layer(0, "Conv", "a", "c", source="x", target="t", pads=[1, 1, 1, 1]),
        layer(1, "Conv", "b", source="t", target="u"),
        helper.make_node("Relu", ["u"], ["y"]),
    ]
    weights = {"a": normal(40, 8, 3, 3) / 9, "c": normal(40), "b": normal(8, 40, 1, 1) / 6}
    model = build(nodes, weights, x=("n", 8, 6, 6))
    samples = bench(model, *normal(6, 4, 8, 6, 6))
    result = Pipeline([MergeProducts(), QuantizeStatic(), Encode()])(model, samples)
    x = normal(4, 8, 6, 6, seed=7)
    wanted = run(model, x)[0]
    assert result.model.weight_bytes() < model.weight_bytes() / 8
    assert np.square(run(result.model, x)[0] - wanted).sum() < 3e-3 * np.square(wanted).sum()  # 25 dB


def test_an_identity_between_is_passed_over(build, run):
    nodes = [
        layer(0, "MatMul", "a", source="x", target="t"),
        helper.make_node("Identity", ["t"], ["s"]),
        layer(1, "MatMul", "b", source="s", target="y"),
    ]
    model = build(nodes, {"a": normal(8, 30), "b": normal(30, 6)}, x=(3, 8))
    result = MergeProducts()(model)
    assert len(result.model.graph.nodes) == 1
    check_same(run, model, result, normal(3, 8))


def test_a_long_row_of_layers_becomes_one(build, run):
    sizes = [6, 40, 30, 50, 5]
    weights = {f"w{n}": normal(*each, seed=n) / 5 for n, each in enumerate(pairwise(sizes))}
    names = ["x", "t0", "t1", "t2", "y"]
    nodes = [layer(n, "MatMul", f"w{n}", source=names[n], target=names[n + 1]) for n in range(4)]
    result = MergeProducts()(build(nodes, weights, x=(3, 6)))
    (weight,) = map(result.model.array, result.model.constants())
    wanted = reduce(np.matmul, [each.astype(float) for each in weights.values()])
    np.testing.assert_allclose(weight, wanted, rtol=1e-4, atol=1e-5)  # float32
