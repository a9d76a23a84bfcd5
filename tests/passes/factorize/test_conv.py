"""Chains against the convolutions they replace, for random geometries; ONNX Runtime is the truth."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.factorize.cp import FactorizeCP
from onnxpress.passes.factorize.groups import FactorizeGroups
from onnxpress.passes.factorize.separable import FactorizeSeparable
from onnxpress.passes.factorize.sequential import FactorizePass
from onnxpress.passes.factorize.spatial import FactorizeSpatial
from onnxpress.passes.factorize.svd import FactorizeSVD
from onnxpress.passes.factorize.train import FactorizeTrain
from onnxpress.passes.factorize.tucker import FactorizeTucker
from onnxpress.passes.pipeline import Pipeline
from onnxpress.rewriter.model import Model

FULL = {"rank": 10**6, "always": True}
Case = dict[str, Any]
UNFIT = {
    "channel": (),
    "spatial": (),
    "tucker": ("which is a matrix",),
    "cp": ("which is a matrix", "degenerate"),
    "train": ("which is a matrix", "two sides"),
    "separable": ("which is a matrix", "depthwise already"),
    "groups": ("groups already", "no number of groups"),
}
"""Why a scheme may leave a convolution alone."""


PASSES: dict[str, FactorizePass] = {
    "channel": FactorizeSVD(conv="channel", **FULL),
    "spatial": FactorizeSVD(**FULL),
    "tucker": FactorizeTucker(**FULL),
    "cp": FactorizeCP(**FULL),
    "train": FactorizeTrain(**FULL),
    "separable": FactorizeSeparable(**FULL),
    "groups": FactorizeGroups(**FULL),
}


@st.composite
def geometries(draw: st.DrawFn, *, least: int = 1, plain: bool = False) -> Case:
    """A convolution, plain or grouped or transposed, too, and the size of its input."""
    rank, op = draw(st.integers(1, 3)), "Conv" if plain else draw(st.sampled_from(["Conv", "ConvTranspose"]))

    def each(low: int, high: int, count: int = rank) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=count, max_size=count))

    kernel, strides, dilations = each(least, 4), each(1, 3), each(1, 2)
    attrs: dict[str, Any] = {"strides": strides}
    padding = draw(st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER", None]))
    if padding in ("SAME_UPPER", "SAME_LOWER"):
        dilations = [1] * rank  # ONNX Runtime knows no SAME with dilation
        if op == "ConvTranspose":
            attrs["strides"] = list(map(min, strides, kernel))  # nor one that cuts nothing off
    else:
        attrs["dilations"] = dilations
    if padding is not None:
        attrs["auto_pad"] = padding
    if padding == "NOTSET":
        most = [3 if op == "Conv" else (k - 1) * d // 2 for k, d in zip(kernel, dilations, strict=True)]
        attrs["pads"] = [min(pair) for pair in zip(each(0, 3, 2 * rank), 2 * most, strict=True)]
    if op == "ConvTranspose" and draw(st.booleans()):
        attrs["output_padding"] = [draw(st.integers(0, stride - 1)) for stride in attrs["strides"]]
    if draw(st.booleans()):
        attrs["kernel_shape"] = kernel
    sizes = [(k - 1) * d + 1 + extra for k, d, extra in zip(kernel, dilations, each(0, 6), strict=True)]
    groups = 1 if plain else draw(st.integers(1, 3))
    if groups > 1:
        attrs["group"] = groups
    out, channels = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    first, second = (out, channels) if op == "Conv" else (channels, out)
    return {
        "op": op,
        "kernel": (groups * first, second, *kernel),
        "attrs": attrs,
        "sizes": sizes,
        "bias": draw(st.booleans()),
        "channels": (groups * out, groups * channels),
    }


@pytest.fixture(scope="module")
def convolution(build: Callable[..., Model]) -> Callable[[Case], tuple[Model, np.ndarray]]:
    """The model of a case, and an input for it."""

    def make(case: Case) -> tuple[Model, np.ndarray]:
        rng = np.random.default_rng(0)
        weights = {"w": rng.standard_normal(case["kernel"]).astype(np.float32)}
        out, channels = case["channels"]
        if case["bias"]:
            weights["b"] = rng.standard_normal(out).astype(np.float32)
        node = helper.make_node(case["op"], ["x", *weights], ["y"], name="conv", **case["attrs"])
        x = rng.standard_normal((2, channels, *case["sizes"])).astype(np.float32)
        return build([node], weights, x=("n", channels, *[None] * len(case["sizes"]))), x

    return make


@pytest.mark.parametrize("kind", list(PASSES))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=geometries())
def test_every_scheme_of_full_rank_reproduces_a_convolution(case, kind, convolution, run):
    model, x = convolution(case)
    result = Pipeline([PASSES[kind]])(model)
    report = result.reports[-1]
    if report.skips:
        assert any(reason in report.skips[0].reason for reason in UNFIT[kind])
        return
    (change,) = report.changes
    assert change.site == "conv"
    assert change.error < 1e-5  # CP rests where it gains less than 1e-6
    expected, found = run(model, x)[0], run(result.model, x)[0]
    assert expected.shape == found.shape
    assert len(result.model.graph.nodes) > 1 or kind in ("train", "groups")
    # factors rounded to float32: relative to the largest output, for sums may cancel
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max(initial=1e-6))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=geometries(least=2, plain=True), rank=st.integers(1, 3))
def test_tucker_of_lower_rank_computes_what_its_factors_stand_for(case, rank, convolution, run):
    model, x = convolution(case)
    result = Pipeline([FactorizeTucker(rank=rank, always=True)])(model)
    check_stands_for(run, model, result.model, x, result.reports[-1].changes[0].error, tucker_kernel)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=geometries(least=2, plain=True), rank=st.integers(1, 4))
def test_cp_computes_what_its_factors_stand_for(case, rank, convolution, run):
    model, x = convolution(case)
    result = Pipeline([FactorizeCP(rank=rank, always=True)])(model)
    report = result.reports[-1]
    if report.skips:  # which ranks have no best approximation is up to the kernel
        assert "degenerate" in report.skips[0].reason
        return
    check_stands_for(run, model, result.model, x, report.changes[0].error, cp_kernel)


def check_stands_for(
    run: Callable[..., list[np.ndarray]],
    model: Model,
    factored: Model,
    x: np.ndarray,
    error: float,
    kernel_of: Callable[[dict[str, np.ndarray]], np.ndarray],
) -> None:
    """The chain computes what the original does with the kernel multiplied out, whose error is the reported one."""
    weights = {c.name: factored.array(c).astype(float) for c in factored.constants()}
    kernel = kernel_of(weights)
    original = next(c for c in model.constants() if c.name == "w")
    wanted = model.clone()
    wanted.replace_weight(next(c for c in wanted.constants() if c.name == "w"), kernel.astype(np.float32))
    expected, found = run(wanted, x)[0], run(factored, x)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max(initial=1e-6))
    before = model.array(original).astype(float)
    assert error == pytest.approx(np.linalg.norm(kernel - before) / np.linalg.norm(before), abs=1e-5)


def tucker_kernel(weights: dict[str, np.ndarray]) -> np.ndarray:
    kernel = weights["w_core"]
    if "w_first" in weights:
        first = weights["w_first"]
        kernel = np.einsum("rs...,si->ri...", kernel, first.reshape(first.shape[:2]))
    if "w_last" in weights:
        last = weights["w_last"]
        kernel = np.einsum("or,rs...->os...", last.reshape(last.shape[:2]), kernel)
    return kernel


def cp_kernel(weights: dict[str, np.ndarray]) -> np.ndarray:
    first, last = (weights[name].reshape(weights[name].shape[:2]) for name in ("w_first", "w_last"))
    return np.einsum("or,r...,ri->oi...", last, weights["w_depthwise"][:, 0], first)


def test_strides_dilations_and_pads_go_to_the_link_that_covers_their_axis(build):
    weight = np.random.default_rng(0).standard_normal((8, 8, 3, 5)).astype(np.float32)
    attrs = {"strides": [2, 3], "dilations": [1, 2], "pads": [0, 1, 2, 3]}
    model = build([helper.make_node("Conv", ["x", "w"], ["y"], name="conv", **attrs)], {"w": weight}, x=(1, 8, 20, 20))
    first, second = FactorizeSpatial(rank=4)(model).model.graph.nodes
    assert first.attrs == {
        "kernel_shape": [3, 1], "strides": [2, 1], "dilations": [1, 1], "group": 1, "pads": [0, 0, 2, 0],
    }  # fmt: skip
    assert second.attrs == {
        "kernel_shape": [1, 5], "strides": [1, 3], "dilations": [1, 2], "group": 1, "pads": [0, 1, 0, 3],
    }  # fmt: skip


def test_cp_is_deterministic_for_a_seed(build):
    weight = np.random.default_rng(0).standard_normal((8, 6, 3, 3)).astype(np.float32)
    model = build([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": weight}, x=(1, 6, 9, 9))
    one, same, other = (FactorizeCP(rank=12)(model, Workbench(seed=seed)).model.to_proto() for seed in (1, 1, 2))
    assert one == same
    assert one != other


@pytest.mark.parametrize(
    "each",
    [
        FactorizeSVD(rank=2),
        FactorizeSpatial(rank=2),
        FactorizeTucker(rank=2),
        FactorizeCP(rank=8),
        FactorizeTrain(rank=4),
        FactorizeSeparable(rank=2),
        FactorizeGroups(rank=2),
    ],
    ids=lambda each: each.name,
)
class TestRefusals:
    def reason(self, build: Callable[..., Model], each: FactorizePass, op: str, shape: Any, **attrs: Any) -> str:
        weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        if attrs.pop("broken", False):
            weight[0, 0] = np.nan
        node = helper.make_node(op, ["x", "w"], ["y"], name="site", **attrs)
        report = each(build([node], {"w": weight}, x=None)).report
        assert report.changes == []
        (skip,) = report.skips
        assert skip.site == "site"
        return skip.reason

    def test_not_finite(self, build, each):
        reason = self.reason(build, each, "Conv", (8, 8, 3, 3), broken=True)
        assert reason == "holds values that are not finite"

    def test_nothing_saved(self, build, each):
        reason = self.reason(build, each, "Conv", (2, 2, 2, 2))
        assert "nothing: " in reason
        assert reason.endswith("≥ 2·2·2·2")


def test_pointwise_kernels_are_left_to_svd(build):
    weight = np.random.default_rng(0).standard_normal((8, 8, 1, 1)).astype(np.float32)
    model = build([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": weight}, x=(1, 8, 5, 5))
    for each in (FactorizeTucker(rank=2), FactorizeCP(rank=2), FactorizeTrain(rank=2), FactorizeSeparable(rank=2)):
        (skip,) = each(model).report.skips
        assert skip.reason == "has a 1x1 kernel, which is a matrix: factorize-svd splits it"
    (skip,) = FactorizeSpatial(rank=2)(model).report.skips
    assert skip.reason == "has a 1x1 kernel; k x 1 and 1 x k need two sides of at least 2"
    assert len(FactorizeSVD(rank=2)(model).report.changes) == 1


def test_a_stride_can_eat_what_the_parameters_save(build):
    weight = np.random.default_rng(0).standard_normal((16, 16, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 4])
    model = build([node], {"w": weight}, x=(1, 16, 32, 32))
    (skip,) = FactorizeSpatial(rank=16)(model).report.skips
    assert skip.reason == (
        "rank 16 saves no multiply-adds: 16·(16·3·4+16·3) ≥ 16·16·3·3 for each position of the output"
    )


def test_kernels_shared_by_several_nodes_are_split_once(build, run):
    weight = np.random.default_rng(0).standard_normal((6, 6, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["t"], name="a", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["t", "w"], ["y"], name="b", strides=[2, 2]),
    ]
    model = build(nodes, {"w": weight}, x=(1, 6, 9, 9))
    result = Pipeline([FactorizeSVD(rank=10**6, always=True)])(model)
    assert len(result.model.graph.nodes) == 4
    assert len(result.model.constants()) == 2
    x = np.random.default_rng(1).standard_normal((1, 6, 9, 9)).astype(np.float32)
    np.testing.assert_allclose(run(result.model, x)[0], run(model, x)[0], rtol=1e-4, atol=1e-2)  # sums of 54 twice


def test_refuses_a_shared_kernel_if_one_use_has_groups(build):
    weight = np.random.default_rng(0).standard_normal((6, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], name="a"),
        helper.make_node("Conv", ["z", "w"], ["u"], name="b", group=2),
        helper.make_node("Concat", ["x", "x"], ["z"], axis=1),
    ]
    (skip,) = FactorizeSVD(rank=1)(build(nodes, {"w": weight}, x=(1, 3, 9, 9), outputs=("y", "u"))).report.skips
    assert skip.reason == "is shared by convolutions of 1 and 2 groups"


def test_half_precision_is_kept(build):
    weight = np.random.default_rng(0).standard_normal((8, 8, 3, 3)).astype(np.float16)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    model = build([node], {"w": weight}, x=(1, 8, 9, 9), dtype=onnx.TensorProto.FLOAT16)
    for each in (FactorizeSVD(rank=4), FactorizeTucker(rank=4), FactorizeCP(rank=4), FactorizeTrain(rank=4)):
        result = each(model)
        assert {c.dtype for c in result.model.constants()} == {np.dtype(np.float16)}
