import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.rules.affine import fold_affine
from onnxpress.rewriter.shapes import infer_shapes

RNG = np.random.default_rng(0)
X = RNG.standard_normal((1, 4, 6, 6)).astype(np.float32)
LAYERS = {
    "Conv": ("Conv<pads=[1,1,1,1]>(x, w, b)", (6, 4, 3, 3), (6,)),
    "Conv without bias": ("Conv(x, w)", (6, 4, 3, 3), (6,)),
    "grouped Conv": ("Conv<group=2>(x, w)", (6, 2, 3, 3), (6,)),
    "ConvTranspose": ("ConvTranspose(x, w)", (4, 6, 3, 3), (6,)),
    "grouped ConvTranspose": ("ConvTranspose<group=2>(x, w, b)", (4, 3, 3, 3), (6,)),
}


def f32(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def fold(model):
    outcome = fold_affine(model, infer_shapes(model))
    sweep(model)
    return outcome


def close(a: np.ndarray, b: np.ndarray) -> None:
    # float32 sums in another order: a few units in the last place of the largest term
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", LAYERS)
def test_folds_batch_normalization(parse, run, layer: str) -> None:
    node, shape, bias = LAYERS[layer]
    text = f"g (float[1,4,6,6] x) => (float y) {{ a = {node} y = BatchNormalization(a, s, o, m, v) }}"
    c = bias[0]
    model = parse(text, w=f32(*shape), b=f32(c), s=f32(c), o=f32(c), m=f32(c), v=abs(f32(c)) + 0.1)
    before = run(model, x=X)[0]
    outcome = fold(model)
    assert [n.op for n in model.graph.nodes] == [node.split("(")[0].split("<")[0]]
    assert outcome.done
    close(run(model, x=X)[0], before)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from("+-*/r"), st.sampled_from([(), (1,), (6, 1, 1), (1, 6, 1, 1)])),
        min_size=1,
        max_size=5,
    )
)
def test_folds_any_chain_of_channel_constants(parse, run, chain) -> None:
    lines, weights, name = ["t0 = Conv(x, w, b)"], {"w": f32(6, 4, 3, 3), "b": f32(6)}, "t0"
    for index, (op, shape) in enumerate(chain):
        weights[f"c{index}"] = (np.abs(f32(*shape)) + 0.5).astype(np.float32)
        operands = f"c{index}, {name}" if op == "r" else f"{name}, c{index}"
        name = f"t{index + 1}"
        lines.append(f"{name} = {dict(zip('+-*/r', ['Add', 'Sub', 'Mul', 'Div', 'Sub'], strict=True))[op]}({operands})")
    text = f"g (float[1,4,6,6] x) => (float y) {{ {' '.join(lines)} y = Relu({name}) }}"
    model = parse(text, **weights)
    before = run(model, x=X)[0]
    fold(model)
    assert [n.op for n in model.graph.nodes] == ["Conv", "Relu"]
    close(run(model, x=X)[0], before)


def test_folds_into_gemm_with_beta_and_matrix_layout(parse, run) -> None:
    for attribute, shape in (("transB=1", (5, 4)), ("transB=0", (4, 5))):
        gemm = f"Gemm<{attribute}, alpha=0.5, beta=2.0>(x, w, b)"
        text = f"g (float[2,4] x) => (float y) {{ a = {gemm} c = Mul(a, s) y = Add(c, o) }}"
        model = parse(text, w=f32(*shape), b=f32(5), s=f32(5), o=f32(5))
        x = f32(2, 4)
        before = run(model, x=x)[0]
        fold(model)
        assert [n.op for n in model.graph.nodes] == ["Gemm"]
        close(run(model, x=x)[0], before)


