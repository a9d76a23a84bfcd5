from dataclasses import replace

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.blockwise import rounding
from onnxpress.passes.blockwise.rounding import (
    How,
    activation_factors,
    by_factors,
    by_gptq,
    by_weight,
    coded,
    matrix_of,
    stored,
)
from onnxpress.passes.kernels.blocks import from_codes
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.kernels.lattice import squared_errors
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.sites import find_sites


@pytest.fixture
def site(build, random):
    weight = random.standard_normal((96, 40)).astype(np.float32)
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, x=("n", 96))
    return find_sites(model)[0]


@pytest.fixture
def moment(random):
    x = random.standard_normal((300, 96)) @ random.standard_normal((96, 96))
    return (x.T @ x).astype(np.float32)[None]


def by_method(site, how, method):
    how = replace(how, method=method)
    return coded(site, how, by_weight(stored(site), how))


def lost(site, found, moment):
    factors = 1 if found.blocked.factors is None else found.blocked.factors
    back = from_codes(found.blocked.codes(), found.blocked.steps) / factors
    return squared_errors(back - matrix_of(site), moment).sum(), relative_error(matrix_of(site), back)


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("symmetric", [True, False])
def test_no_method_is_worse_than_nearest_in_what_it_minimises(site, moment, bits, symmetric):
    how = How(bits, 32, "any", symmetric)
    nearest = by_method(site, how, "rtn")
    output, weight = lost(site, nearest, moment)
    assert weight == pytest.approx(nearest.error, rel=1e-6)
    assert lost(site, by_method(site, how, "hqq"), moment)[1] <= weight
    assert lost(site, by_gptq(site, how, moment), moment)[0] <= output * (1 + 1e-5)
    factors = activation_factors([site], how, moment)
    if factors is not None:
        found = by_factors(site, how, moment, factors)
        assert found.gain > 0
        assert lost(site, found, moment)[0] == pytest.approx(output - found.gain, rel=1e-3)


def test_samples_make_a_difference_at_four_bits(site, moment):
    how = How(4, 32, "any", symmetric=False)
    assert lost(site, by_gptq(site, how, moment), moment)[0] < 0.5 * lost(site, by_method(site, how, "rtn"), moment)[0]


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_codes_that_cannot_be_computed_again_are_kept_packed(site, moment, bits, monkeypatch):
    how = How(bits, 32, "gptq", symmetric=False)
    whole = by_gptq(site, how, moment).blocked.codes()
    monkeypatch.setattr(rounding, "LAZY", 1)
    np.testing.assert_array_equal(by_gptq(site, how, moment).blocked.codes(), whole)


def test_says_by_how_much_the_output_is_nearer(site, moment):
    how = How(4, 32, "gptq", symmetric=True)
    assert by_gptq(site, how, moment).told.startswith("gptq, output error ")
    assert by_gptq(site, how, np.zeros_like(moment)).told == "gptq, on inputs of zero"


def test_half_quadratic_scales_that_gain_nothing_are_nearest(build):
    weight = np.tile(np.arange(-8, 8, dtype=np.float32), (3, 2)).T.copy()
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, x=("n", 32))
    found = by_method(find_sites(model)[0], How(4, 16, "any", symmetric=True), "hqq")
    assert found.told == "nearest, which hqq does not better"
    assert found.error == 0


def test_refuses_what_is_no_number(build):
    weight = np.full((8, 8), np.inf, np.float32)
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, x=("n", 8))
    with pytest.raises(RefusalError, match="NaN or infinities"):
        by_method(find_sites(model)[0], How(4, 32, "any", symmetric=True), "rtn")
