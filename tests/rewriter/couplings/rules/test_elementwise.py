import ml_dtypes
import numpy as np
import onnx.defs
import pytest

from onnxpress.rewriter.couplings import find_couplings
from onnxpress.rewriter.couplings.rules import RULES
from onnxpress.rewriter.couplings.rules.elementwise import link_broadcast, link_unary


def f32(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def between(parse, body: str, *, opset: int = 17, **weights: np.ndarray):
    """A model with six channels h, and what `body` makes of them, r, in front of the last layer."""
    return parse(
        f"g (float[1,4,5,5] x) => (float[1,3,5,5] y) {{ h = Conv(x, w) {body} y = Conv(r, last) }}",
        opset=opset,
        w=f32(6, 4, 1, 1),
        last=f32(3, 6, 1, 1),
        **weights,
    )


X = {"x": f32(1, 4, 5, 5)}


@pytest.mark.parametrize(
    "body",
    [
        "r = Relu(h)",
        "r = HardSwish(h)",
        "r = Clip(h, low)",
        "r = Clip(h, , low)",
        "r = Dropout(h)",
        "r, mask = Dropout(h)",
        "a = Cast<to=10>(h) r = Cast<to=1>(a)",
        "r = CastLike(h, vector)",
        "m = IsNaN(h) r = Where(m, low, h)",
        "m = Greater(h, vector) r = Where(m, h, vector)",
        "r = Add(h, h)",
        "r = Max(h, vector, low, h)",
        "r = Sum(h)",
        "r = PRelu(h, vector)",
        "r = Sub(vector, h)",
        "r = Mod<fmod=1>(h, divisor)",
        "c = Cast<to=7>(h) d = Cast<to=1>(c) r = Pow(d, two)",
    ],
)
def test_passes_channels_on(parse, thin_sizes, body: str) -> None:
    one = np.float32(1)
    model = between(
        parse, body, low=np.array(-one), two=np.array(2 * one), vector=f32(6, 1, 1), divisor=abs(f32(6, 1, 1)) + 1
    )
    assert thin_sizes(model, **X) == {"w": 6}


@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 6, 1, 1), (6, 5, 5), (6, 1, 5)])
def test_slices_a_constant_of_any_rank(parse, thin_sizes, shape: tuple[int, ...]) -> None:
    model = between(parse, "r = Mul(h, c)", c=f32(*shape))
    assert thin_sizes(model, **X) == {"w": 6}
    sliced = next(t for t in model.constants() if t.name == "c")
    assert sliced.shape == tuple(3 if size == 6 else size for size in shape)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (5, 1), (1, 1, 5, 5)])
def test_leaves_a_constant_that_is_the_same_for_all_channels(parse, thin_sizes, shape: tuple[int, ...]) -> None:
    model = between(parse, "r = Mul(h, c)", c=f32(*shape) if shape else np.array(2, np.float32))
    assert thin_sizes(model, **X) == {"w": 6}
    assert next(t for t in model.constants() if t.name == "c").shape == shape


def test_does_not_tie_a_single_channel_that_is_repeated(parse, thin_sizes) -> None:
    model = between(parse, "g = Conv(x, one) r = Mul(h, g)", one=f32(1, 4, 1, 1))
    assert thin_sizes(model, **X) == {"w": 6}
    assert find_couplings(model).by_name("one").frozen == "it is a single unit: nothing would be left"


def test_a_unit_lies_on_both_axes_of_a_constant_square(parse, thin_sizes) -> None:
    model = parse(
        "g (float[4,4] x) => (float[3,3] y) "
        "{ a = MatMul(x, w) t = Transpose(a) h = MatMul(t, a) s = Mul(h, square) "
        "l = MatMul(left, s) y = MatMul(l, right) }",
        w=f32(4, 6),
        square=f32(6, 6),
        left=f32(3, 6),
        right=f32(6, 3),
    )
    assert thin_sizes(model, x=f32(4, 4)) == {"w": 6}
    assert next(t for t in model.constants() if t.name == "square").shape == (3, 3)


def test_an_axis_that_may_be_one_or_more_freezes_what_it_meets(parse) -> None:
    model = parse(
        "g (float[2,4] x, float[2,c] z) => (float[2,3] y) { h = MatMul(x, w) r = Add(h, z) y = MatMul(r, last) }",
        w=f32(4, 6),
        last=f32(6, 3),
    )
    assert find_couplings(model).by_name("w").frozen == "Add 'r' meets an axis whose size is not fixed"


