"""What layers read, as rows: times the weight they give what ONNX Runtime computes."""

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxpress.calibration.feeds import open_feed
from onnxpress.calibration.observers import SecondMoment
from onnxpress.calibration.views import Columns, LastAxis, Patches
from onnxpress.passes.base import Workbench
from onnxpress.passes.inputs import (
    Reading,
    activation_of,
    check_width,
    in_parts,
    joined,
    moments_of,
    observe_readings,
    reading_of,
    view_of,
)
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites

PADS = st.sampled_from(["given", "SAME_UPPER", "SAME_LOWER", "VALID"])


def products(model: Model, array, positions=None):
    """Rows times weight, [n, out], of the only site."""
    site = find_sites(model)[0]
    rows = view_of(site.uses[0]).rows(array, positions)
    parts = np.split(Layout.of(site).to_rows(site.array()), len(rows))
    return np.concatenate([seen @ part.T for seen, part in zip(rows, parts, strict=True)], axis=1)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(1, 3), st.sampled_from([1, 2, 3]), PADS, st.integers(0, 3), st.randoms(use_true_random=False))
def test_convolution_is_rows_times_weight(build, run, axes, groups, padding, batch, random):
    kernel = [random.randint(1, 3) for _ in range(axes)]
    strides, dilations = ([random.randint(1, 3) for _ in range(axes)] for _ in range(2))
    width, depth = random.randint(1, 2), random.randint(1, 2)
    if padding.startswith("SAME"):  # ONNX Runtime has it for dilation 1 alone
        dilations = [1] * axes
    attrs = {"strides": strides, "dilations": dilations, "group": groups}
    attrs |= {"pads": [random.randint(0, 2) for _ in range(2 * axes)]} if padding == "given" else {"auto_pad": padding}
    draw = np.random.default_rng(random.randint(0, 99))
    weight = draw.standard_normal((groups * width, depth, *kernel)).astype(np.float32)
    model = build([helper.make_node("Conv", ["x", "w"], ["y"], **attrs)], {"w": weight}, x=None)
    array = draw.standard_normal((batch, groups * depth, *(random.randint(7, 10) for _ in range(axes))))
    wanted = run(model, array.astype(np.float32))[0]
    found = products(model, array)
    wanted = np.moveaxis(wanted, 1, -1).reshape(len(found), groups * width)
    # float32 sums of at most 54 products of size about 1
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    some = np.arange(len(found))[::-3]
    np.testing.assert_allclose(products(model, array, some), wanted[some], rtol=1e-4, atol=1e-5)


def test_depthwise_rows_are_one_channel_each(build, random_array):
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=4, pads=[1, 1, 1, 1])
    model = build([node], {"w": random_array(4, 1, 3, 3)}, x=None)
    view = view_of(find_sites(model)[0].uses[0])
    assert view == Patches(kernel=(3, 3), strides=(1, 1), pads=(1, 1, 1, 1), dilations=(1, 1), groups=4)
    assert view.rows(random_array(2, 4, 5, 6)).shape == (4, 60, 9)


@pytest.fixture(scope="module")
def random_array():
    draw = np.random.default_rng(3)
    return lambda *shape: draw.standard_normal(shape).astype(np.float32)


PRODUCTS: Mapping[str, tuple] = {
    "right": ("MatMul", "", {}, ["x", "w"], (5, 6), (2, 3, 5), LastAxis()),
    "right, one row": ("MatMul", "", {}, ["x", "w"], (5, 6), (5,), LastAxis()),
    "right, stack of one": ("MatMul", "", {}, ["x", "w"], (1, 5, 6), (2, 3, 5), LastAxis()),
    "right, no rows": ("MatMul", "", {}, ["x", "w"], (5, 6), (0, 3, 5), LastAxis()),
    "left": ("MatMul", "", {}, ["w", "x"], (6, 5), (2, 4, 5, 3), Columns()),
    "left, one column": ("MatMul", "", {}, ["w", "x"], (6, 5), (5,), Columns()),
    "left, no columns": ("MatMul", "", {}, ["w", "x"], (6, 5), (2, 5, 0), Columns()),
    "gemm": ("Gemm", "", {}, ["x", "w"], (5, 6), (3, 5), LastAxis()),
    "gemm, both transposed": ("Gemm", "", {"transA": 1, "transB": 1}, ["x", "w"], (6, 5), (5, 3), Columns()),
    "gemm, left": ("Gemm", "", {"transB": 1}, ["w", "x"], (6, 5), (3, 5), LastAxis()),
    "gemm, left transposed": ("Gemm", "", {"transA": 1}, ["w", "x"], (5, 6), (5, 3), Columns()),
    "fused": ("FusedMatMul", "com.microsoft", {"transB": 1}, ["x", "w"], (6, 5), (2, 3, 5), LastAxis()),
    "fused, transposed": ("FusedMatMul", "com.microsoft", {"transA": 1}, ["x", "w"], (5, 6), (2, 5, 3), Columns()),
}


