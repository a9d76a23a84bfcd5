import numpy as np
import pytest

from onnxpress.rewriter.couplings import find_couplings


def f32(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def between(parse, body: str, *, opset: int = 17, **weights: np.ndarray):
    """A model with eight channels h, and what `body` makes of them, r, in front of the last layer."""
    return parse(
        f"g (float[2,4,5,5] x) => (float[a,b,c,d] y) {{ h = Conv(x, w) {body} y = Conv(r, last) }}",
        opset=opset,
        w=f32(8, 4, 1, 1),
        last=f32(3, 8, 1, 1),
        **weights,
    )


X = {"x": f32(2, 4, 5, 5)}
C = {"scale": f32(8), "shift": f32(8), "mean": f32(8), "divisor": abs(f32(8)) + 1}


@pytest.mark.parametrize(
    ("body", "opset", "units"),
    [
        ("r = BatchNormalization(h, scale, shift, mean, divisor)", 17, 8),
        ("r = InstanceNormalization<epsilon=0.1>(h, scale, shift)", 17, 8),
        ("r = GroupNormalization<num_groups=4, epsilon=0.1>(h, scale, shift)", 21, 4),
        ("r = Softmax<axis=2>(h)", 17, 8),
        ("r = LogSoftmax<axis=-1>(h)", 13, 8),
        ("r = Softmax<axis=2>(h)", 11, 8),
        ("r = LpNormalization<axis=3>(h)", 17, 8),
        ("a = Add(h, s) r = MeanVarianceNormalization<axes=[2,3]>(a)", 17, 8),
        ("r = CumSum(h, two)", 17, 8),
        ("r = ReduceMean<axes=[2,3]>(h)", 17, 8),
        ("r = ReduceMean(h, axes)", 18, 8),
        ("r = ReduceMax<axes=[-1]>(h)", 11, 8),
        ("r = ReduceSum(h, axes)", 13, 8),
        ("r = ReduceSum<noop_with_empty_axes=1>(h)", 13, 8),
        ("m = ReduceL2<axes=[2,3], keepdims=0>(h) r = Unsqueeze(m, axes)", 17, 8),
        ("i = ArgMax<axis=3>(h) r = Cast<to=1>(i)", 17, 8),
        ("r, i = TopK<axis=2>(h, k)", 17, 8),
        ("r = LayerNormalization<axis=2>(h, s)", 17, 8),
        ("r = Trilu<upper=0>(h)", 17, 8),
        (
            "t = Transpose<perm=[0,2,1,3]>(h) u = ReverseSequence<time_axis=1, batch_axis=0>(t, lengths) "
            "r = Transpose<perm=[0,2,1,3]>(u)",
            17,
            8,
        ),
    ],
)
def test_leaves_channels_free_that_it_does_not_mix(parse, thin_sizes, body: str, opset: int, units: int) -> None:
    more = {
        "two": np.array(2),
        "axes": np.array([2, 3]),
        "k": np.array([2]),
        "s": f32(5, 5),
        "lengths": np.array([5, 2]),
    }
    model = between(parse, body, opset=opset, **C, **more)
    assert thin_sizes(model, **X) == {"w": units}


@pytest.mark.parametrize("keep", [0, 1])
def test_what_stands_behind_a_reduced_axis_is_tied(parse, thin_sizes, keep: int) -> None:
    model = parse(
        f"g (float[2,5,4] x) => (float[{'2,1,3' if keep else '2,3'}] y) "
        f"{{ h = MatMul(x, w) m = ReduceMean<axes=[1], keepdims={keep}>(h) y = MatMul(m, last) }}",
        w=f32(4, 6),
        last=f32(6, 3),
    )
    assert thin_sizes(model, x=f32(2, 5, 4)) == {"w": 6}


def test_groups_may_share_a_scale(parse, thin_sizes) -> None:
    model = between(
        parse,
        "r = GroupNormalization<num_groups=4, epsilon=0.1>(h, scale, shift)",
        opset=18,
        scale=f32(4),
        shift=f32(4),
    )
    assert thin_sizes(model, **X) == {"w": 4}
    norm = next(node for node in model.graph.nodes if node.op == "GroupNormalization")
    assert (norm.attrs["num_groups"], norm.inputs[1].shape) == (2, (2,))


@pytest.mark.parametrize(
    ("body", "opset", "reason"),
    [
        ("r = LayerNormalization<axis=1>(h, s)", 17, "looks at axis 1 as a whole: mean and variance would change"),
        ("r = LayerNormalization<axis=-3>(h, s)", 17, "looks at axis 1 as a whole"),
        ("r = GroupNormalization<num_groups=1>(h, scale, shift)", 21, "looks at axis 1 as a whole"),
        ("r = Softmax<axis=1>(h)", 17, "looks at axis 1 as a whole: the elements that stay would change"),
        ("r = Softmax(h)", 11, "looks at axis 1 as a whole"),
        ("r = Hardmax<axis=-3>(h)", 13, "looks at axis 1 as a whole"),
        ("r = LpNormalization<axis=1>(h)", 17, "looks at axis 1 as a whole"),
        ("r = LRN<size=3>(h)", 17, "looks at axis 1 as a whole"),
        ("r = MeanVarianceNormalization<axes=[0,1,2,3]>(h)", 17, "looks at axis 1 as a whole"),
        ("r = CumSum(h, one)", 17, "looks at axis 1 as a whole"),
        ("n = ReduceMin(x) i = Cast<to=7>(n) z = Mul(i, zero) r = CumSum(h, z)", 17, "its axis is computed"),
        ("m = ReduceMean<axes=[1]>(h) r = Mul(h, m)", 17, "reduces axis 1 of 'h'"),
        ("m = ReduceMean(h) r = Mul(h, m)", 17, "reduces axis 1 of 'h'"),
        ("m = ReduceSum(h, one1) r = Mul(h, m)", 13, "reduces axis 1 of 'h'"),
        ("n = ReduceMin(x) i = Cast<to=7>(n) m = ReduceSum(h, i) r = Mul(h, m)", 13, "its axes are computed"),
        ("i = ArgMin<axis=1>(h) f = Cast<to=1>(i) r = Add(h, f)", 17, "reduces axis 1 of 'h'"),
        ("r, i = TopK<axis=1>(h, eight)", 17, "compares the elements of axis 1"),
        ("r = ReverseSequence<time_axis=1, batch_axis=0>(h, lengths)", 17, "looks at axis 1 as a whole"),
        ("t = Transpose<perm=[0,2,1,3]>(h) u = Trilu(t) r = Transpose<perm=[0,2,1,3]>(u)", 17, "Trilu"),
    ],
)
def test_freezes_what_it_looks_at_whole(parse, body: str, opset: int, reason: str) -> None:
    numbers = {"one": np.array(1), "one1": np.array([1]), "zero": np.array(0), "eight": np.array([8])}
    numbers["lengths"] = np.array([8, 2])
    model = between(parse, body, opset=opset, **C, **numbers, s=f32(8, 5, 5))
    assert reason in str(find_couplings(model).by_name("w").frozen)


def test_a_norm_learned_in_training_keeps_the_batch(parse) -> None:
    model = parse(
        "g (float[4] x) => (float[3,5] y) { r = Reshape(x, column) h = MatMul(w, r) "
        "b, m, v = BatchNormalization<training_mode=1>(h, scale, shift, mean, var) y = MatMul(last, b) }",
        column=np.array([4, 1]),
        w=f32(6, 4),
        last=f32(3, 6),
        scale=f32(1),
        shift=f32(1),
        mean=f32(1),
        var=f32(1),
    )
    assert "mean and variance would change" in str(find_couplings(model).by_name("w").frozen)


def test_a_mean_for_each_position_freezes(parse) -> None:
    model = between(parse, "r = BatchNormalization<spatial=0>(h, scale, shift, mean, divisor)", opset=8, **C)
    assert "a mean for each position" in str(find_couplings(model).by_name("w").frozen)
