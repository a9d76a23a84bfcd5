"""Normal equations: sums over rows."""

import numpy as np
import pytest

from onnxpress.passes.kernels.normal import Normal

SUMS = ("moment", "cross", "input_sum", "output_sum", "energy")


def rows(groups):
    draw = np.random.default_rng(0)
    return draw.standard_normal((groups, 80, 7)), draw.standard_normal((groups, 80, 3))


def test_sums_are_those_of_the_rows():
    x, y = rows(2)
    normal = Normal.of(x, y)
    assert normal.shape == (6, 7)
    wanted = np.einsum("gnk,gnl->gkl", x, x), np.einsum("gnr,gnk->grk", y, x), x.sum(1), y.sum(1), (y**2).sum(1)
    for name, sums in zip(SUMS, wanted, strict=True):
        np.testing.assert_allclose(getattr(normal, name), sums, rtol=1e-12, atol=1e-10)


def test_rows_may_come_in_parts():
    x, y = rows(2)
    whole = Normal.of(x, y)
    parts = Normal.of(x[:, :30], y[:, :30]) + Normal.of(x[:, 30:], y[:, 30:]) + Normal.empty(2, 3, 7)
    assert parts.count == whole.count == 80
    for name in SUMS:
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-12, atol=1e-9)


def test_outputs_may_be_shifted():
    x, y = rows(2)
    delta = np.arange(6.0)
    shifted = Normal.of(x, y).shifted(delta)
    wanted = Normal.of(x, y + delta.reshape(2, 1, 3))
    assert shifted.count == wanted.count
    for name in SUMS:
        np.testing.assert_allclose(getattr(shifted, name), getattr(wanted, name), rtol=1e-12, atol=1e-9)


def test_sums_of_float32_rows_are_float64():
    normal = Normal.of(np.ones((1, 4, 2), np.float32), np.ones((1, 4, 3), np.float32))
    assert {normal.moment.dtype, normal.cross.dtype, normal.input_sum.dtype, normal.energy.dtype} == {np.dtype(float)}


def test_some_outputs_and_groups_are_what_their_rows_give():
    x, y = rows(3)
    some = Normal.of(x, y).groups(np.array([2, 0])).outputs(np.array([1]))
    same = Normal.of(x[[2, 0]], y[[2, 0]][..., [1]])
    for name in SUMS:
        np.testing.assert_allclose(getattr(some, name), getattr(same, name), rtol=1e-12, atol=1e-9)


def test_refuses_shapes_that_do_not_belong_together():
    x, y = rows(1)
    normal = Normal.of(x, y)
    with pytest.raises(ValueError, match=r"rows of shape \[1, 80, 7\] have no outputs \[1, 79, 3\]"):
        Normal.of(x, y[:, 1:])
    with pytest.raises(ValueError, match="belong to products"):
        Normal(normal.moment[:, 1:], normal.cross, normal.input_sum, normal.output_sum, normal.energy, 80)
