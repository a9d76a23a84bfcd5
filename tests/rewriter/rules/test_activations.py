import numpy as np
import pytest

from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.rules.activations import name_activations
from onnxpress.rewriter.shapes import infer_shapes

NUMBERS = {"three": 3, "zero": 0, "six": 6, "sixth": 1 / 6, "five": 5}
X = np.linspace(-8, 8, 33, dtype=np.float32)


def name(parse, body: str):
    weights = {key: np.float32(value) for key, value in NUMBERS.items()}
    return parse(f"g (float[33] x) => (float y) {{ {body} }}", **{k: np.asarray(v) for k, v in weights.items()})


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("a = Add(x, three) b = Clip(a, zero, six) y = Div(b, six)", ["HardSigmoid"]),
        ("a = Add(x, three) b = Clip(a, zero, six) y = Mul(b, sixth)", ["HardSigmoid"]),
        ("a = Add(x, three) b = Clip(a, zero, six) c = Mul(x, b) y = Div(c, six)", ["HardSigmoid", "Mul"]),
        (
            "a = Add(x, three) b = Clip(a, zero, six) c = Mul(b, x) d = Mul(c, sixth) y = Neg(d)",
            ["HardSigmoid", "Mul", "Neg"],
        ),
    ],
)
def test_names_what_was_written_out(parse, run, body: str, left: list[str]) -> None:
    model = name(parse, body)
    before = run(model, x=X)[0]
    name_activations(model, infer_shapes(model))
    sweep(model)
    assert [n.op for n in model.graph.nodes] == left
    np.testing.assert_allclose(run(model, x=X)[0], before, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        "a = Add(x, three) b = Clip(a, zero, six) y = Div(b, five)",  # another slope
        "a = Add(x, three) b = Clip(a, three, six) y = Div(b, six)",  # another floor
        "a = Add(x, three) b = Clip(a, zero, six) c = Div(b, six) y = Add(b, c)",  # the clip is read elsewhere
        "a = Add(x, x) b = Clip(a, zero, six) y = Div(b, six)",
        "a = Add(x, three) b = Clip(a, zero, six) y = Div(six, b)",
    ],
)
def test_leaves_what_is_something_else(parse, body: str) -> None:
    model = name(parse, body)
    assert not name_activations(model, infer_shapes(model))


@pytest.mark.parametrize("dtype", [np.float64, np.int32])
def test_leaves_types_that_onnx_runtime_has_no_hard_sigmoid_for(parse, run, dtype) -> None:
    kind = {np.float64: "double", np.int32: "int32"}[dtype]
    weights = {key: np.asarray(NUMBERS[key], dtype) for key in ("three", "zero", "six")}
    model = parse(
        f"g ({kind}[33] x) => ({kind}[33] y) {{ a = Add(x, three) b = Clip(a, zero, six) y = Div(b, six) }}", **weights
    )
    assert not name_activations(model, infer_shapes(model))
    run(model, x=X.astype(dtype))


def test_leaves_a_product_of_an_outer_graph(parse) -> None:
    model = parse(
        """g (float[33] x, bool c) => (float[33] y) {
            a = Add(x, three) b = Clip(a, zero, six) p = Mul(x, b)
            y = If(c) <
                then_branch = t () => (float[33] r) { d = Div(p, six) r = Relu(d) },
                else_branch = e () => (float[33] q) { q = Relu(x) }
            >
        }""",
        **{key: np.asarray(value, np.float32) for key, value in NUMBERS.items()},
    )
    assert not name_activations(model, infer_shapes(model))
