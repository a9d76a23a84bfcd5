import re

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.balance.equalize import Equalize
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.quantize.static import QuantizeStatic
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.weights import read


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs)


def weight(random, *shape):
    return random.standard_normal(shape, np.float32)


def uneven(random, *shape):
    """A weight whose output channels (the first axis) differ 1000 times in size."""
    sizes = np.geomspace(0.01, 10, shape[0], dtype=np.float32)
    return weight(random, *shape) * sizes.reshape(-1, *[1] * (len(shape) - 1))


def peaks(array, axis):
    return np.abs(array).max(axis=tuple(i for i in range(array.ndim) if i != axis))


def sqnr(reference, test):
    return 10 * np.log10(np.square(reference).sum() / np.square(reference - test).sum())


@pytest.fixture
def separable(build, random):
    """Conv -> Relu -> depthwise Conv -> LeakyRelu -> Conv."""
    nodes = [
        node("Conv", ["x", "u", "b"], ["a"], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["h"]),
        node("Conv", ["h", "d", "c"], ["e"], group=8, pads=[1, 1, 1, 1]),
        node("LeakyRelu", ["e"], ["g"], alpha=0.1),
        node("Conv", ["g", "v"], ["y"]),
    ]
    weights = {"u": uneven(random, 8, 3, 3, 3), "b": weight(random, 8), "c": weight(random, 8)}
    weights |= {"d": uneven(random, 8, 1, 3, 3)[::-1].copy(), "v": weight(random, 4, 8, 1, 1)}
    return build(nodes, weights, x=("n", 3, "height", "width"))


@pytest.fixture
def image(random):
    return weight(random, 4, 3, 9, 7)


def test_computes_the_same(separable, run, image):
    result = Equalize()(separable)
    assert [each.site for each in result.report.changes] == ["h", "g"]
    want = run(separable, image)[0]
    # rounding of float32, relative to the largest terms
    np.testing.assert_allclose(run(result.model, image)[0], want, rtol=1e-5, atol=1e-6 * np.abs(want).max())


def test_ends_with_ranges_in_step(separable):
    model = Equalize(rounds=100)(separable).model
    first, depthwise, last = (read(each.inputs[1]) for each in model.graph.nodes if each.op == "Conv")
    for one, other in [(peaks(first, 0), peaks(depthwise, 0)), (peaks(depthwise, 0), peaks(last, 1))]:
        ratio = one / other
        np.testing.assert_allclose(ratio / ratio.mean(), 1, rtol=0.05)  # the last round moved less than 1 %


def test_makes_one_scale_a_weight_better(separable, bench, run, image):
    workbench = bench(separable, image)
    codes = QuantizeStatic(per_channel=False, layer_sqnr=0)
    equalized = codes(Equalize()(separable).model, workbench).model
    want = run(separable, image)[0]
    assert sqnr(want, run(equalized, image)[0]) > sqnr(want, run(codes(separable, workbench).model, image)[0]) + 3


def test_reports_what_is_gained(separable):
    action = Equalize()(separable).report.changes[0].action
    assert float(re.fullmatch(r"one scale for each weight loses (.*) dB less, factors up to .*x apart", action)[1]) > 3


def test_large_weights_come_later(separable, run, image, monkeypatch):
    monkeypatch.setattr("onnxpress.passes.balance.factors.LAZY", 1)
    want = run(separable, image)[0]
    got = run(Pipeline([Equalize()])(separable).model, image)[0]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6 * np.abs(want).max())


def test_several_readers_share_their_factors(build, run, random):
    nodes = [
        node("Gemm", ["x", "u", "b"], ["h"], transB=1),
        node("Gemm", ["h", "v"], ["p"]),
        node("MatMul", ["h", "w"], ["q"]),
        node("Add", ["p", "q"], ["y"]),
    ]
    weights = {"u": uneven(random, 8, 5), "b": weight(random, 8), "v": weight(random, 8, 4), "w": weight(random, 8, 4)}
    model, x = build(nodes, weights, x=("n", 5)), weight(random, 6, 5)
    result = Equalize()(model)
    assert [each.site for each in result.report.changes] == ["h"]
    want = run(model, x)[0]
    np.testing.assert_allclose(run(result.model, x)[0], want, rtol=1e-5, atol=1e-6 * np.abs(want).max())


def test_dead_channels_stay(build, run, random):
    first = uneven(random, 8, 5).T.copy()
    first[:, 2] = 0
    nodes = [node("MatMul", ["x", "u"], ["h"]), node("MatMul", ["h", "v"], ["y"])]
    model, x = build(nodes, {"u": first, "v": weight(random, 8, 4)}, x=("n", 5)), weight(random, 6, 5)
    result = Equalize()(model).model
    before, after = (read(each.graph.nodes[1].inputs[1])[2] for each in (model, result))
    np.testing.assert_array_equal(after, before)
    np.testing.assert_allclose(run(result, x)[0], run(model, x)[0], rtol=1e-4, atol=1e-5)


def test_leaves_even_channels(build, random):
    nodes = [node("MatMul", ["x", "u"], ["h"]), node("MatMul", ["h", "v"], ["y"])]
    model = build(nodes, {"u": np.ones((5, 8), np.float32), "v": np.ones((8, 4), np.float32)}, x=("n", 5))
    report = Equalize()(model).report
    assert not report.changes
    assert any("even enough: factors gain 0.0 of min_gain 0.5 dB" in each.reason for each in report.skips)


REFUSED = {
    "comes from Clip": [
        node("MatMul", ["x", "u"], ["a"]),
        node("Clip", ["a", "", "six"], ["h"]),
        node("MatMul", ["h", "v"], ["y"]),
    ],
    "'h' is also read by Add": [
        node("MatMul", ["x", "u"], ["h"]),
        node("MatMul", ["h", "v"], ["b"]),
        node("Add", ["b", "h"], ["y"]),
    ],
    "has no weight to equalize with": [
        node("LayerNormalization", ["x", "n"], ["h"]),
        node("MatMul", ["h", "v"], ["y"]),
    ],
    "its weight is shared with 'MatMul_y'": [node("MatMul", ["x", "u"], ["h"]), node("MatMul", ["h", "u"], ["y"])],
    "no channel in common": [node("MatMul", ["x", "none"], ["h"]), node("MatMul", ["h", "v"], ["y"])],
    "train or export it again": [node("MatMul", ["x", "nan"], ["h"]), node("MatMul", ["h", "v"], ["y"])],
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refuses(build, random, reason):
    weights = {"u": uneven(random, 8, 8).T.copy(), "v": weight(random, 8, 8), "n": weight(random, 8)}
    weights |= {"six": np.float32(6), "nan": np.full((8, 8), np.nan, np.float32)}
    weights["none"] = np.zeros((8, 8), np.float32)
    used = {name for each in REFUSED[reason] for name in each.input}
    model = build(REFUSED[reason], {k: v for k, v in weights.items() if k in used}, x=("n", 8))
    report = Equalize()(model).report
    assert not report.changes
    assert any(reason in each.reason for each in report.skips)


@pytest.mark.parametrize(("field", "value"), [("rounds", 0), ("rounds", 1.5), ("min_gain", -1), ("min_gain", "some")])
def test_refuses_options(field, value):
    with pytest.raises(ConfigError, match=f"equalize: {field} must .*, got {value!r}"):
        Equalize(**{field: value})
