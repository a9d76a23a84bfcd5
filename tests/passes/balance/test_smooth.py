import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxpress.passes.balance import smooth
from onnxpress.passes.balance.smooth import Smooth
from onnxpress.passes.base import Workbench
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.quantize.dynamic import QuantizeDynamic
from onnxpress.rewriter.errors import ConfigError, FeedError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.weights import read


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs)


def weight(random, *shape):
    return random.standard_normal(shape, np.float32)


def outliers(random, *shape):
    """Numbers with one channel (the last axis) far larger than the others."""
    values = weight(random, *shape)
    values[..., 3] *= 60
    return values


def ops(model):
    return [each.op for each in model.graph.nodes]


def sqnr(reference, test):
    return 10 * np.log10(np.square(reference).sum() / np.square(reference - test).sum())


@pytest.fixture
def residual(build, random):
    """x -> norm -> two layers and a residual: the norm has an outlier channel and another reader."""
    scale = np.ones(16, np.float32)
    scale[3] = 60
    nodes = [
        node("LayerNormalization", ["x", "scale", "shift"], ["h"]),
        node("MatMul", ["h", "v"], ["a"]),
        node("Gemm", ["h", "w"], ["b"], transB=1),
        node("Add", ["a", "b"], ["c"]),
        node("Add", ["c", "h"], ["y"]),
    ]
    weights = {"scale": scale, "shift": weight(random, 16), "v": weight(random, 16, 16), "w": weight(random, 16, 16)}
    return build(nodes, weights, x=("n", 16))


@pytest.fixture
def plain(build, random):
    """x -> norm -> one layer: nobody else reads the norm."""
    scale = np.ones(16, np.float32)
    scale[3] = 60
    nodes = [node("LayerNormalization", ["x", "scale"], ["h"]), node("MatMul", ["h", "w"], ["y"])]
    w = weight(random, 16, 8)
    w[3] /= 60  # as trained models have it: what is large is multiplied by little
    return build(nodes, {"scale": scale, "w": w}, x=("n", 16))


@pytest.fixture
def batches(random):
    return [weight(random, 32, 16) for _ in range(4)]


def test_puts_one_mul_before_the_layers_and_leaves_the_residual(residual, bench, run, batches):
    result = Smooth()(residual, bench(residual, *batches))
    [change] = result.report.changes
    assert change.site == "h"
    assert "a Mul before 2 layers" in change.action
    readers = {each.name: [t.name for t in each.inputs] for each in result.model.graph.nodes}
    assert "h" in readers["Add_y"]
    assert readers["MatMul_a"][0] == readers["Gemm_b"][0] != "h"
    assert ops(result.model).count("Mul") == 1
    # the sums are the same but for rounding of float32, relative to the largest terms
    np.testing.assert_allclose(run(result.model, batches[0])[0], run(residual, batches[0])[0], rtol=1e-5, atol=1e-3)


def test_absorbs_where_nobody_else_reads(plain, bench, run, batches):
    result = Smooth()(plain, bench(plain, *batches))
    assert "absorbed by LayerNormalization" in result.report.changes[0].action
    assert ops(result.model) == ["LayerNormalization", "MatMul"]
    np.testing.assert_allclose(run(result.model, batches[0])[0], run(plain, batches[0])[0], rtol=1e-5, atol=1e-3)


def test_makes_codes_better(plain, bench, run, batches):
    workbench = bench(plain, *batches)
    smoothed = Smooth()(plain, workbench).model
    want = run(plain, batches[0])[0]
    before, after = (run(QuantizeDynamic()(each, workbench).model, batches[0])[0] for each in (plain, smoothed))
    assert sqnr(want, after) > sqnr(want, before) + 3


def test_leaves_the_caller_s_model(residual, bench, batches):
    before = residual.to_proto().SerializeToString()
    Smooth()(residual, bench(residual, *batches))
    assert residual.to_proto().SerializeToString() == before


def test_runs_in_a_pipeline_and_twice_gives_the_same(residual, bench, batches):
    one, two = (Pipeline([Smooth()])(residual, bench(residual, *batches)).model for _ in range(2))
    assert one.to_proto().SerializeToString() == two.to_proto().SerializeToString()


def test_leaves_a_tensor_that_gains_little(build, bench, random):
    model = build([node("MatMul", ["x", "w"], ["y"])], {"w": weight(random, 16, 8)}, x=("n", 16))
    even = [np.clip(weight(random, 64, 16), -1, 1) for _ in range(2)]
    report = Smooth(enough=100, min_gain=3)(model, bench(model, *even)).report
    assert not report.changes
    assert "gains less than min_gain 3 dB" in report.skips[0].reason


