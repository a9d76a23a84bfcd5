"""Whatever way a convolution is written, ONNX Runtime computes what it did."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxpress.passes.kernels.lattices import Lattice, bounding
from onnxpress.passes.prune.positions.products import Gathered, Sum, products_for
from onnxpress.passes.prune.positions.windows import Window
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites

modest = settings(deadline=None, derandomize=True, max_examples=150)


def written(model: Model, product, spatial) -> Model:
    copy = model.clone()
    site = find_sites(copy)[0]
    weights = [copy.add_weight("part", each) for each in product.weights(site.array())]
    for use in site.uses:
        product.write(copy, use, weights, spatial)
    sweep(copy)
    return copy


@st.composite
def convolutions(draw):
    """Attributes, weight with zeros, kept mask, and a shape that has at least one place."""
    axes = draw(st.integers(1, 3))
    kernel = draw(st.lists(st.integers(1, 4 if axes < 3 else 3), min_size=axes, max_size=axes))
    dilations = draw(st.lists(st.integers(1, 2), min_size=axes, max_size=axes))
    strides = draw(st.lists(st.integers(1, 3), min_size=axes, max_size=axes))
    group = draw(st.sampled_from([1, 1, 2, 3]))
    channels, outputs = draw(st.integers(1, 3)), group * draw(st.integers(1, 2))
    auto = draw(st.sampled_from(["NOTSET", "NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if auto.startswith("SAME"):
        dilations = [1] * axes  # ONNX Runtime has no others there
    attrs = {"kernel_shape": kernel, "dilations": dilations, "strides": strides, "group": group}
    reach = [(side - 1) * dilation + 1 for side, dilation in zip(kernel, dilations, strict=True)]
    if auto == "NOTSET":
        attrs["pads"] = draw(st.lists(st.integers(0, 3), min_size=2 * axes, max_size=2 * axes))
        pads = [before + after for before, after in zip(attrs["pads"][:axes], attrs["pads"][axes:], strict=True)]
    else:
        attrs["auto_pad"] = auto
        pads = [0] * axes if auto == "VALID" else reach
    shape = [max(1, each - pad) + draw(st.integers(0, 5)) for each, pad in zip(reach, pads, strict=True)]
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    kept = rng.random((channels, *kernel)) < draw(st.sampled_from([0.1, 0.4, 0.8]))
    if draw(st.booleans()):
        kept[:] = kept[:1]
    kept.reshape(-1)[rng.integers(kept.size)] = True
    weight = rng.standard_normal((outputs, channels, *kernel)) * kept
    return attrs, weight.astype(np.float32), kept, (2, channels * group, *shape)


@pytest.mark.parametrize("known", [True, False])
@modest
@given(case=convolutions(), bias=st.booleans())
def test_every_product_computes_what_the_convolution_with_zeros_did(build, run, known, case, bias):
    attrs, weight, kept, shape = case
    names = ["x", "w", "b"][: 2 + bias]
    weights = {"w": weight, "b": np.arange(len(weight), dtype=np.float32)}
    model = build(
        [helper.make_node("Conv", names, ["y"], name="c", **attrs)],
        {name: weights[name] for name in names[1:]},
        x=shape if known else [None] * len(shape),
    )
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    (expected,) = run(model, x)
    unknown = not known and not (attrs.get("auto_pad", "").startswith("SAME") and max(attrs["strides"]) > 1)
    spatial = (None,) * (len(shape) - 2) if unknown else shape[2:]
    box = bounding(kept.any(axis=0))
    for product in [Sum((box,)), Gathered(kept), *products_for(kept)]:
        if isinstance(product, Gathered) and attrs["group"] > 1:
            continue
        (found,) = run(written(model, product, spatial), x)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)  # float32 sums in another order


@pytest.mark.parametrize(
    ("attrs", "product", "reason"),
    [
        ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, Sum((Lattice((0, 0), (1, 1), (1, 1)),)), "auto_pad depends"),
        ({"group": 2}, Gathered(np.ones((1, 3, 3), bool)), "several groups"),
    ],
)
def test_refuses_what_it_cannot_write_and_leaves_the_node_alone(build, attrs, product, reason):
    model = conv(build, np.ones((2, 2 // attrs.get("group", 1), 3, 3), np.float32), **attrs)
    with pytest.raises(RefusalError, match=reason):
        product.write(model, find_sites(model)[0].uses[0], [], (None, None))
    assert operators(model) == ["Conv"]
    assert len(model.graph.nodes[0].inputs) == 2


def conv(build, weight, shape=(1, 2, 9, 9), **attrs):
    return build([helper.make_node("Conv", ["x", "w"], ["y"], name="c", **attrs)], {"w": weight}, x=shape)


def operators(model):
    return [node.op for node in model.graph.nodes]


def test_a_lone_position_in_the_middle_is_a_plain_1x1_convolution(build):
    model = conv(build, np.ones((4, 2, 3, 3), np.float32), pads=[1, 1, 1, 1])
    copy = written(model, Sum((Lattice((1, 1), (1, 1), (1, 1)),)), (9, 9))
    (node,) = copy.graph.nodes
    assert (node.op, node.attrs["kernel_shape"], node.attrs["pads"]) == ("Conv", [1, 1], [0, 0, 0, 0])


def test_a_corner_is_cut_out_of_the_input_only_where_that_changes_the_places(build):
    corner = Sum((Lattice((0, 0), (1, 1), (1, 1)),))
    weight = np.ones((4, 2, 3, 3), np.float32)
    assert operators(written(conv(build, weight), corner, (9, 9))) == ["Slice", "Conv"]
    strided = conv(build, weight, strides=[3, 3])
    assert operators(written(strided, corner, (9, 9))) == ["Conv"]
    assert operators(written(strided, corner, (None, None))) == ["Slice", "Conv"]


def test_the_four_corners_are_one_dilated_convolution(build):
    kept = Lattice((0, 0), (2, 2), (2, 2)).mask((3, 3))[np.newaxis]
    (first, *_) = products_for(kept)
    assert first.describe() == "dilated 2x2 Conv"
    (node,) = written(conv(build, np.ones((4, 2, 3, 3), np.float32)), first, (9, 9)).graph.nodes
    assert (node.attrs["kernel_shape"], node.attrs["dilations"]) == ([2, 2], [2, 2])


def test_a_cross_is_a_row_and_a_dilated_column():
    kept = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], bool)
    assert [each.describe() for each in products_for(kept)] == [
        "3x1 + dilated 1x2 Conv",
        "5 shifted channels into a 1x1 Conv",
    ]


def test_there_is_nothing_smaller_for_a_kernel_of_which_all_counts():
    assert products_for(np.ones((2, 3, 3), bool)) == []


def test_all_nodes_that_share_a_weight_share_the_new_ones(build, run, random):
    weight = np.zeros((2, 2, 3, 3), np.float32)
    weight[:, :, :2, :2] = random.standard_normal((2, 2, 2, 2))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["t"], name="a", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["t", "w"], ["y"], name="b", strides=[2, 2]),
    ]
    model = build(nodes, {"w": weight}, x=(1, 2, 9, 9))
    copy = written(model, Sum((Lattice((0, 0), (1, 1), (2, 2)),)), (9, 9))
    assert len(copy.constants()) == 1
    x = random.standard_normal((1, 2, 9, 9)).astype(np.float32)
    np.testing.assert_allclose(run(copy, x)[0], run(model, x)[0], rtol=1e-4, atol=1e-5)  # float32 sums


def test_a_convolution_with_an_activation_inside_is_no_sum(build):
    node = helper.make_node("FusedConv", ["x", "w"], ["y"], domain="com.microsoft", activation="Relu")
    model = build([node], {"w": np.ones((2, 2, 3, 3), np.float32)}, x=(1, 2, 9, 9))
    parts = (Lattice((0, 0), (1, 1), (3, 1)), Lattice((0, 1), (1, 1), (1, 2)))
    with pytest.raises(RefusalError, match="activation inside"):
        written(model, Sum(parts), (9, 9))


def test_an_old_opset_has_no_slice_to_cut_with(build):
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    model = build([node], {"w": np.ones((2, 2, 3, 3), np.float32)}, x=(1, 2, 9, 9), opset=9)
    with pytest.raises(RefusalError, match="export with 11"):
        written(model, Sum((Lattice((0, 0), (1, 1), (1, 1)),)), (9, 9))


def test_places_of_a_window_are_the_sizes_of_the_output(build, run):
    attrs = {"strides": [2, 3], "pads": [0, 1, 2, 3], "dilations": [2, 1]}
    model = conv(build, np.ones((1, 2, 3, 2), np.float32), (1, 2, 11, 12), **attrs)
    (out,) = run(model, np.zeros((1, 2, 11, 12), np.float32))
    window = Window.of(model.graph.nodes[0], (3, 2), (11, 12))
    assert window.places((11, 12)) == out.shape[2:]
