"""Codes chosen for the sake of the layer's output."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.calibration.observers import SecondMoment
from onnxpress.calibration.views import Patches
from onnxpress.passes.kernels.affine import INT7_SYMMETRIC, INT8_SYMMETRIC, largest_magnitude, quantize, symmetric_scale
from onnxpress.passes.quantize.reconstruct import METHODS, importance_of, rounded
from onnxpress.passes.selection import RefusalError


def moment_of(draw, *, groups, width, count=200):
    mix = draw.standard_normal((groups * width, groups * width))
    rows = draw.standard_normal((count, groups * width)) @ mix + draw.standard_normal(groups * width) * 3
    view = Patches(kernel=(1,), strides=(1,), pads=(0, 0), dilations=(1,), groups=groups)
    moment = SecondMoment(view=view)
    moment.update(rows[..., np.newaxis].astype(np.float32))
    return moment


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 30), st.booleans(), st.integers(0, 99))
def test_each_method_is_at_least_as_good_as_the_one_before(groups, rows, width, centred, seed):
    draw = np.random.default_rng(seed)
    weight = draw.standard_normal((groups * rows, width)).astype(np.float32)
    moment = moment_of(draw, groups=groups, width=width)
    scale = symmetric_scale(largest_magnitude(weight, axis=0), INT7_SYMMETRIC)
    found = {
        method: rounded(weight, scale, grid=INT7_SYMMETRIC, moment=moment, method=method, centred=centred)
        for method in METHODS
    }
    np.testing.assert_array_equal(found["nearest"][0], quantize(weight, scale, grid=INT7_SYMMETRIC, axis=0))
    errors = [found[method][1] for method in METHODS]
    assert errors == sorted(errors, reverse=True)
    assert all(codes.dtype == np.int8 for codes, _ in found.values())


def test_lowers_the_error_of_the_output():
    draw = np.random.default_rng(0)
    weight, moment = draw.standard_normal((32, 64)).astype(np.float32), moment_of(draw, groups=1, width=64)
    scale = symmetric_scale(largest_magnitude(weight, axis=None), INT8_SYMMETRIC)
    _, nearest = rounded(weight, scale, grid=INT8_SYMMETRIC, moment=moment, method="nearest")
    _, better = rounded(weight, scale, grid=INT8_SYMMETRIC, moment=moment, method="gptq")
    assert better < 0.8 * nearest


def test_few_rows_do_not_mislead():
    draw = np.random.default_rng(0)
    weight, rows = draw.standard_normal((32, 64)).astype(np.float32), draw.standard_normal((2000, 64))
    scale = symmetric_scale(largest_magnitude(weight, axis=0), INT7_SYMMETRIC)
    moment = SecondMoment()
    moment.update(rows[:40].astype(np.float32))  # fewer than inputs
    errors = {}
    for method in ("nearest", "gptq"):
        codes, _ = rounded(weight, scale, grid=INT7_SYMMETRIC, moment=moment, method=method)
        errors[method] = np.square(rows[40:] @ (weight - codes * scale[:, None]).T).sum()
    assert errors["gptq"] < 1.1 * errors["nearest"]


def test_importance_is_the_mean_square_of_each_input():
    moment = moment_of(np.random.default_rng(1), groups=2, width=3)
    importance = importance_of(moment, rows=6)
    wanted = np.diagonal(moment.total, axis1=1, axis2=2) / 200
    np.testing.assert_allclose(importance, np.repeat(wanted, 3, axis=0), rtol=1e-6, atol=0)  # one division


def test_a_weight_of_zeros_has_no_error():
    moment = moment_of(np.random.default_rng(2), groups=1, width=3)
    scale = np.ones(2, np.float32)
    weight = np.zeros((2, 3), np.float32)
    codes, error = rounded(weight, scale, grid=INT8_SYMMETRIC, moment=moment, method="adaround")
    assert not codes.any()
    assert error == 0


def test_refuses_without_rows_and_with_others():
    weight, scale = np.ones((2, 3), np.float32), np.ones(2, np.float32)
    with pytest.raises(RefusalError, match="no row without NaN"):
        rounded(weight, scale, grid=INT8_SYMMETRIC, moment=SecondMoment(), method="gptq")
    seen = moment_of(np.random.default_rng(3), groups=1, width=3)
    with pytest.raises(RefusalError, match="its weight holds NaN"):
        rounded(weight * np.nan, scale, grid=INT8_SYMMETRIC, moment=seen, method="gptq")
    moment = moment_of(np.random.default_rng(3), groups=1, width=4)
    with pytest.raises(RefusalError, match=r"cannot be rounded by samples: .* do not fit"):
        rounded(weight, scale, grid=INT8_SYMMETRIC, moment=moment, method="gptq")