def test_folds_a_scale_into_matmul_and_keeps_one_add(parse, run) -> None:
    text = "g (float[2,3,4] x) => (float y) { a = MatMul(x, w) c = Add(a, b) d = Mul(c, s) e = Add(d, o) y = Relu(e) }"
    model = parse(text, w=f32(4, 5), b=f32(5), s=f32(1, 5), o=f32(1))
    x = f32(2, 3, 4)
    before = run(model, x=x)[0]
    fold(model)
    assert [n.op for n in model.graph.nodes] == ["MatMul", "Add", "Relu"]
    close(run(model, x=x)[0], before)
    assert not fold(model)


def test_a_constant_along_another_axis_is_no_channel_of_matmul(parse) -> None:
    text = "g (float[2,5,4] x) => (float y) { a = MatMul(x, w) y = Mul(a, s) }"
    assert not fold(parse(text, w=f32(4, 5), s=f32(5, 1)))


def test_leaves_what_only_a_branch_does(parse, run) -> None:
    text = (
        "g (float[1,4,6,6] x, bool c) => (float y) { a = Conv(x, w) y = If (c) "
        "<then_branch = t () => (float p) { p = Mul(a, s) }, else_branch = e () => (float q) { q = Neg(x) }> }"
    )
    assert not fold(parse(text, w=f32(6, 4, 3, 3), s=f32(6, 1, 1)))


@pytest.mark.parametrize(
    ("rest", "extra"),
    [
        ("y = Mul(a, s)", {"s": f32(1, 1, 1, 4)}),  # varies along the width
        ("y = Div(s, a)", {"s": f32(6, 1, 1)}),  # not affine
        ("y = Mul(a, a)", {}),
        ("y = Mul(a, s) z = Neg(a)", {"s": f32(6, 1, 1)}),  # the layer's own output is read too
    ],
)
def test_leaves_what_it_cannot_fold(parse, rest: str, extra: dict[str, np.ndarray]) -> None:
    outputs = "(float y, float z)" if "z =" in rest else "(float y)"
    model = parse(f"g (float[1,4,6,6] x) => {outputs} {{ a = Conv(x, w) {rest} }}", w=f32(6, 4, 3, 3), **extra)
    assert not fold(model)


def test_says_why_a_batch_normalization_stays(parse) -> None:
    text = "g (float[1,6,6,6] x) => (float y) { y = BatchNormalization(x, s, s, s, s) }"
    assert "a graph input" in fold(parse(text, s=np.ones(6, np.float32))).left[0][1]


def test_a_shared_weight_is_not_scaled_for_one_user(parse) -> None:
    text = "g (float[1,4,6,6] x) => (float y, float z) { a = Conv(x, w) y = Mul(a, s) z = Conv(x, w) }"
    outcome = fold(parse(text, w=f32(6, 4, 3, 3), s=f32(6, 1, 1)))
    assert "shared" in outcome.left[0][1]


def test_does_not_overflow_float16(parse) -> None:
    text = "g (float16[1,4,6,6] x) => (float16 y) { a = Conv(x, w) y = Mul(a, s) }"
    half = {"w": f32(6, 4, 3, 3).astype(np.float16), "s": np.full((6, 1, 1), 60000, np.float16)}
    assert "overflows float16" in fold(parse(text, **half)).left[0][1]


def test_leaves_a_batch_norm_after_a_matmul_of_unknown_rank(parse, run) -> None:
    random = np.random.default_rng(0)
    text = """g (float[n] x, int64[k] s) => (y) {
        r = Reshape(x, s) m = MatMul(r, w) y = BatchNormalization(m, scale, zero, zero, one)
    }"""
    model = parse(
        text,
        w=random.standard_normal((4, 4)).astype(np.float32),
        scale=np.arange(1, 5, dtype=np.float32),
        zero=np.zeros(4, np.float32),
        one=np.ones(4, np.float32),
    )
    x, s = random.standard_normal(32).astype(np.float32), np.array([2, 4, 4])
    before = run(model, x=x, s=s)[0]
    fold_affine(model, infer_shapes(model))
    np.testing.assert_array_equal(run(model, x=x, s=s)[0], before)
