import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxpress.passes.balance.absorb import Absorber
from onnxpress.passes.balance.factors import absorb
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import infer_shapes


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs)


def weight(random, *shape):
    return random.standard_normal(shape, np.float32)


def scaled(model, tensor, channels, factors):
    """The model with the channels of a tensor, which only the last node reads, multiplied by factors."""
    copy = model.clone()
    last = copy.graph.nodes[-1]
    found = next(each for each in last.inputs if each.name == tensor)
    targets = Absorber(copy, infer_shapes(copy)).plan(found, channels, readers={id(last)})
    absorb(copy, targets, factors)
    return copy


def check(model, run, x, *, channels=None, factors=None):
    """`h`, which an Identity gives out as `y`, is scaled exactly as asked."""
    rank = run(model, x)[0].ndim
    factors = np.array([0.25, 3.0, 1.0, 7.0]) if factors is None else factors
    places = np.arange(factors.size) if channels is None else channels
    out = run(scaled(model, "h", places, factors), x)[0]
    wide = factors[places.reshape((1,) * (rank - places.ndim) + places.shape)]
    np.testing.assert_allclose(out, run(model, x)[0] * wide, rtol=2e-5, atol=1e-6)  # rounding of float32


LAST = {
    "layer norm": [node("LayerNormalization", ["x", "n", "m"], ["h"])],
    "MatMul and bias": [node("MatMul", ["x", "w"], ["a"]), node("Add", ["n", "a"], ["h"])],
    "MatMul, Sub, Relu": [
        node("MatMul", ["x", "w"], ["a"]),
        node("Sub", ["a", "c"], ["b"]),
        node("Relu", ["b"], ["h"]),
    ],
    "Gemm": [node("Gemm", ["x", "w", "m"], ["h"], alpha=0.5, beta=2.0)],
    "Gemm transposed, one bias for all": [node("Gemm", ["x", "w", "c"], ["h"], transB=1)],
    "Mul by a vector": [node("Sigmoid", ["x"], ["a"]), node("Mul", ["a", "n"], ["h"])],
    "Div by a vector": [node("Sigmoid", ["x"], ["a"]), node("Div", ["a", "n"], ["h"])],
    "Mul by a number": [node("MatMul", ["x", "w"], ["a"]), node("Mul", ["c", "a"], ["h"])],
    "gate": [node("MatMul", ["x", "w"], ["a"]), node("Sigmoid", ["x"], ["g"]), node("Mul", ["a", "g"], ["h"])],
    "sum of layers": [
        node("MatMul", ["x", "w"], ["a"]),
        node("Gemm", ["x", "v"], ["b"]),
        node("Add", ["a", "b"], ["h"]),
    ],
    "one bias for two": [
        node("MatMul", ["x", "w"], ["a"]),
        node("Add", ["a", "n"], ["b"]),
        node("Add", ["b", "n"], ["h"]),
    ],
}


@pytest.mark.parametrize("case", LAST)
def test_scales_the_last_axis(build, run, random, case):
    weights = {name: weight(random, 4, 4) for name in "wv"} | {name: 1 + weight(random, 4) ** 2 for name in "nm"}
    weights["c"] = np.float32([0.5])
    used = {name for each in LAST[case] for name in each.input}
    model = build(
        [*LAST[case], node("Identity", ["h"], ["y"])], {k: v for k, v in weights.items() if k in used}, x=("n", 4)
    )
    check(model, run, weight(random, 5, 4))


IMAGES = {
    "Conv": [node("Conv", ["x", "w", "b"], ["h"])],
    "Conv, LeakyRelu, MaxPool": [
        node("Conv", ["x", "w", "b"], ["a"]),
        node("LeakyRelu", ["a"], ["p"], alpha=0.2),
        node("MaxPool", ["p"], ["h"], kernel_shape=[2, 2]),
    ],
    "depthwise, PRelu, GlobalAveragePool": [
        node("Conv", ["x", "d"], ["a"], group=4),
        node("PRelu", ["a", "s"], ["p"]),
        node("GlobalAveragePool", ["p"], ["h"]),
    ],
    "ConvTranspose": [node("ConvTranspose", ["x", "w", "b"], ["h"])],
    "BatchNormalization": [node("BatchNormalization", ["x", "b", "b", "b", "v"], ["h"])],
    "InstanceNormalization": [node("InstanceNormalization", ["x", "b", "v"], ["h"])],
}