def test_leaves_a_tensor_that_is_good_enough(plain, bench, batches):
    report = Smooth(enough=5)(plain, bench(plain, *batches)).report
    assert "are enough as they are (5 dB)" in report.skips[0].reason


def test_finds_nothing_more_the_second_time(residual, bench, batches):
    workbench = bench(residual, *batches)
    assert not Smooth()(Smooth()(residual, workbench).model, workbench).report.changes


def test_takes_the_strength_it_is_given(plain, bench, batches):
    assert Smooth(strength=0.8)(plain, bench(plain, *batches)).report.changes[0].action.startswith("alpha 0.8, ")


def test_one_batch_is_enough(plain, bench, batches):
    assert Smooth()(plain, bench(plain, batches[0])).report.changes


def test_scales_a_weight_once_that_two_nodes_share(build, bench, run, random):
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("MatMul", ["x", "w"], ["b"]),
        node("Mul", ["a", "b"], ["y"]),
    ]
    model = build(nodes, {"w": weight(random, 8, 8)}, x=("n", 8))
    x = outliers(random, 20, 8)
    result = Smooth()(model, bench(model, x))
    assert "a Mul before 2 layers" in result.report.changes[0].action
    np.testing.assert_allclose(run(result.model, x)[0], run(model, x)[0], rtol=1e-4, atol=1e-2)  # squares of 60


def test_large_weights_come_later(build, bench, run, random, monkeypatch):
    monkeypatch.setattr("onnxpress.passes.balance.factors.LAZY", 1)
    model = build([node("MatMul", ["x", "w"], ["y"])], {"w": weight(random, 8, 8)}, x=("n", 8))
    x = outliers(random, 20, 8)
    result = Smooth()(model, bench(model, x)).model
    np.testing.assert_allclose(run(result, x)[0], run(model, x)[0], rtol=1e-5, atol=1e-3)