@pytest.mark.parametrize("case", PRODUCTS)
def test_product_is_rows_times_weight(build, run, random_array, case):
    op, domain, attrs, inputs, weight_shape, shape, view = PRODUCTS[case]
    node = helper.make_node(op, inputs, ["y"], domain=domain, **attrs)
    model = build([node], {"w": random_array(*weight_shape)}, x=[None] * len(shape))
    model.import_domain("com.microsoft", 1)
    use, array = find_sites(model)[0].uses[0], random_array(*shape)
    assert view_of(use) == view
    assert activation_of(use).name == "x"
    wanted = run(model, array)[0]
    if inputs[0] == "w" and len(shape) > 1 and op != "Gemm":
        wanted = np.swapaxes(wanted, -1, -2)
    found = products(model, array)
    wanted = (wanted.T if op == "Gemm" and inputs[0] == "w" else wanted).reshape(-1, 6)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)  # float32 sums of 5 products
    np.testing.assert_array_equal(view.rows(array, np.array([], np.int64)).shape, (1, 0, 5))


def test_attention_and_input_of_a_recurrent_layer_read_the_last_axis(build, random_array):
    lstm = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=2)
    model = build([lstm], {"w": random_array(1, 8, 3), "r": random_array(1, 8, 2)}, x=[4, 1, 3])
    first, second = (site.uses[0] for site in find_sites(model))
    assert view_of(first) == LastAxis()
    with pytest.raises(RefusalError, match="multiplies the hidden state"):
        view_of(second)
    attention = helper.make_node("Attention", ["x", "w", "b"], ["y"], domain="com.microsoft", num_heads=1)
    model = build([attention], {"w": random_array(4, 12), "b": random_array(12)}, x=[1, 2, 4])
    assert view_of(find_sites(model)[0].uses[0]) == LastAxis()


REFUSED = {
    "Gather does not multiply rows": (helper.make_node("Gather", ["w", "x"], ["y"]), (5, 6)),
    "ConvTranspose does not multiply rows": (helper.make_node("ConvTranspose", ["x", "w"], ["y"]), (2, 3, 3, 3)),
    "a stack of matrices": (helper.make_node("MatMul", ["x", "w"], ["y"]), (2, 5, 6)),
    "batch axis lies inside": (
        helper.make_node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft", transBatchA=1),
        (5, 6),
    ),
    "multiplies two constants": (helper.make_node("MatMul", ["v", "w"], ["y"]), (5, 6)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refuses_what_has_no_rows(build, random_array, reason):
    node, shape = REFUSED[reason]
    model = build([node], {"w": random_array(*shape), "v": random_array(4, 5)}, x=None)
    site = next(each for each in find_sites(model) if each.weight.name == "w")
    with pytest.raises(RefusalError, match=reason):
        reading_of(model, site.uses[0])


def test_refuses_a_layer_inside_a_branch(build, random_array):
    product = helper.make_node("MatMul", ["x", "w"], ["inner"])
    end = helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, None)
    branch = helper.make_graph([product], "branch", [], [end])
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Cast", ["s"], ["b"], to=onnx.TensorProto.BOOL),
        helper.make_node("If", ["b"], ["y"], then_branch=branch, else_branch=branch),
    ]
    model = build(nodes, {"w": random_array(5, 6)}, x=[2, 5])
    with pytest.raises(RefusalError, match="inside a branch or a loop"):
        reading_of(model, find_sites(model)[0].uses[0])


def test_observes_a_tensor_that_is_read_in_two_ways(build, random_array):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["v", "x"], ["b"]),
        helper.make_node("MatMul", ["x", "u"], ["c"]),
        helper.make_node("MatMul", ["a", "w"], ["d"]),
        helper.make_node("Sum", ["a", "b", "c", "d"], ["y"]),
    ]
    model = build(nodes, {name: random_array(4, 4) for name in "wvu"}, x=[4, 4])
    readings = [reading_of(model, use) for site in find_sites(model) for use in site.uses]
    assert len(readings) == 4
    assert set(readings) == {Reading("x", LastAxis()), Reading("x", Columns()), Reading("a", LastAxis())}
    observers = {each: SecondMoment(view=each.view) for each in readings}
    batches = [random_array(4, 4) for _ in range(2)]
    bench = Workbench(feed=open_feed([{"x": batch} for batch in batches], inputs=model.inputs), threads=1)
    observe_readings(model, observers, bench)
    wanted = {LastAxis(): sum(x.T @ x for x in batches), Columns(): sum(x @ x.T for x in batches)}
    for view, moment in wanted.items():
        # float32 sums of 8 products
        np.testing.assert_allclose(observers[Reading("x", view)].total[0], moment, rtol=1e-4, atol=1e-5)
    with pytest.raises(FeedError, match="come from samples"):
        observe_readings(model, observers, Workbench())


