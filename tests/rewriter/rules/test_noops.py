import numpy as np
import pytest

from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.rules.noops import remove_noops
from onnxpress.rewriter.shapes import infer_shapes

WEIGHTS = {
    "zero": np.float32(0), "one": np.ones((1, 1), np.float32), "wide": np.ones((1, 1, 1), np.float32),
    "no_pads": np.zeros(4, np.int64), "pads": np.ones(4, np.int64), "same": np.array([2, 3]), "flat": np.array([-1]),
    "false": np.array(False), "half": np.float32(0.5), "true": np.array(True),
}  # fmt: skip


@pytest.mark.parametrize(
    ("node", "goes"),
    [
        ("Identity(a)", True),
        ("Cast<to=1>(a)", True),
        ("Cast<to=11>(a)", False),
        ("Transpose<perm=[0,1]>(a)", True),
        ("Transpose<perm=[1,0]>(a)", False),
        ("Pad(a, no_pads)", True),
        ("Pad(a, pads)", False),
        ("Dropout(a)", True),
        ("Dropout(a, half, false)", True),
        ("Dropout(a, half, true)", False),
        ("Concat<axis=0>(a)", True),
        ("Reshape(a, same)", True),
        ("Reshape(a, flat)", False),
        ("Add(a, zero)", True),
        ("Mul(a, one)", True),
        ("Div(a, one)", True),
        ("Mul(a, zero)", False),
        ("Mul(a, wide)", False),  # adds an axis
    ],
)
def test_only_what_does_nothing_goes(parse, run, node: str, goes: bool) -> None:
    text = f"g (float[2,3] x) => (y) {{ a = Relu(x) b = {node} c = Cast<to=1>(b) y = Neg(c) }}"
    model = parse(text, **{k: np.asarray(v) for k, v in WEIGHTS.items()})
    op = node.split("(")[0].split("<")[0]
    count = sum(n.op == op for n in model.graph.nodes)
    x = np.ones((2, 3), np.float32)
    before = run(model, x=x)[0]
    remove_noops(model, infer_shapes(model))
    sweep(model)
    kept = [n.op for n in model.graph.nodes]
    assert (kept.count(op) < count if op != "Cast" else len(kept) == 2) is goes
    if "true" not in node:  # that one is random
        np.testing.assert_array_equal(run(model, x=x)[0], before)


def test_the_output_keeps_its_name(parse) -> None:
    model = parse("g (float[2,3] x) => (float[2,3] y) { a = Relu(x) y = Identity(a) }")
    remove_noops(model, infer_shapes(model))
    sweep(model)
    assert ([n.op for n in model.graph.nodes], model.outputs) == (["Relu"], ("y",))


@pytest.mark.parametrize(
    "text",
    [
        "g (float[2] x) => (float[2] y) { y = Identity(x) }",
        "g (float[2] x) => (float[2] y, float[2] z) { y = Relu(x) z = Identity(y) }",
    ],
)
def test_two_names_of_one_thing_both_stay(parse, run, text: str) -> None:
    model = parse(text)
    before = run(model, x=np.ones(2, np.float32))
    remove_noops(model, infer_shapes(model))
    sweep(model)
    for a, b in zip(run(model, x=np.ones(2, np.float32)), before, strict=True):
        np.testing.assert_array_equal(a, b)
