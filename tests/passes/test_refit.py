"""Layers of pruned models, refitted: better on samples that nobody saw, and otherwise as they were."""

import math

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.equations import equations
from onnxpress.passes.kernels.normal import Normal
from onnxpress.passes.refit import Pair, refit, refit_site, zeros_of
from onnxpress.passes.report import Report
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.sites import find_sites

DRAW = np.random.default_rng(0)


def array(*shape):
    return DRAW.standard_normal(shape).astype(np.float32)


MIXING = array(3, 12) / 2


def samples(count, rows=16):
    """Twelve inputs that depend on three causes."""
    return [array(rows, 3) @ MIXING + 0.05 * array(rows, 12) for _ in range(count)]


@pytest.fixture
def layers(two_layers):
    """x @ w + b -> Relu -> @ v + c -> y, 12 to 10 to 4."""
    return two_layers(w=array(12, 10), b=array(10), v=array(10, 4), c=array(4))


def pruned(model):
    """Three of the ten neurons less."""
    less, kept = model.clone(), np.array([0, 1, 3, 4, 6, 7, 9])
    for constant in less.constants():
        axis = {"w": 1, "b": 0, "v": 0}.get(constant.name)
        if axis is not None:
            less.replace_weight(constant, less.array(constant).take(kept, axis))
    return less, {"first": kept}


def distance(run, model, original):
    unseen = np.concatenate(samples(8))
    wanted = run(original, unseen)[0]
    return float(np.linalg.norm(run(model, unseen)[0] - wanted) / np.linalg.norm(wanted))


def test_makes_up_for_neurons_that_are_gone(layers, bench, run):
    model, kept = pruned(layers)
    before, report = distance(run, model, layers), Report("refit")
    refit(model, layers, find_sites(model), bench(layers, *samples(8)), report, kept_out=kept)
    assert distance(run, model, layers) < before / 2
    (change,) = report.changes
    assert change.site == "second"
    assert change.action.startswith("refitted: output error ")
    assert change.error > 0
    (skip,) = report.skips
    assert skip.site == "first"
    assert skip.reason == "is not refitted: its output is as before, there is nothing to make up for"


def test_weights_that_are_zero_stay_zero(layers, bench, run):
    model = layers.clone()
    first, second = find_sites(model)
    masks = {}
    for site in (first, second):
        masks[site.name] = np.abs(site.array()) > np.quantile(np.abs(site.array()), 0.5)
        model.replace_weight(site.weight, site.array() * masks[site.name])
    before, report = distance(run, model, layers), Report("refit")
    refit(model, layers, [first, second], bench(layers, *samples(8)), report)
    assert distance(run, model, layers) < before / 2
    for site in (first, second):
        np.testing.assert_array_equal(site.array() != 0, masks[site.name])
    assert [change.site for change in report.changes] == ["first", "second"]


def test_leaves_what_is_as_before(layers, bench):
    model, report = layers.clone(), Report("refit")
    refit(model, layers, find_sites(model), bench(layers, *samples(4)), report)
    assert not report.changes
    assert model.to_proto().SerializeToString() == layers.to_proto().SerializeToString()
    assert [skip.site for skip in report.skips] == ["first", "second"]


def test_leaves_what_samples_held_out_do_not_want_changed(layers):
    """To fit: noise on few rows. Held out: what the layer gives."""
    model = layers.clone()
    site = find_sites(model)[1]
    weight = site.array().T
    few, many = array(1, 12, 10), array(1, 90, 10)
    noise = 3 * array(1, 12, 4)
    given = many @ weight.T
    pair = Pair(Normal.of(few, few @ weight.T + noise), Normal.of(many, given + 0.01 * array(1, 90, 4)))
    choice = refit_site(model, site, pair, ridges=(0.1, 0.01))
    assert math.isinf(choice.ridge)
    assert choice.after == choice.before > 0
    assert model.to_proto().SerializeToString() == layers.to_proto().SerializeToString()