@pytest.mark.parametrize("case", IMAGES)
def test_scales_channels_of_images(build, run, random, case):
    weights = {"w": weight(random, 4, 4, 2, 2), "d": weight(random, 4, 1, 3, 3), "b": weight(random, 4)}
    weights |= {"s": weight(random, 4, 1, 1), "v": 1 + weight(random, 4) ** 2}
    used = {name for each in IMAGES[case] for name in each.input}
    model = build(
        [*IMAGES[case], node("Identity", ["h"], ["y"])],
        {k: v for k, v in weights.items() if k in used},
        x=("n", 4, 6, 6),
    )
    check(model, run, weight(random, 2, 4, 6, 6), channels=np.arange(4).reshape(4, 1, 1))


def attention(build, random):
    """softmax(x xᵀ) V by two heads of three, put together again."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Add", ["a", "b"], ["v0"]),
        node("Reshape", ["v0", "split"], ["v1"]),
        node("Transpose", ["v1"], ["v"], perm=[0, 2, 1, 3]),
        node("Reshape", ["x", "split"], ["q1"]),
        node("Transpose", ["q1"], ["q"], perm=[0, 2, 1, 3]),
        node("Transpose", ["q1"], ["k"], perm=[0, 2, 3, 1]),
        node("MatMul", ["q", "k"], ["scores"]),
        node("Softmax", ["scores"], ["p"]),
        node("MatMul", ["p", "v"], ["c"]),
        node("Transpose", ["c"], ["t"], perm=[0, 2, 1, 3]),
        node("Reshape", ["t", "join"], ["h"]),
        node("Identity", ["h"], ["y"]),
    ]
    shapes = {"split": np.array([0, 0, 2, 3]), "join": np.array([0, 0, 6])}
    return build(nodes, {"w": weight(random, 6, 6), "b": weight(random, 6), **shapes}, x=("n", "length", 6))


def test_goes_through_heads_of_attention_to_the_values(build, run, random):
    model = attention(build, random)
    factors = np.array([0.25, 3.0, 1.0, 7.0, 0.5, 2.0])
    check(model, run, weight(random, 2, 5, 6), factors=factors)
    targets = Absorber(model, infer_shapes(model)).plan(
        model.graph.nodes[-1].inputs[0], np.arange(6), readers={id(model.graph.nodes[-1])}
    )
    assert sorted(target.constant.name for target in targets) == ["b", "w"]


def test_what_others_read_of_a_constant_stays(build, run, random):
    nodes = [
        node("LayerNormalization", ["x", "n", "m"], ["h"]),
        node("LayerNormalization", ["x", "n", "m"], ["z"]),
        node("Identity", ["h"], ["y"]),
    ]
    model = build(nodes, {"n": weight(random, 4), "m": weight(random, 4)}, x=("n", 4), outputs=("y", "z"))
    x, factors = weight(random, 3, 4), np.array([2.0, 3.0, 4.0, 5.0])
    y, z = run(scaled(model, "h", np.arange(4), factors), x)
    before = run(model, x)
    np.testing.assert_allclose(y, before[0] * factors, rtol=1e-5, atol=1e-6)  # rounding of float32
    np.testing.assert_array_equal(z, before[1])


def test_a_constant_that_is_an_output_stays(build, run, random):
    nodes = [node("LayerNormalization", ["x", "n", "m"], ["h"]), node("Identity", ["h"], ["y"])]
    model = build(nodes, {"n": weight(random, 4), "m": weight(random, 4)}, x=("n", 4), outputs=("y", "n"))
    x, factors = weight(random, 3, 4), np.array([2.0, 3.0, 4.0, 5.0])
    y, n = run(scaled(model, "h", np.arange(4), factors), x)
    before = run(model, x)
    np.testing.assert_allclose(y, before[0] * factors, rtol=1e-5, atol=1e-6)  # rounding of float32
    np.testing.assert_array_equal(n, before[1])


def test_refuses_a_weight_that_is_an_output(build, random):
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Identity", ["h"], ["y"])]
    model = build(nodes, {"w": weight(random, 4, 4)}, x=("n", 4), outputs=("y", "w"))
    reads = model.graph.nodes[-1]
    with pytest.raises(RefusalError, match="is shared"):
        Absorber(model, infer_shapes(model)).plan(reads.inputs[0], np.arange(4), readers={id(reads)})


REFUSED = {
    "has no place": [node("MatMul", ["x", "w"], ["a"]), node("Softmax", ["a"], ["h"])],
    "Clip, which has no place": [node("MatMul", ["x", "w"], ["a"]), node("Clip", ["a", "c", "c"], ["h"])],
    "also read by Identity": [
        node("MatMul", ["x", "w"], ["a"]),
        node("Relu", ["a"], ["h"]),
        node("Identity", ["a"], ["z"]),
    ],
    "'a' is an output": [node("MatMul", ["x", "w"], ["a"]), node("Relu", ["a"], ["h"])],
    "is an input": [node("Relu", ["x"], ["h"])],
    "reads 'a' twice": [node("MatMul", ["x", "w"], ["a"]), node("Mul", ["a", "a"], ["h"])],
    "weight of MatMul 'MatMul_a' is shared": [
        node("MatMul", ["x", "w"], ["a"]),
        node("MatMul", ["x", "w"], ["z"]),
        node("Relu", ["a"], ["h"]),
    ],
    "stack of matrices": [node("MatMul", ["x", "s"], ["h"])],
    "no operand with one entry": [node("Div", ["c", "x"], ["h"])],
    "axes of unknown size": [node("MatMul", ["x", "w"], ["a"]), node("Reshape", ["a", "r"], ["h"])],
    "do not lie along the channels": [node("MatMul", ["x", "one"], ["a"]), node("Add", ["a", "n"], ["h"])],
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refuses(build, random, reason):
    weights = {
        "w": weight(random, 4, 4),
        "s": weight(random, 2, 4, 4),
        "c": np.float32(1.0),
        "one": weight(random, 4, 1),
    }
    weights |= {"n": weight(random, 4), "r": np.array([-1, 4])}
    used = {name for each in REFUSED[reason] for name in each.input}
    outputs = ("y", *(name for each in REFUSED[reason] for name in each.output if name == "z"))
    outputs += ("a",) if "output" in reason else ()
    model = build(
        [*REFUSED[reason], node("Identity", ["h"], ["y"])],
        {k: v for k, v in weights.items() if k in used},
        x=None if "unknown" in reason else ("n", 4),
        outputs=outputs,
    )
    reads = model.graph.nodes[-1]
    with pytest.raises(RefusalError, match=reason.replace("'", ".")):
        Absorber(model, infer_shapes(model)).plan(reads.inputs[0], np.arange(4), readers={id(reads)})


def test_refuses_a_weight_that_callers_may_replace(random):
    values = {"w": weight(random, 4, 4)}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in ("x", "w", "y")]
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Identity", ["h"], ["y"])]
    graph = helper.make_graph(nodes, "test", ends[:2], ends[2:])
    graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT, [4, 4], values["w"].tobytes(), raw=True))
    model = Model.from_proto(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]))
    reads = model.graph.nodes[-1]
    with pytest.raises(RefusalError, match="no float32 constant"):
        Absorber(model, infer_shapes(model)).plan(reads.inputs[0], np.arange(4), readers={id(reads)})