def test_old_opsets_that_align_by_attributes_freeze(parse) -> None:
    model = between(parse, "r = Add<broadcast=1, axis=1>(h, c)", opset=6, c=f32(6))
    assert "opset 6 and older" in str(find_couplings(model).by_name("w").frozen)


def test_old_opsets_may_add_equal_shapes(parse) -> None:
    model = between(parse, "r = Add(h, h)", opset=6)
    assert find_couplings(model).by_name("w").frozen is None


@pytest.mark.parametrize(
    ("scale", "attribute"), [(f32(6), "<axis=1>"), (f32(6), "<axis=-3>"), (np.float32(0.1), ""), (np.full(1, 0.1), "")]
)
def test_scales_of_codes_go_with_their_channels(parse, thin_sizes, scale: np.ndarray, attribute: str) -> None:
    codes = f"q = QuantizeLinear{attribute}(h, divisor, zero) r = DequantizeLinear{attribute}(q, divisor, zero)"
    divisor = np.abs(np.asarray(scale, np.float32)) + np.float32(0.1)
    model = between(parse, codes, divisor=divisor, zero=np.zeros(divisor.shape, np.uint8))
    assert thin_sizes(model, **X) == {"w": 6}


def test_codes_of_weights_are_sliced_with_their_scales(parse, remove_exactly) -> None:
    rows = np.random.default_rng(0).integers(-9, 9, (6, 6)).astype(np.int8)
    model = parse(
        "g (float[2,4] x) => (float[2,3] y) "
        "{ h = MatMul(x, w) v = DequantizeLinear<axis=1>(codes, divisor) m = MatMul(h, v) y = MatMul(m, last) }",
        w=f32(4, 6),
        codes=rows,
        divisor=abs(f32(6)) + 1,
        last=f32(6, 3),
    )
    found = find_couplings(model)
    chosen = {group: np.array([1, 4]) for group in found.groups if group.frozen is None}
    before = {group.name: {(m.tensor.name, m.axis) for m in group.members} for group in chosen}
    assert before["w"] >= {("w", 1), ("codes", 0), ("v", 0)}
    assert before["codes:1"] >= {("codes", 1), ("divisor", 0), ("last", 0)}
    remove_exactly(model, chosen, x=f32(2, 4))


def test_a_scale_for_each_block_keeps_the_axis_of_blocks(parse) -> None:
    model = parse(
        "g (float[2,4] x) => (float[2,3] y) "
        "{ h = MatMul(x, w) v = DequantizeLinear<axis=0, block_size=2>(codes, scale) "
        "m = MatMul(h, v) y = MatMul(m, last) }",
        opset=21,
        ir=10,
        w=f32(4, 6),
        codes=np.ones((6, 6), np.int8),
        scale=f32(3, 6),
        last=f32(6, 3),
    )
    groups = find_couplings(model).groups
    assert [g.frozen is None for g in groups if any(m.tensor.name == "last" and m.axis == 0 for m in g.members)] == [
        True
    ]
    assert "one scale for a block" in str(find_couplings(model).by_name("w").frozen)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64, np.int32])
def test_slices_constants_of_any_type(parse, dtype: type) -> None:
    from onnxpress.rewriter.couplings import remove_units

    kind = {np.float16: 10, ml_dtypes.bfloat16: 16, np.float64: 11, np.int32: 6}[dtype]
    body = f"a = Cast<to={kind}>(h) b = Add(a, c) r = Cast<to=1>(b)"
    model = between(parse, body, c=np.arange(6).reshape(6, 1, 1).astype(dtype))
    remove_units(model, {find_couplings(model).by_name("w"): np.array([0, 4])})
    kept = next(t for t in model.constants() if t.name == "c")
    assert model.array(kept).dtype == dtype
    assert model.array(kept).reshape(-1).astype(int).tolist() == [1, 2, 3, 5]


OTHERWISE = {"Einsum", "Gemm", "LayerNormalization", "RMSNormalization", "StringConcat", "SwiGLU"}
"""Operators that onnx describes with the words below, but that sum, normalise, join strings or halve an axis."""


def test_operators_that_work_on_each_element_have_the_rule_of_their_kind() -> None:
    described = {schema.name: schema.doc.lower() for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    words = ("element-wise", "elementwise", "broadcasting")
    expected = {op for op, text in described.items() if any(word in text for word in words)} - OTHERWISE
    expected |= {"Cast", "Clip", "Dropout", "Identity", "IsInf", "IsNaN", "Shrink"}
    found = {op for (domain, op), rule in RULES.items() if domain == "" and rule.link in (link_unary, link_broadcast)}
    current = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.deprecated}
    assert expected & current <= found
    assert len(expected & current) > 60
    assert found - expected <= {"Swish"}