def test_a_layer_that_is_left_alone_is_in_the_report(build, bench):
    """One of two neurons goes. To fit, it gives what the other gives; in the last batch, held out, the opposite."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], name="first"),
        helper.make_node("MatMul", ["p", "v"], ["y"], name="second"),
    ]
    original = build(nodes, {"w": np.eye(2, dtype=np.float32), "v": np.float32([[1], [0.5]])}, x=["n", 2])
    model, report = original.clone(), Report("refit")
    first, second = find_sites(model)
    model.replace_weight(first.weight, first.array()[:, :1])
    model.replace_weight(second.weight, second.array()[:1])
    other = np.float32([[1, 1]] * 3 + [[1, -1]])
    batches = [array(16, 1) * row for row in other]
    refit(model, original, [first, second], bench(original, *batches), report, kept_out={"first": np.array([0])})
    assert not report.changes
    assert [skip.reason for skip in report.skips] == [
        "is not refitted: its output is as before, there is nothing to make up for",
        "is not refitted: that does not lower the error of its output on held-out samples, 100 %",
    ]
    np.testing.assert_array_equal(second.array(), [[1]])


def test_a_layer_that_is_too_wide_is_in_the_report(build, bench):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], name="first"),
        helper.make_node("Tile", ["p", "times"], ["q"]),
        helper.make_node("MatMul", ["q", "v"], ["y"], name="wide"),
    ]
    weights = {"w": array(12, 10), "times": np.array([1, 820]), "v": array(8200, 2)}
    original = build(nodes, weights, x=["n", 12])
    model, report = original.clone(), Report("refit")
    first, wide = find_sites(model)
    model.replace_weight(first.weight, first.array() + 0.3)
    refit(model, original, [first, wide], bench(original, *samples(8)), report)
    assert [change.site for change in report.changes] == ["first"]
    assert [(skip.site, skip.reason) for skip in report.skips] == [
        ("wide", "is not refitted: it reads 8200 inputs: the second moments of so many take 4 GB")
    ]


@pytest.mark.parametrize("groups", [1, 2])
def test_refits_convolutions_with_a_bias_of_their_own(build, bench, run, groups):
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["p"], name="first", kernel_shape=[1, 1]),
        helper.make_node("Relu", ["p"], ["h"]),
        helper.make_node("Conv", ["h", "v"], ["y"], name="second", group=groups, pads=[1, 1, 1, 1]),
    ]
    weights = {"w": array(8, 3, 1, 1), "b": array(8), "v": array(6, 8 // groups, 3, 3)}
    original = build(nodes, weights, x=[None, 3, None, None])
    images = [array(2, 3, 6, width) for width in (5, 7, 6, 5)]
    model, report = original.clone(), Report("refit")
    first, second = find_sites(model)
    quiet = first.array() * np.array([1, 0, 1, 1, 1, 1, 0, 1], np.float32).reshape(8, 1, 1, 1)
    model.replace_weight(first.weight, quiet)
    before = np.linalg.norm(run(model, images[0])[0] - run(original, images[0])[0])
    refit(model, original, [second], bench(original, *images), report)
    assert [change.site for change in report.changes] == ["second"]
    assert len(second.node.inputs) == 3  # a bias is new
    assert np.linalg.norm(run(model, images[0])[0] - run(original, images[0])[0]) < before


def test_weights_keep_their_type(build, bench):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], name="first"),
        helper.make_node("MatMul", ["p", "v"], ["y"], name="second"),
    ]
    weights = {"w": array(12, 5).astype(np.float16), "v": array(5, 4).astype(np.float16)}
    original = build(nodes, weights, x=["n", 12], dtype=10)
    model, report = original.clone(), Report("refit")
    first, second = find_sites(model)
    noisy = first.array() + np.float16(0.3)
    model.replace_weight(first.weight, noisy)
    refit(model, original, [second], bench(original, *(each.astype(np.float16) for each in samples(6))), report)
    assert report.changes
    assert second.array().dtype == np.float16


def test_refuses_weights_that_their_type_cannot_hold(build):
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.ones((3, 2), np.float16)}, x=["n", 3])
    site, rows = find_sites(model)[0], array(1, 40, 3)
    normal = Normal.of(rows, 1e6 * rows @ array(3, 2))
    with pytest.raises(RefusalError, match="the new weight does not fit into float16"):
        refit_site(model, site, Pair(normal, normal))
    np.testing.assert_array_equal(site.array(), np.ones((3, 2)))


def test_refuses_a_bias_that_its_type_cannot_hold_and_leaves_the_weight(build):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    weights = {"w": np.ones((3, 2), np.float16), "b": np.full(2, 60000, np.float16)}
    model = build(nodes, weights, x=["n", 3], dtype=10)
    before = model.to_proto().SerializeToString()
    site, rows = find_sites(model)[0], array(1, 40, 3)
    normal = Normal.of(rows, rows @ array(3, 2) + 10000)
    with pytest.raises(RefusalError, match="the new bias does not fit into float16"):
        refit_site(model, site, Pair(normal, normal))
    assert model.to_proto().SerializeToString() == before


def test_equations_may_be_used_again(layers, bench):
    model = layers.clone()
    site = find_sites(model)[1]
    model.replace_weight(site.weight, site.array() + 0.5)
    pair = dict(equations(model, layers, [site], bench(layers, *samples(4))))[site]
    before = [part.moment.copy() for part in (pair.fit, pair.held_out)]
    assert math.isfinite(refit_site(model, site, pair).ridge)
    for part, moment in zip((pair.fit, pair.held_out), before, strict=True):
        np.testing.assert_array_equal(part.moment, moment)


def test_equations_that_do_not_fit_are_a_reason(layers, bench):
    model = layers.clone()
    site = find_sites(model)[1]
    _, (_, pair) = equations(model, layers, find_sites(model), bench(layers, *samples(4)))
    model.replace_weight(site.weight, site.array()[1:])
    with pytest.raises(RefusalError, match=r"weights of shape \[4, 9\] do not fit equations for \[4, 10\]"):
        refit_site(model, site, pair)


def test_reasons_go_to_the_report(layers, bench):
    model, _ = pruned(layers)
    report = Report("refit")
    for site in find_sites(model):
        if site.name == "second":
            model.replace_weight(site.weight, site.array() * np.float32(np.nan))
    refit(model, layers, find_sites(model), bench(layers, *samples(4)), report)
    first, second = (skip.reason for skip in report.skips)
    assert first == "is not refitted: it has 7 outputs of the 10 that the original has, and nothing tells which"
    assert second == "is not refitted: weights or rows are not finite"


def test_a_mask_is_what_is_not_zero():
    assert zeros_of(np.ones((2, 2))) is None
    np.testing.assert_array_equal(zeros_of(np.array([[0.0, 2.0]])), [[False, True]])
