import numpy as np
import pytest

from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.rules.padding import fold_padding
from onnxpress.rewriter.shapes import infer_shapes

X = np.random.default_rng(0).standard_normal((1, 3, 6, 7)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((4, 3, 3, 3)).astype(np.float32)


def fold(parse, run, text: str, pads: list[int], value: float = 0.0):
    model = parse(
        f"g (float[1,3,6,7] x) => (float y) {{ {text} }}", w=W, p=np.array(pads), v=np.array(value, np.float32)
    )
    before = run(model, x=X)[0]
    fold_padding(model, infer_shapes(model))
    sweep(model)
    np.testing.assert_allclose(run(model, x=X)[0], before, rtol=1e-5, atol=1e-5)
    return [n.op for n in model.graph.nodes]


@pytest.mark.parametrize("pad", ["Pad(x, p)", "Pad(x, p, v)", 'Pad<mode="constant">(x, p)'])
@pytest.mark.parametrize(
    "conv", ["Conv(a, w)", "Conv<pads=[1,0,1,2], strides=[2,1]>(a, w)", 'Conv<auto_pad="VALID">(a, w)']
)
def test_folds_zeros_around(parse, run, pad: str, conv: str) -> None:
    assert fold(parse, run, f"a = {pad} y = {conv}", [0, 0, 1, 2, 0, 0, 3, 0]) == ["Conv"]


@pytest.mark.parametrize(
    ("text", "pads", "value"),
    [
        ("a = Pad(x, p, v) y = Conv(a, w)", [0, 0, 1, 1, 0, 0, 1, 1], 1.0),
        ('a = Pad<mode="edge">(x, p) y = Conv(a, w)', [0, 0, 1, 1, 0, 0, 1, 1], 0.0),
        ("a = Pad(x, p) y = Conv(a, w)", [0, 0, -1, 1, 0, 0, 1, 1], 0.0),
        ('a = Pad(x, p) y = Conv<auto_pad="SAME_UPPER">(a, w)', [0, 0, 1, 1, 0, 0, 1, 1], 0.0),
        ("a = Pad(x, p) y = MaxPool<kernel_shape=[2,2]>(a)", [0, 0, 1, 1, 0, 0, 1, 1], 0.0),
    ],
)
def test_leaves_other_pads(parse, run, text: str, pads: list[int], value: float) -> None:
    assert len(fold(parse, run, text, pads, value)) == 2


def test_a_pad_that_others_read_stays_for_them(parse, run) -> None:
    ops = fold(parse, run, "a = Pad(x, p) b = Conv(a, w) c = ReduceSum(a) y = Add(b, c)", [0, 0, 1, 1, 0, 0, 1, 1])
    assert ops.count("Pad") == 1