def test_more_tensors_than_memory_take_more_walks(build, bench, run, random, monkeypatch):
    monkeypatch.setattr(smooth, "MEMORY", 1)
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("MatMul", ["a", "v"], ["y"])]
    spread = np.diag(np.geomspace(0.01, 10, 8)).astype(np.float32)
    model = build(nodes, {"w": weight(random, 8, 8) @ spread, "v": weight(random, 8, 8)}, x=("n", 8))
    x = outliers(random, 20, 8)
    result = Smooth()(model, bench(model, x))
    assert [each.site for each in result.report.changes] == ["x", "a"]
    np.testing.assert_allclose(run(result.model, x)[0], run(model, x)[0], rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("group", [1, 2, 4])
def test_convolutions_take_factors_where_they_are_free(build, bench, run, random, group):
    spread = np.geomspace(0.01, 10, 8, dtype=np.float32).reshape(8, 1, 1, 1)
    nodes = [
        node("Conv", ["x", "w", "b"], ["a"], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["h"]),
        node("Conv", ["h", "v"], ["y"], group=group, pads=[1, 1, 1, 1]),
    ]
    weights = {
        "w": weight(random, 8, 3, 3, 3) * spread,
        "b": weight(random, 8),
        "v": weight(random, 12, 8 // group, 3, 3),
    }
    model = build(nodes, weights, x=("n", 3, "height", "width"))
    x = [weight(random, 2, 3, 7, 5), weight(random, 1, 3, 6, 6)]
    result = Smooth(enough=100)(model, bench(model, *x))
    assert "absorbed by Conv" in next(each.action for each in result.report.changes if each.site == "h")
    assert ops(result.model) == ["Conv", "Relu", "Conv"]
    np.testing.assert_allclose(run(result.model, x[0])[0], run(model, x[0])[0], rtol=1e-4, atol=1e-3)


def skips(model, workbench, **options):
    report = Smooth(**options)(model, workbench).report
    assert not report.changes
    return " | ".join(f"{each.site}: {each.reason}" for each in report.skips)


def test_no_mul_before_convolutions(build, bench, random):
    model = build([node("Conv", ["x", "w"], ["y"])], {"w": weight(random, 4, 3, 1, 1)}, x=("n", 3, 4, 4))
    assert "'x' is an input, so it would take a Mul" in skips(model, bench(model, weight(random, 2, 3, 4, 4)))


def test_no_mul_where_none_may_be_put(residual, bench, batches):
    assert "'h' is also read by Add 'Add_y'" in skips(residual, bench(residual, *batches), insert=False)


REFUSED = {
    "its weight is shared with 'MatMul_b', which reads another tensor": [
        node("MatMul", ["x", "w"], ["a"]),
        node("MatMul", ["a", "w"], ["b"]),
        node("Relu", ["b"], ["y"]),
    ],
    "Gather does not multiply the channels": [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["w", "s"], ["y"]),
    ],
    "its weight is on the left": [node("MatMul", ["w", "x"], ["y"])],
    "it reads its activation transposed": [node("Gemm", ["x", "w"], ["y"], transA=1)],
    "its weight is a stack of matrices": [node("MatMul", ["x", "k"], ["y"])],
    "Transpose 'Transpose_t' reads its weight, too": [
        node("MatMul", ["x", "w"], ["a"]),
        node("Transpose", ["w"], ["t"]),
        node("MatMul", ["a", "t"], ["y"]),
    ],
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refuses(build, bench, random, reason):
    weights = {"w": weight(random, 8, 8), "k": weight(random, 2, 8, 8)}
    used = {name for each in REFUSED[reason] for name in each.input}
    gives = TensorProto.FLOAT
    model = build(REFUSED[reason], {k: v for k, v in weights.items() if k in used}, x=(8, 8), gives=gives)
    assert reason in skips(model, bench(model, outliers(random, 8, 8)))


def test_refuses_a_weight_that_is_an_output(build, bench, random):
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    model = build(nodes, {"w": weight(random, 8, 8)}, x=("n", 8), outputs=("y", "w"))
    assert "its weight is an output, too" in skips(model, bench(model, outliers(random, 8, 8)))


def test_refuses_other_types_and_weights_that_are_not_finite(build, bench, random):
    x = outliers(random, 8, 8)
    half = build(
        [node("MatMul", ["x", "w"], ["y"])], {"w": weight(random, 8, 8).astype(np.float64)}, x=("n", 8), dtype=11
    )
    assert "only float32 is quantized" in skips(half, bench(half, x.astype(np.float64)))
    broken = build([node("MatMul", ["x", "w"], ["y"])], {"w": np.full((8, 8), np.inf, np.float32)}, x=("n", 8))
    assert "NaN or infinities; train or export it again" in skips(broken, bench(broken, x))


def test_refuses_activations_that_are_not_finite(build, bench, random):
    nodes = [node("Log", ["x"], ["h"]), node("MatMul", ["h", "w"], ["y"])]
    model = build(nodes, {"w": weight(random, 8, 8)}, x=("n", 8))
    x = np.abs(outliers(random, 8, 8))
    x[0, 0] = 0
    assert "h: it held NaN or infinities" in skips(model, bench(model, x))


def test_leaves_subgraphs(bench, random):
    w = helper.make_tensor("w", TensorProto.FLOAT, [8, 8], weight(random, 8, 8).tobytes(), raw=True)
    y = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    branch = helper.make_graph([node("MatMul", ["x", "w"], ["z"])], "branch", [], [y], [w])
    nodes = [node("ReduceSum", ["x"], ["s"], keepdims=0), node("Cast", ["s"], ["c"], to=9)]
    nodes.append(node("If", ["c"], ["y"], then_branch=branch, else_branch=branch))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", ["n", 8]), ("y", None))
    ]
    graph = helper.make_graph(nodes, "test", ends[:1], ends[1:])
    model = Model.from_proto(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]))
    assert "branch or a loop" in skips(model, bench(model, outliers(random, 8, 8)))


def test_asks_for_samples(plain):
    with pytest.raises(FeedError, match="--data"):
        Smooth()(plain, Workbench())


@pytest.mark.parametrize(
    ("field", "value"),
    [("strength", 1.5), ("strength", "much"), ("strength", True), ("min_gain", -1), ("enough", "all"), ("insert", 1)],
)
def test_refuses_options(field, value):
    with pytest.raises(ConfigError, match=f"smooth: {field} must .*, got {value!r}"):
        Smooth(**{field: value})


def test_globs_choose_layers(residual, bench, batches):
    result = Smooth(exclude=["Gemm*"])(residual, bench(residual, *batches))
    assert "a Mul before 1 layer" in result.report.changes[0].action
    gemm = next(each for each in result.model.graph.nodes if each.op == "Gemm")
    assert gemm.inputs[0].name == "h"
    np.testing.assert_array_equal(read(gemm.inputs[1]), read(residual.graph.nodes[2].inputs[1]))
