"""Values that just fit."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.report import Report
from onnxpress.passes.selection import RefusalError
from onnxpress.passes.share.coder import Coder, ShareWithin
from onnxpress.passes.share.stored import least, stored_as
from onnxpress.rewriter.sites import find_sites


@pytest.fixture
def layer(build):
    """Builds a model of one layer."""

    def build_layer(weight):
        node = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")
        return build([node], {"w": weight}, x=(1, weight.shape[0]))

    return build_layer


@pytest.fixture
def weight():
    return np.random.default_rng(0).standard_normal((80, 60)).astype(np.float32)


def shared(model, **options):
    (site,) = find_sites(model)
    ShareWithin(**options).share_site(model, site, None, Report("share"))
    return site.array()


@pytest.mark.parametrize("limit", [900, 1500, 3000])
@pytest.mark.parametrize("width", [1.0, 4.0, 8.0])
def test_takes_just_what_it_may(layer, weight, limit, width):
    model = layer(weight)
    found = least(stored_as(shared(model, limit=limit, width=width), huffman=True)).nbytes
    assert 0.97 * limit < found <= limit


def test_zeros_of_a_pruned_weight_stay(layer, weight):
    weight[np.abs(weight) < 1] = 0
    found = shared(layer(weight), limit=1200, width=4.0)
    np.testing.assert_array_equal(found == 0, weight == 0)


def test_without_huffman_codes_takes_as_many_whole_bits_as_fit(layer, weight):
    found = shared(layer(weight), limit=weight.size / 2 + 300, width=4.0, huffman=False)
    assert np.unique(found).size == 16


def test_takes_the_fewest_values_where_none_fit(layer, weight):
    assert np.unique(shared(layer(weight), limit=1, width=4.0)).size <= 3
    assert np.unique(shared(layer(weight), limit=1, width=4.0, huffman=False)).size == 2


def test_leaves_a_weight_that_fits_as_it_is(layer, weight):
    with pytest.raises(RefusalError, match="has 2 distinct values already, which fit"):
        shared(layer(np.sign(weight)), limit=5000, width=2.0)


def test_leaves_weights_that_are_no_numbers(layer, weight):
    weight[0, 0] = np.inf
    with pytest.raises(RefusalError, match="not finite"):
        shared(layer(weight), limit=900, width=4.0)


def test_a_bit_more_is_a_quarter_of_the_error(weight):
    coder = Coder(weight, None, keep_zero=False, huffman=True)
    errors = [float(((weight - coder.shared(width)) ** 2).mean()) for width in (3, 4, 5)]
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 4, rtol=0.15)


def test_the_estimate_of_a_part_is_that_of_the_whole(weight):
    few = Coder(weight, None, keep_zero=False, huffman=True).shared(3)
    few[np.abs(few) < 1] = 0
    part = least(stored_as(few[::2], huffman=True, whole=few.shape)).nbytes
    assert part == pytest.approx(least(stored_as(few, huffman=True)).nbytes, rel=0.04)


def test_the_estimate_is_what_encode_predicts(layer):
    model = layer(np.random.default_rng(0).standard_normal((400, 300)).astype(np.float32))
    estimate = least(stored_as(shared(model, limit=60_000, width=5.0), huffman=True)).nbytes
    (change,) = Encode(measure=False)(model).report.changes
    assert change.bytes_after == estimate


def test_a_part_of_a_large_weight_tells_how_wide_its_codes_may_be(layer):
    weight = np.random.default_rng(1).standard_normal((700, 600)).astype(np.float32)
    weight[:, :300] *= 0.2
    found = least(stored_as(shared(layer(weight), limit=150_000, width=6.0), huffman=True)).nbytes
    assert 0.97 * 150_000 < found <= 150_000
