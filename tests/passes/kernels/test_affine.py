import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels import affine
from onnxpress.passes.kernels.affine import (
    INT7_SYMMETRIC,
    INT8,
    INT8_SYMMETRIC,
    UINT8,
    Grid,
    affine_scale,
    dequantize,
    largest_magnitude,
    quantize,
    quantize_bias,
    scale_for_bias,
    symmetric_scale,
    value_range,
)

modest = settings(deadline=None, derandomize=True, max_examples=60)
seeds = st.integers(0, 10_000)
dtypes = st.sampled_from([np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
shapes = st.sampled_from([(), (1,), (7,), (3, 4), (5, 2, 3), (4, 3, 2, 2)])
UINT16 = Grid(0, 65535, np.dtype(np.uint16))
INT3 = Grid(-4, 3, np.dtype(np.int8))
grids = st.sampled_from([UINT8, INT8, INT8_SYMMETRIC, INT7_SYMMETRIC, INT3, UINT16])
magnitudes = st.floats(0, 1e38, allow_subnormal=True)


def normal(seed, shape, dtype=np.float32):
    return np.asarray(np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


@modest
@given(seed=seeds, shape=shapes, dtype=dtypes, grid=grids)
def test_error_is_at_most_a_step(seed, shape, dtype, grid):
    weight = normal(seed, shape, dtype)
    axis = seed % len(shape) if shape and seed % 2 else None
    low, high = value_range(weight, axis=axis)
    scale, zero = affine_scale(low, high, grid)
    back = dequantize(quantize(weight, scale, zero, grid=grid, axis=axis), scale, zero, axis=axis)
    lost = np.abs(back.astype(np.float64) - weight.astype(np.float64))
    # half a step of rounding, and at the ends half a step for the zero point; float32 rounding of the values on top
    steps = scale if axis is None else scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    assert (lost <= steps * 1.01).all()


@modest
@given(seed=seeds, shape=shapes, dtype=dtypes)
def test_symmetric_error_is_at_most_half_a_step(seed, shape, dtype):
    weight = normal(seed, shape, dtype)
    scale = symmetric_scale(largest_magnitude(weight, axis=None), INT8_SYMMETRIC)
    back = dequantize(quantize(weight, scale, grid=INT8_SYMMETRIC), scale)
    # float32 division and product
    assert (np.abs(back - weight.astype(np.float64)) <= scale * 0.5001).all()


@modest
@given(low=magnitudes, high=magnitudes, grid=grids)
def test_zero_is_exact_and_scales_are_normal(low, high, grid):
    scale, zero = affine_scale(-low, high, grid)
    assert scale >= np.finfo(np.float32).tiny
    assert zero.dtype == grid.dtype
    assert dequantize(quantize(np.zeros(1), scale, zero, grid=grid), scale, zero) == 0


@modest
@given(seed=seeds, grid=grids)
def test_quantizing_again_changes_nothing(seed, grid):
    weight = normal(seed, (4, 9))
    scale, zero = affine_scale(*value_range(weight, axis=0), grid)
    once = dequantize(quantize(weight, scale, zero, grid=grid, axis=0), scale, zero, axis=0)
    twice = dequantize(quantize(once, scale, zero, grid=grid, axis=0), scale, zero, axis=0)
    np.testing.assert_array_equal(once, twice)


def test_rounds_ties_to_even():
    codes = quantize(np.array([0.5, 1.5, 2.5, -0.5, -1.5]), np.float32(1), grid=INT8)
    np.testing.assert_array_equal(codes, [0, 2, 2, 0, -2])


def test_saturates():
    codes = quantize(np.array([300, -300, np.inf, -np.inf]), np.float32(1), grid=INT8)
    np.testing.assert_array_equal(codes, [127, -128, 127, -128])


@pytest.mark.parametrize(("grid", "axis"), [(INT8, None), (UINT8, 1), (INT8, 0), (UINT16, 1)])
def test_agrees_with_onnx_runtime(grid, axis):
    import onnx
    import onnxruntime as ort

    weight = normal(1, (6, 5, 4)) * 3
    scale, zero = affine_scale(*value_range(weight, axis=axis), grid)
    node = onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], axis=axis or 0)
    kind = onnx.helper.np_dtype_to_tensor_dtype(grid.dtype)
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, weight.shape)],
        [onnx.helper.make_tensor_value_info("y", kind, weight.shape)],
        [onnx.numpy_helper.from_array(scale, "s"), onnx.numpy_helper.from_array(zero, "z")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    theirs = session.run(None, {"x": weight})[0]
    np.testing.assert_array_equal(quantize(weight, scale, zero, grid=grid, axis=axis), theirs)


def test_codes_are_alike_in_small_parts(monkeypatch):
    weight = normal(0, (5, 7, 3))
    scale, zero = affine_scale(*value_range(weight, axis=1), UINT8)
    whole = quantize(weight, scale, zero, grid=UINT8, axis=1)
    monkeypatch.setattr(affine, "PIECE", 4)
    np.testing.assert_array_equal(quantize(weight, scale, zero, grid=UINT8, axis=1), whole)


def test_empty_weights_have_a_range():
    assert value_range(np.zeros((0, 3), np.float32), axis=None) == (0, 0)
    np.testing.assert_array_equal(largest_magnitude(np.zeros((0, 3), np.float32), axis=1), np.zeros(3))
    assert quantize(np.zeros((0, 3)), np.ones(3, np.float32), grid=INT8, axis=1).shape == (0, 3)


@modest
@given(seed=seeds, per_channel=st.booleans(), exponent=st.integers(-12, 12))
def test_a_bias_always_fits_after_widening(seed, per_channel, exponent):
    bias = normal(seed, 6) * np.float32(10.0**exponent)
    weight_scale = np.abs(normal(seed + 1, 6 if per_channel else ())) * np.float32(1e-6) + np.float32(1e-9)
    widened = scale_for_bias(weight_scale, input_scale=1e-3, bias=bias)
    assert (widened >= weight_scale).all()
    codes, scale = quantize_bias(bias, input_scale=1e-3, weight_scale=widened)
    assert codes.dtype == np.int32
    assert (np.abs(codes * scale.astype(np.float64) - bias) <= scale * 0.5001).all()


def test_a_bias_that_fits_leaves_the_scale():
    scale = np.array([0.1, 0.2], np.float32)
    np.testing.assert_array_equal(scale_for_bias(scale, input_scale=0.5, bias=np.ones(2)), scale)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: affine_scale(1.0, -1.0, UINT8), "low not above its high"),
        (lambda: affine_scale(0.0, np.inf, UINT8), "finite"),
        (lambda: symmetric_scale(-1.0, INT8), "not negative"),
        (lambda: symmetric_scale(1.0, UINT8), "signed grid"),
        (lambda: quantize(np.array([np.nan]), np.float32(1), grid=INT8), "not a number"),
        (lambda: quantize(np.ones((2, 3)), np.ones(2, np.float32), grid=INT8, axis=1), "one per channel"),
        (lambda: quantize(np.ones((2, 3)), np.zeros(3, np.float32), grid=INT8, axis=1), "positive"),
        (lambda: quantize(np.ones((2, 3)), np.ones(3, np.float32), grid=INT8, axis=2), "axis 2"),
        (lambda: quantize_bias(np.ones(1), input_scale=1e-6, weight_scale=np.float32(1e-6)), "does not fit"),
        (lambda: quantize_bias(np.ones(1), input_scale=1e-30, weight_scale=np.float32(1e-30)), "underflows"),
    ],
)
def test_refuses(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()
