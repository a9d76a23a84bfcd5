import numpy as np
import pytest

from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.rules.layout import cancel_transposes
from onnxpress.rewriter.shapes import infer_shapes

X = np.random.default_rng(0).standard_normal((1, 4, 5, 6)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((4, 4, 1, 1)).astype(np.float32)
C = np.arange(1, 5, dtype=np.float32)
TO, BACK = "Transpose<perm=[0,2,3,1]>", "Transpose<perm=[0,3,1,2]>"


def cancel(model) -> int:
    cancel_transposes(model, infer_shapes(model))
    sweep(model)
    return sum(n.op == "Transpose" for n in model.graph.nodes)


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (f"a = {TO}(x) y = {BACK}(a)", 0),
        (f"a = {TO}(x) b = Relu(a) c = Mul(b, c4) y = {BACK}(c)", 0),
        (f"a = {TO}(x) b = Sub(c4, a) d = Add(b, a) y = {BACK}(d)", 0),
        (f"a = {TO}(x) b = Softmax<axis=3>(a) y = {BACK}(b)", 0),
        (f"a = {TO}(x) b = Concat<axis=-1>(a, a) y = {BACK}(b)", 0),
        (f"a = {TO}(x) b = ReduceMean<axes=[1,2], keepdims=0>(a) y = MatMul(b, m)", 0),
        (f"a = {TO}(x) b = ReduceMean<axes=[3], keepdims=1>(a) y = {BACK}(b)", 0),
        (f"a = {TO}(x) b = Clip(a, zero, one) y = {BACK}(b)", 0),
        (f"a = {TO}(x) y = {TO}(a)", 1),
        # two branches, residual as exporters write it
        (f"a = {TO}(x) b = Relu(a) c = {BACK}(b) d = Conv(c, w) e = {TO}(d) f = Add(e, b) y = {BACK}(f)", 0),
    ],
)
def test_cancels_and_computes_the_same(parse, run, body: str, left: int) -> None:
    weights = {"w": W, "c4": C, "m": np.ones((4, 2), np.float32), "zero": np.float32(0), "one": np.float32(1)}
    model = parse(f"g (float[1,4,5,6] x) => (float y) {{ {body} }}", **{k: np.asarray(v) for k, v in weights.items()})
    before = run(model, x=X)[0]
    assert cancel(model) == left
    np.testing.assert_allclose(run(model, x=X)[0], before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        f"a = {TO}(x) b = MatMul(a, m) y = {BACK}(b)",  # works along the last axis
        f"a = {TO}(x) y = Relu(a)",  # nothing to gain
        f"a = {TO}(x) y = Add(a, z)",  # z is not transposed
        f"a = {TO}(x) b = Reshape(a, shape) y = Neg(b)",
    ],
)
def test_leaves_what_would_gain_nothing(parse, run, body: str) -> None:
    weights = {"m": np.ones((4, 4), np.float32), "shape": np.array([-1, 4])}
    model = parse(f"g (float[1,4,5,6] x, float[1,5,6,4] z) => (float y) {{ {body} }}", **weights)
    before = len(model.graph.nodes)
    cancel(model)
    assert len(model.graph.nodes) == before


def test_old_softmax_flattens_and_must_stay(parse) -> None:
    model = parse(f"g (float[1,4,5,6] x) => (float y) {{ a = {TO}(x) b = Softmax<axis=3>(a) y = {BACK}(b) }}", opset=11)
    assert cancel(model) == 2


def test_a_branch_that_reads_a_view_gets_it_written_out(parse, run) -> None:
    model = parse(
        f"g (float[1,4,5,6] x, bool c) => (float y) {{ a = {TO}(x) b = Relu(a) d = {BACK}(b) e = Neg(d) "
        "z = If (c) <then_branch = t () => (float p) { p = MatMul(b, m) }, "
        "else_branch = e () => (float q) { q = Neg(b) }> "
        f"f = {BACK}(z) y = Add(e, f) }}",
        m=np.ones((4, 4), np.float32),
    )
    inputs = {"x": X, "c": np.array(True)}
    before = run(model, **inputs)[0]
    assert cancel(model) < 3
    np.testing.assert_allclose(run(model, **inputs)[0], before, rtol=1e-5, atol=1e-6)
