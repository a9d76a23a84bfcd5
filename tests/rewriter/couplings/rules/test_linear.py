import numpy as np
import pytest

from onnxpress.rewriter.couplings import find_couplings, remove_units


def f32(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def groups(model) -> dict[str, str | None]:
    return {group.name: group.frozen for group in find_couplings(model).groups}


# Each graph ends in a layer with the weight `last`, in front of which `size` units may go.
@pytest.mark.parametrize(
    ("body", "weights", "size"),
    [
        ("h = Conv<pads=[1,1,1,1]>(x, w, b)", {"w": f32(6, 4, 3, 3), "b": f32(6)}, 6),
        ("h = Conv(x, w)", {"w": f32(6, 4, 1, 1)}, 6),
        ("h = Conv<group=4>(a, w, b)", {"w": f32(8, 1, 1, 1), "b": f32(8)}, 4),
        ("h = Conv<group=4>(a, w, b)", {"w": f32(4, 1, 1, 1), "b": f32(4)}, 4),
        ("h = Conv<group=2>(a, w, b)", {"w": f32(6, 2, 1, 1), "b": f32(6)}, 2),
        ("h = ConvTranspose<pads=[1,1,1,1]>(x, w, b)", {"w": f32(4, 6, 3, 3), "b": f32(6)}, 6),
        ("h = ConvTranspose<group=4>(a, w)", {"w": f32(4, 1, 1, 1)}, 4),
        ("h = ConvTranspose<group=4>(a, w, b)", {"w": f32(4, 3, 1, 1), "b": f32(12)}, 4),
    ],
)
def test_removes_channels_of_convolutions(
    parse, thin_sizes, body: str, weights: dict[str, np.ndarray], size: int
) -> None:
    width = len(weights["b"]) if "b" in weights else weights["w"].shape[0]
    model = parse(
        f"g (float[1,4,5,5] x) => (float[1,3,5,5] y) {{ a = Conv(x, first) {body} r = Relu(h) y = Conv(r, last) }}",
        first=f32(4, 4, 1, 1),
        last=f32(3, width, 1, 1),
        **weights,
    )
    found = thin_sizes(model, x=f32(1, 4, 5, 5))
    assert size in found.values()


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_loses_the_same_channel_of_each_group_where_groups_are_few(parse, thin_sizes, op: str) -> None:
    model = parse(
        "g (float[1,3,4,4] x) => (float[1,2,4,4] y) { a = Conv(x, first) "
        f"h = {op}<group=2>(a, w, b) y = Conv(h, last) }}",
        first=f32(12, 3, 1, 1),
        w=f32(8, 6, 1, 1) if op == "Conv" else f32(12, 4, 1, 1),
        b=f32(8),
        last=f32(2, 8, 1, 1),
    )
    outputs = find_couplings(model).by_name("w").members
    assert next(m.indices.tolist() for m in outputs if m.tensor.name == "b") == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert thin_sizes(model, x=f32(1, 3, 4, 4)) == {"first": 6, "w": 4}
    assert [node.attrs["group"] for node in model.graph.nodes if node.op == op and node.attrs] == [2]


def test_counts_the_groups_that_are_left(parse, thin_sizes) -> None:
    model = parse(
        "g (float[1,3,4,4] x) => (float[1,2,4,4] y) { a = Conv(x, first) h = Conv<group=6>(a, w) y = Conv(h, last) }",
        first=f32(12, 3, 1, 1),
        w=f32(18, 2, 1, 1),
        last=f32(2, 18, 1, 1),
    )
    assert groups(model)["w:1"] == "Conv 'h' can lose whole groups, not channels within them"
    assert thin_sizes(model, x=f32(1, 3, 4, 4)) == {"first": 6}
    assert [node.attrs.get("group") for node in model.graph.nodes] == [None, 3, None]


def test_a_group_of_a_convolution_of_unknown_width_stays(parse) -> None:
    model = parse(
        "g (float[1,c,4,4] x) => (float[1,8,4,4] y) { y = Conv<group=4>(x, w) }",
        w=f32(8, 1, 1, 1),
    )
    assert all(groups(model).values())


@pytest.mark.parametrize(
    "bias", [f32(6), f32(1, 6), f32(1), np.float32(1), f32(2, 1), None], ids=["6", "1x6", "1", "scalar", "2x1", "none"]
)
@pytest.mark.parametrize("turned", [0, 1])
def test_removes_neurons_of_gemm(parse, thin_sizes, bias: np.ndarray | None, turned: int) -> None:
    call = f"Gemm<transB={turned}>(x, w{'' if bias is None else ', b'})"
    model = parse(
        f"g (float[2,4] x) => (float[2,3] y) {{ h = {call} y = Gemm(h, last) }}",
        w=f32(6, 4) if turned else f32(4, 6),
        last=f32(6, 3),
        **({} if bias is None else {"b": np.asarray(bias)}),
    )
    assert thin_sizes(model, x=f32(2, 4)) == {"w": 6}


def test_gemm_may_read_its_left_factor_transposed(parse, thin_sizes) -> None:
    model = parse(
        "g (float[4,2] x) => (float[2,3] y) { h = Gemm<transA=1>(w, x) y = Gemm<transA=1>(h, last) }",
        w=f32(4, 6),
        last=f32(6, 3),
    )
    assert thin_sizes(model, x=f32(4, 2)) == {"w": 6}


@pytest.mark.parametrize(("shape", "result"), [((4, 6), "a,b,c"), ((2, 4, 6), "a,b,c"), ((5, 1, 4, 6), "a,b,c,d")])
def test_removes_neurons_of_matmul_of_any_rank(parse, thin_sizes, shape: tuple[int, ...], result: str) -> None:
    model = parse(
        f"g (float[2,3,4] x) => (float[{result}] y) {{ h = MatMul(x, w) y = MatMul(h, last) }}",
        w=f32(*shape),
        last=f32(6, 3),
    )
    assert thin_sizes(model, x=f32(2, 3, 4)) == {"w": 6}


def test_independent_matrices_go_with_what_they_multiply(parse, thin_sizes) -> None:
    model = parse(
        "g (float[2,4] x) => (float[2,3] y) { a = MatMul(x, first) r = Reshape(a, apart) "
        "t = Transpose<perm=[1,0,2]>(r) h = MatMul(t, w) u = Transpose<perm=[1,0,2]>(h) "
        "f = Flatten(u) y = MatMul(f, last) }",
        first=f32(4, 20),
        apart=np.array([2, 5, 4]),
        w=f32(5, 4, 6),
        last=f32(30, 3),
    )
    assert thin_sizes(model, x=f32(2, 4)) == {"first": 5}
    assert {t.name: t.shape for t in model.constants() if t.name in ("first", "w", "last")} == {
        "first": (4, 8), "w": (2, 4, 6), "last": (12, 3),
    }  # fmt: skip


def test_matmul_takes_vectors_on_either_side(parse, thin_sizes) -> None:
    model = parse(
        "g (float[4] x) => (float y) { h = MatMul(x, w) y = MatMul(h, last) }",
        w=f32(4, 6),
        last=f32(6),
    )
    chosen = {g.name: [m.tensor.name for m in g.members] for g in find_couplings(model).groups if g.frozen is None}
    assert chosen == {"w": ["w", "h", "last"]}
    thin_sizes(model, x=f32(4))


def test_weights_on_the_left_lose_rows(parse, thin_sizes) -> None:
    text = "g (float[4,2] x) => (float[3,2] y) { h = MatMul(w, x) y = MatMul(last, h) }"
    model = parse(text, w=f32(6, 4), last=f32(3, 6))
    assert thin_sizes(model, x=f32(4, 2)) == {"w": 6}


def test_a_tensor_times_its_own_transpose_sums_over_one_axis(parse, thin_sizes) -> None:
    model = parse(
        "g (float[1,5,4] x) => (float[1,5,5] y) { h = MatMul(x, w) t = Transpose<perm=[0,2,1]>(h) y = MatMul(h, t) }",
        w=f32(4, 6),
    )
    assert thin_sizes(model, x=f32(1, 5, 4)) == {"w": 6}


def test_a_square_tensor_times_itself_loses_row_and_column_together(parse) -> None:
    model = parse(
        "g (float[6,4] x) => (float[3,3] y) "
        "{ h = MatMul(rows, x) s = MatMul(h, columns) q = MatMul(s, s) p = MatMul(left, q) y = MatMul(p, right) }",
        rows=f32(5, 6),
        columns=f32(4, 5),
        left=f32(3, 5),
        right=f32(5, 3),
    )
    both = find_couplings(model).by_name("rows")
    assert both.frozen is None
    assert {(m.tensor.name, m.axis) for m in both.members} >= {
        ("rows", 0),
        ("columns", 1),
        ("s", 0),
        ("s", 1),
        ("q", 1),
    }
    remove_units(model, {both: np.array([1, 3])})
    assert {t.name: t.shape for t in model.constants()} == {
        "rows": (3, 6), "columns": (4, 3), "left": (3, 3), "right": (3, 3),
    }  # fmt: skip


def test_weights_that_depend_on_each_sample_are_tied_as_well(parse, thin_sizes) -> None:
    model = parse(
        "g (float[2,4] x, float[4,4] z) => (float[2,3] y) { k = MatMul(z, w) h = MatMul(x, k) y = MatMul(h, last) }",
        w=f32(4, 6),
        last=f32(6, 3),
    )
    assert thin_sizes(model, x=f32(2, 4), z=f32(4, 4)) == {"w": 6}


@pytest.mark.parametrize(
    ("equation", "weight"),
    [
        ("bd,de->be", f32(4, 6)),
        ("bd,ed", f32(6, 4)),
        ("...d,de->...e", f32(4, 6)),
        (" b d , e d -> b e ", f32(6, 4)),
        ("bd,de,e->be", f32(4, 6)),
    ],
)
def test_einsum_goes_by_letters(parse, thin_sizes, equation: str, weight: np.ndarray) -> None:
    scale = ", scale" if equation.count(",") > 1 else ""
    model = parse(
        f"g (float[2,4] x) => (float[2,3] y) {{ a = MatMul(x, first) "
        f'h = Einsum<equation="{equation}">(a, w{scale}) y = MatMul(h, last) }}',
        first=f32(4, 4),
        w=weight,
        scale=f32(6),
        last=f32(6, 3),
    )
    assert thin_sizes(model, x=f32(2, 4)) == {"first": 4, f"w:{weight.shape.index(6)}": 6}


@pytest.mark.parametrize(
    ("equation", "result"), [("bd,ef->b", "2"), ("bd,ee->bd", "2,6"), ("b1,1e->be", "2,6"), ("bd->bd", "2,6")]
)
def test_einsum_freezes_what_it_sums_alone_or_nobody_understands(parse, equation: str, result: str) -> None:
    model = parse(
        f'g (float[2,4] x) => (float[{result}] y) {{ a = MatMul(x, w) y = Einsum<equation="{equation}">(a, v) }}',
        w=f32(4, 6),
        v=f32(6, 6),
    )
    assert all(frozen is not None for frozen in groups(model).values())


@pytest.mark.parametrize("equation", ["bij,ij->b", "bii,i->b"])
def test_einsum_contracts_several_letters(parse, remove_exactly, equation: str) -> None:
    model = parse(
        "g (float[2,4] x) => (float[2] y) { a = MatMul(x, w) r = Reshape(a, square) "
        f'y = Einsum<equation="{equation}">(r, v) }}',
        w=f32(4, 9),
        square=np.array([2, 3, 3]),
        v=f32(3, 3) if "ij" in equation else f32(3),
    )
    free = [group for group in find_couplings(model).groups if group.frozen is None]
    remove_exactly(model, {group: np.array([1]) for group in free}, x=f32(2, 4))
