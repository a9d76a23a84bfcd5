import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.quantize.dynamic import QuantizeDynamic
from onnxpress.passes.quantize.lstm import Setting
from onnxpress.passes.quantize.recurrent import LEAST, plan_lstms, write_lstms
from onnxpress.passes.report import Report
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites

INPUT, HIDDEN = 32, 64  # 24,576 weights in a direction
STEPS, BATCH = 12, 3


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0] or outputs[1]}", **attrs)


def lstm_weights(random, *, directions=1, width=INPUT, hidden=HIDDEN, gates=4):
    deviation = hidden**-0.5
    shapes = {
        "W": (directions, gates * hidden, width),
        "R": (directions, gates * hidden, hidden),
        "B": (directions, 2 * gates * hidden),
        "P": (directions, 3 * hidden),
        "h": (directions, BATCH, hidden),
        "c": (directions, BATCH, hidden),
    }
    weights = {name: random.uniform(-deviation, deviation, shape).astype(np.float32) for name, shape in shapes.items()}
    return weights | {"n": np.array([STEPS, 5, 8], np.int32)}


def built(build, weights, inputs=("x", "W", "R", "B"), outputs=("y",), *, op="LSTM", x=INPUT, **attrs):
    attrs.setdefault("hidden_size", HIDDEN)
    used = {name: weights[name] for name in inputs if name in weights}
    shown = [name for name in outputs if name]
    return build([node(op, list(inputs), list(outputs), **attrs)], used, x=("s", "b", x), outputs=shown)


def sqnr(reference, test):
    return 10 * np.log10(np.square(reference).sum() / np.square(reference - test).sum())


@pytest.fixture
def x(random):
    return random.standard_normal((STEPS, BATCH, INPUT), np.float32)


FULL = ("x", "W", "R", "B", "n", "h", "c", "P")
ALL = ("y", "last", "cell")


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(
    ("inputs", "outputs", "attrs"),
    [
        (("x", "W", "R"), ("y",), {}),
        (FULL, ALL, {}),
        (FULL, ALL, {"direction": "bidirectional"}),
        (FULL[:4], ("", "y"), {"direction": "reverse"}),
        (("x", "W", "R", "", "", "h"), ("", "", "y"), {"clip": 0.5, "input_forget": 1}),
        (FULL[:4], ALL, {"activations": ["HardSigmoid", "Relu", "Tanh"], "activation_alpha": [0.3]}),
    ],
)
def test_lstms_compute_on_codes(build, run, fused, random, x, inputs, outputs, attrs, per_channel):
    weights = lstm_weights(random, directions=2 if attrs.get("direction") == "bidirectional" else 1)
    model = built(build, weights, inputs, outputs, **attrs)
    result = QuantizeDynamic(per_channel=per_channel, reduce_range=False)(model)
    assert fused(result.model) == {"DynamicQuantizeLSTM": 1}
    assert [each.site for each in result.report.changes[:2]] == [site.name for site in find_sites(model)]
    for reference, test in zip(run(model, x), run(result.model, x), strict=True):
        assert reference.shape == test.shape
        assert sqnr(reference, test) > 33
    assert result.model.weight_bytes() < model.weight_bytes() - 0.7 * (weights["W"].nbytes + weights["R"].nbytes)


def test_weights_of_seven_bits_are_a_little_less_exact(build, run, random, x):
    model = built(build, lstm_weights(random))
    narrow, wide = (QuantizeDynamic(reduce_range=each)(model).model for each in (True, False))
    codes = {c.name: c for c in narrow.constants() if c.dtype == np.int8 and len(c.shape) == 3}
    assert {int(np.abs(narrow.array(c)).max()) for c in codes.values()} == {64}
    reference = run(model, x)[0]
    assert 25 < sqnr(reference, run(narrow, x)[0]) < sqnr(reference, run(wide, x)[0])


def test_a_large_weight_is_coded_when_it_is_written(build, run, random):
    weights = lstm_weights(random, width=256, hidden=256)
    model = built(build, weights, x=256, hidden_size=256)
    x = random.standard_normal((4, 2, 256), np.float32)
    assert sqnr(run(model, x)[0], run(QuantizeDynamic()(model).model, x)[0]) > 25


