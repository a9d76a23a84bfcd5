import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.factorize.schemes.layer import Layer, refuse_given_shape, rows_of
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.rewriter.sites import find_sites


@pytest.fixture
def site_of(build):
    """The only site of a model of one node."""

    def make(op: str, shape: tuple[int, ...], *, left: bool = False, **attrs):
        weight = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        node = helper.make_node(op, ["w", "x"] if left else ["x", "w"], ["y"], name="site", **attrs)
        return find_sites(build([node], {"w": weight}, x=None))[0]

    return make


def test_a_grouped_convolution_is_seen_group_by_group(site_of):
    layer = Layer.of(site_of("Conv", (6, 2, 3, 5), group=3, strides=[1, 2]))
    assert (layer.groups, layer.out, layer.channels, layer.sides, layer.strides) == (3, 2, 2, (3, 5), (1, 2))
    assert (layer.width, layer.taps, layer.described()) == (30, 15, "3x5")


def test_rows_of_a_convolution_are_those_that_samples_are_seen_by(site_of):
    site = site_of("Conv", (6, 2, 3), group=3)
    np.testing.assert_array_equal(rows_of(site), Layout.of(site).to_rows(site.array()))


def test_a_transposed_kernel_has_its_roles_changed(site_of):
    site = site_of("ConvTranspose", (6, 4, 3), group=2)
    layer, weight = Layer.of(site), site.array()
    assert (layer.groups, layer.out, layer.channels) == (2, 4, 3)
    kernels = layer.kernels(layer.to_rows(weight))
    assert kernels.shape == (2, 4, 3, 3)
    np.testing.assert_array_equal(kernels[1, 2], weight[3:, 2])
    np.testing.assert_array_equal(layer.from_rows(layer.to_rows(weight)), weight)


@pytest.mark.parametrize(
    ("op", "shape", "left"), [("MatMul", (5, 7), False), ("MatMul", (7, 5), True), ("Gemm", (5, 7), False)]
)
def test_matrices_are_outputs_by_inputs(site_of, op, shape, left):
    site = site_of(op, shape, left=left)
    layer = Layer.of(site)
    assert (layer.out, layer.channels, layer.sides) == (7, 5, ())
    np.testing.assert_array_equal(layer.from_rows(layer.to_rows(site.array())), site.array())


def test_a_lone_matrix_in_a_batch_is_one(site_of):
    assert Layer.of(site_of("MatMul", (1, 5, 7))).out == 7
    with pytest.raises(RefusalError, match="holds 3 independent matrices"):
        Layer.of(site_of("MatMul", (3, 5, 7)))


def test_refuses_groups_that_do_not_divide_the_channels(site_of):
    with pytest.raises(RefusalError, match="has 7 channels, which 2 groups do not divide"):
        Layer.of(site_of("Conv", (7, 2, 3), group=2))


def test_refuses_weights_that_are_not_finite(build):
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    (site,) = find_sites(build([node], {"w": np.full((2, 2), np.inf, np.float32)}, x=None))
    with pytest.raises(RefusalError, match="holds values that are not finite"):
        rows_of(site)


def test_refuses_to_part_a_stated_output_shape(site_of):
    refuse_given_shape(site_of("ConvTranspose", (4, 4, 3, 3)))
    with pytest.raises(RefusalError, match="states its output_shape, which no part of a chain can: give pads instead"):
        refuse_given_shape(site_of("ConvTranspose", (4, 4, 3, 3), output_shape=[9, 9]))