@pytest.mark.parametrize("memory", [1, 2**30])
def test_moments_come_site_by_site_while_the_model_changes(build, random_array, memory):
    nodes = [
        helper.make_node("Gather", ["t", "i"], ["e"]),
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["b"]),
        helper.make_node("MatMul", ["b", "u"], ["c"]),
        helper.make_node("Add", ["c", "e"], ["y"]),
    ]
    weights = {name: random_array(4, 4) for name in "wut"}
    model = build(nodes, weights | {"i": np.array([1])}, x=[3, 4])
    batches = [random_array(3, 4) for _ in range(2)]
    bench = Workbench(feed=open_feed([{"x": batch} for batch in batches], inputs=model.inputs), threads=1)
    found = {}
    for site, moment in moments_of(model, find_sites(model), bench, memory=memory):
        found[site.weight.name] = moment
        model.replace_weight(site.weight, np.zeros(site.shape, np.float32))
    assert str(found["t"]).startswith("Gather does not multiply")
    x = np.concatenate(batches)
    a = x @ weights["w"]
    # float32 sums of a dozen products; both layers that share w count
    np.testing.assert_allclose(found["w"].total[0], x.T @ x + a.T @ a, rtol=1e-4, atol=1e-4)
    assert found["w"].count == 12
    b = a @ weights["w"]
    np.testing.assert_allclose(found["u"].total[0], b.T @ b, rtol=1e-4, atol=1e-3)


def test_refuses_moments_of_nothing_finite_and_of_different_groups(build, random_array):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Concat", ["x", "x"], ["d"], axis=1),
        helper.make_node("Conv", ["d", "w"], ["b"], group=2),
        helper.make_node("Log", ["n"], ["m"]),
        helper.make_node("Conv", ["m", "u"], ["c"]),
        helper.make_node("Sum", ["a", "b", "c"], ["y"]),
    ]
    minus = helper.make_node("Sub", ["z", "s"], ["n"])
    model = build(
        [helper.make_node("Mul", ["x", "x"], ["z"]), minus, *nodes],
        {"w": random_array(2, 2, 1), "u": random_array(2, 2, 1), "s": np.full(1, 99, np.float32)},
        x=[1, 2, 3],
    )
    bench = Workbench(feed=open_feed([{"x": random_array(1, 2, 3)}], inputs=model.inputs), threads=1)
    sites = [site for site in find_sites(model) if site.op == "Conv"]
    reasons = {site.weight.name: str(moment) for site, moment in moments_of(model, sites, bench)}
    assert reasons["w"] == "the layers that share its weight read rows of different groups"
    assert reasons["u"] == "the samples show it no row without NaN or infinities"


@pytest.mark.parametrize(
    ("memory", "parts"),
    [
        (1, [["a"], ["ab"], ["b"], ["c"]]),  # what needs more is alone
        (10, [["a"], ["ab"], ["b", "c"]]),
        (14, [["a", "ab", "b"], ["c"]]),
        (19, [["a", "ab", "b", "c"]]),
    ],
)
def test_parts_hold_what_fits_and_count_a_reading_once(memory, parts):
    sizes = {"a": 10, "b": 4, "c": 5}
    items = ["a", "ab", "b", "c"]
    found = in_parts(items, memory, sizes=lambda item: {Reading(each, LastAxis()): sizes[each] for each in item})
    assert list(found) == parts


def test_rows_that_one_layer_never_saw_do_not_count(random_array):
    seen, other, never = SecondMoment(), SecondMoment(), SecondMoment()
    rows = random_array(5, 3), random_array(4, 3)
    seen.update(rows[0])
    assert joined([never, seen]) is seen
    other.update(rows[1])
    both = np.concatenate(rows)
    total = joined([seen, never, other])
    np.testing.assert_allclose(total.total[0], both.T @ both, rtol=1e-5, atol=1e-5)  # float32 sums of 9 products
    assert (total.count, seen.count, other.count) == (9, 5, 4)


def test_refuses_moments_without_samples(build, random_array):
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": random_array(4, 4)}, x=[3, 4])
    with pytest.raises(FeedError, match="come from samples"):
        next(moments_of(model, find_sites(model), Workbench()))


def test_refuses_weights_of_too_many_inputs(build):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("MatMul", ["x", "v"], ["q"])]
    nodes += [helper.make_node("Conv", ["z", "u"], ["r"], group=4100), helper.make_node("Sum", ["p", "q", "r"], ["y"])]
    sizes = {"w": (8192, 1), "v": (8193, 1), "u": (8200, 2, 1)}
    model = build(nodes, {name: np.zeros(size, np.float32) for name, size in sizes.items()}, x=None)
    narrow, wide, grouped = find_sites(model)
    check_width(narrow)
    check_width(grouped)  # 4100 groups of two
    with pytest.raises(RefusalError, match="it reads 8193 inputs: the second moments of so many take 4 GB"):
        check_width(wide)