def branches(random, *, shared: bool) -> Model:
    """An If with an LSTM in each branch, as voice detectors have it."""
    weights = lstm_weights(random)
    other = weights if shared else {"W": weights["W"] * 2, "R": weights["R"] / 2}
    arms = []
    for name, chosen in (("then", weights), ("else", other)):
        called = {"W": "W", "R": "R"} if shared else {"W": f"W_{name}", "R": f"R_{name}"}
        body = node("LSTM", ["x", called["W"], called["R"]], [f"y_{name}"], hidden_size=HIDDEN)
        out = helper.make_tensor_value_info(f"y_{name}", onnx.TensorProto.FLOAT, None)
        inner = [] if shared else [numpy_helper.from_array(chosen[k], v) for k, v in called.items()]
        arms.append(helper.make_graph([body], name, [], [out], inner))
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Greater", ["m", "zero"], ["p"]),
        helper.make_node("If", ["p"], ["y"], then_branch=arms[0], else_branch=arms[1]),
    ]
    ends = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["s", "b", INPUT])
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [ends], [result], [numpy_helper.from_array(np.float32(0), "zero")])
    if shared:
        graph.initializer.extend(numpy_helper.from_array(weights[name], name) for name in "WR")
    return Model.from_proto(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]))


@pytest.mark.parametrize("shared", [True, False])
def test_lstms_inside_of_branches_compute_on_codes(run, random, bench, x, shared):
    model = branches(random, shared=shared)
    quantized = Pipeline([QuantizeDynamic()])(model, bench(model, x)).model
    for batch in (x, -np.abs(x)):
        assert sqnr(run(model, batch)[0], run(quantized, batch)[0]) > 25
    codes = [c for c in quantized.constants() if c.dtype == np.int8 and len(c.shape) == 3]
    assert len(codes) == (2 if shared else 4)


def test_an_lstm_inside_of_a_loop_computes_on_codes(run, random, x):
    weights, info, kinds = lstm_weights(random), helper.make_tensor_value_info, onnx.TensorProto
    inner = [
        node("LSTM", ["x", "W", "R", "", "", "before"], ["", "after"], hidden_size=HIDDEN),
        helper.make_node("Identity", ["go"], ["on"]),
    ]
    state = [1, BATCH, HIDDEN]
    body = helper.make_graph(
        inner,
        "body",
        [info("i", kinds.INT64, []), info("go", kinds.BOOL, []), info("before", kinds.FLOAT, state)],
        [info("on", kinds.BOOL, []), info("after", kinds.FLOAT, state)],
    )
    loop = helper.make_node("Loop", ["times", "true", "h"], ["y"], body=body)
    used = {name: weights[name] for name in "WRh"} | {"times": np.array(3), "true": np.array(True)}
    ends = [info("x", kinds.FLOAT, [STEPS, BATCH, INPUT])], [info("y", kinds.FLOAT, state)]
    graph = helper.make_graph([loop], "g", *ends, [numpy_helper.from_array(v, k) for k, v in used.items()])
    model = Model.from_proto(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]))
    result = QuantizeDynamic()(model)
    assert result.report.changes[0].action == "int8 per channel, activations uint8 by the range of each run"
    assert sqnr(run(model, x)[0], run(result.model, x)[0]) > 25


def test_quantizing_again_finds_nothing_to_do_in_an_lstm_on_codes(build, random):
    again = QuantizeDynamic()(QuantizeDynamic()(built(build, lstm_weights(random))).model).report
    assert not again.changes
    assert not [each for each in again.skips if each.site != "graph"]


def test_samples_show_how_good_an_lstm_is(build, random, bench, x):
    model = built(build, lstm_weights(random))
    seen = QuantizeDynamic()(model, bench(model, x, x)).report.changes[0].action
    assert seen.startswith("int8 per channel, activations uint8 by the range of each run, ")
    assert 25 < float(seen.split(", ")[2].removesuffix(" dB")) < 60
    assert QuantizeDynamic()(model).report.changes[0].action.endswith("range of each run")


REFUSED = {
    "small": ({"width": 8, "hidden": 16}, {}, {}, "with 1536 weights in a direction it is not faster on codes"),
    "poor": ({}, {}, {"layer_sqnr": 99.0}, "its weights on codes have"),
}


@pytest.mark.parametrize(("sizes", "attrs", "options", "reason"), REFUSED.values(), ids=REFUSED)
def test_others_are_stored_small_and_run_in_float(build, run, fused, random, sizes, attrs, options, reason):
    weights, width, hidden = lstm_weights(random, **sizes), sizes.get("width", INPUT), sizes.get("hidden", HIDDEN)
    model = built(build, weights, x=width, hidden_size=hidden, **attrs)
    result, x = QuantizeDynamic(**options)(model), random.standard_normal((STEPS, BATCH, width), np.float32)
    assert fused(result.model) == {"LSTM": 1}
    assert all(f"int8 in the file, float when it runs: {reason}" in each.action for each in result.report.changes)
    assert sqnr(run(model, x)[0], run(result.model, x)[0]) > 30


