import numpy as np
import pytest

from onnxpress.rewriter.sites import find_sites, select


def f32(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("node", "inputs", "weight", "axes"),
    [
        ("Conv(x, w)", "float[1,4,8,8] x", f32(6, 4, 3, 3), ("out", "in", "kernel", "kernel")),
        ("ConvTranspose(x, w)", "float[1,4,8,8] x", f32(4, 6, 3, 3), ("in", "out", "kernel", "kernel")),
        ("Gemm(x, w)", "float[2,4] x", f32(4, 6), ("in", "out")),
        ("Gemm<transB=1>(x, w)", "float[2,4] x", f32(6, 4), ("out", "in")),
        ("MatMul(x, w)", "float[2,4] x", f32(4, 6), ("in", "out")),
        ("MatMul(w, x)", "float[4,2] x", f32(6, 4), ("out", "in")),
        ("MatMul(x, w)", "float[5,2,4] x", f32(5, 4, 6), ("batch", "in", "out")),
        ("Gather(w, x)", "int64[2] x", f32(9, 4), ("in", "out")),
        ("LSTM<hidden_size=3>(x, w, r)", "float[7,1,4] x", f32(1, 12, 4), ("batch", "out", "in")),
    ],
)
def test_says_what_the_axes_of_a_weight_mean(
    parse, node: str, inputs: str, weight: np.ndarray, axes: tuple[str, ...]
) -> None:
    model = parse(f"g ({inputs}) => (float y) {{ y = {node} }}", w=weight, r=f32(1, 12, 3))
    site = find_sites(model)[0]
    assert site.axes == axes
    assert site.shape == weight.shape
    np.testing.assert_array_equal(site.array(), weight)


def test_a_shared_weight_is_one_site(parse) -> None:
    model = parse(
        "g (int64[2] i) => (float[2,9] y) { e = Gather(w, i) y = MatMul(e, w2) z = MatMul(e, w2) }",
        w=f32(9, 4),
        w2=f32(4, 9),
    )
    sites = find_sites(model)
    assert [(s.op, len(s.uses)) for s in sites] == [("Gather", 1), ("MatMul", 2)]


def test_finds_weights_in_branches(parse) -> None:
    model = parse(
        "g (float[2,4] x, bool c) => (float[2,4] y) { y = If (c) "
        "<then_branch = t () => (float[2,4] b) { b = MatMul(x, w) }, "
        "else_branch = e () => (float[2,4] d) { d = Abs(x) }> }",
        w=f32(4, 4),
    )
    assert [s.uses[0].graph is not model.graph for s in find_sites(model)] == [True]


@pytest.mark.parametrize("weight", [f32(4), f32(4, 4).astype(np.int8)], ids=["vector", "int8"])
def test_leaves_what_is_no_weight(parse, weight: np.ndarray) -> None:
    assert not find_sites(parse("g (float[2,4] x) => (float y) { y = MatMul(x, w) }", w=weight))


def test_names_are_unique_and_select_by_glob(parse) -> None:
    model = parse(
        "g (float[7,1,4] x) => (float y) { y = LSTM<hidden_size=3>(x, w, r) }", w=f32(1, 12, 4), r=f32(1, 12, 3)
    )
    sites = find_sites(model)
    assert len({s.name for s in sites}) == 2
    assert [s.weight.name for s in select(sites, include=["LSTM"], exclude=["*r"])] == ["w"]