def test_samples_may_show_that_an_lstm_is_not_good_enough(build, random, bench, x):
    model = built(build, lstm_weights(random))
    report = QuantizeDynamic(layer_sqnr=99)(model, bench(model, x)).report
    assert "on codes it has" in report.changes[0].action
    assert report.changes[0].action.endswith("dB, layer_sqnr is 99")


@pytest.mark.parametrize("op", ["GRU", "RNN"])
def test_gru_and_rnn_have_no_codes(build, run, fused, random, x, op):
    weights = lstm_weights(random, gates={"GRU": 3, "RNN": 1}[op])
    model = built(build, weights, op=op)
    result = QuantizeDynamic()(model)
    assert fused(result.model) == {op: 1}
    assert {each.action for each in result.report.changes} == {
        f"int8 in the file, float when it runs: ONNX Runtime has no {op} on 8-bit codes"
    }
    assert sqnr(run(model, x)[0], run(result.model, x)[0]) > 30


def reasons(model, *, bench=None, setting=None, sites=None):
    """Why LSTMs of a model stay float."""
    plan = plan_lstms(model, sites or find_sites(model), setting or Setting(), bench=bench or Workbench())
    assert not plan.levels
    return list(plan.reasons.values())


def test_only_the_cpu_has_lstms_on_codes(build, random):
    model = built(build, lstm_weights(random))
    bench = Workbench(providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
    assert reasons(model, bench=bench) == [
        "ONNX Runtime has an LSTM on 8-bit codes for the CPU only, not for CUDAExecutionProvider"
    ]


def test_batches_first_are_refused(build, random):
    model = built(build, lstm_weights(random), layout=1)
    assert reasons(model) == ["ONNX Runtime runs no LSTM with layout 1; export it with batch_first=False"]


@pytest.mark.parametrize(("value", "reason"), [(np.nan, "holds NaN or infinities"), (np.inf, "holds NaN")])
def test_weights_that_are_no_numbers_are_refused(build, random, value, reason):
    weights = lstm_weights(random)
    weights["R"][0, 3, 5] = value
    assert reason in reasons(built(build, weights))[0]


def test_other_types_are_refused(build, random):
    weights = {name: array.astype(np.float64) for name, array in lstm_weights(random).items()}
    assert reasons(built(build, weights)) == ["its weight is float64; only float32 is quantized"]


def test_both_weights_must_be_had(build, random):
    model = built(build, lstm_weights(random))
    wanted = ["its other weight is computed at run time, or left out by the recipe"]
    assert reasons(model, sites=find_sites(model)[:1]) == wanted
    weights = lstm_weights(random)
    nodes = [node("Neg", ["W"], ["V"]), node("LSTM", ["x", "V", "R"], ["y"], hidden_size=HIDDEN)]
    assert reasons(build(nodes, {"W": weights["W"], "R": weights["R"]}, x=("s", "b", INPUT))) == wanted


def test_a_weight_shared_with_a_float_node_stays_float(build, random):
    weights = lstm_weights(random)
    nodes = [
        node("LSTM", ["x", "W", "R"], ["a"], hidden_size=HIDDEN),
        node("RNN", ["x", "W", "Q"], ["b"], hidden_size=4 * HIDDEN),
        node("Reshape", ["a", "shape"], ["y"]),
    ]
    square = random.standard_normal((1, 4 * HIDDEN, 4 * HIDDEN), np.float32)
    used = {"W": weights["W"], "R": weights["R"], "Q": square, "shape": np.array([-1], np.int64)}
    model = build(nodes, used, x=("s", "b", INPUT), outputs=("y", "b"))
    assert reasons(model) == ["it shares a weight with a node that stays float"]


def test_a_plan_holds_for_copies_and_leaves_out_what_is_asked(build, random):
    weights = lstm_weights(random)
    nodes = [node("LSTM", ["x", "W", "R"], ["", "a"], hidden_size=HIDDEN), node("Relu", ["a"], ["y"])]
    model = build(nodes, {"W": weights["W"], "R": weights["R"]}, x=("s", "b", INPUT))
    plan = plan_lstms(model, find_sites(model), Setting(), bench=Workbench())
    for floats, count in (((), 1), (("a",), 0)):
        copy = model.clone()
        left = write_lstms(copy, find_sites(copy), plan, Report("test"), floats=floats)
        sweep(copy)
        assert (left.count, len(left.sites)) == (count, 2 - 2 * count)
        assert left.reasons == dict.fromkeys(floats, "it loses too much on codes")
        assert copy.graph.nodes[0].op == ("DynamicQuantizeLSTM" if count else "LSTM")
    assert [each.op for each in model.graph.nodes] == ["LSTM", "Relu"]


def test_the_least_size_lies_where_it_was_measured():
    assert 4 * 48 * (48 + 48) < LEAST < 4 * 64 * (16 + 64)
