"""Zeros and bits shared out under one size."""

import re
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxpress.calibration.feeds import open_feed
from onnxpress.passes.base import Workbench
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.prune.zeros.second_order import PruneSecondOrder
from onnxpress.passes.share import sharing
from onnxpress.passes.share.budget import ShareBudget
from onnxpress.passes.share.kmeans import ShareKMeans
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.sites import find_sites

SPARSITIES, WIDTHS = (0.0, 0.5, 0.8), (2, 4, 8)


def array(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


MIXING = array(9, 12, 48) * 2.0 ** -np.linspace(0, 4, 48, dtype=np.float32)


def samples(count, seed=0):
    """Inputs that depend on twelve causes; the first are large."""
    return [array(seed + i, 32, 12) @ MIXING + 0.05 * array(seed + 500 + i, 32, 48) for i in range(count)]


@pytest.fixture(scope="module")
def layers(build):
    """Three layers of 48 to 96 to 64 to 10, of which the second hardly matters."""
    nodes = [
        helper.make_node("Gemm", ["x", "u", "b"], ["p"], name="first"),
        helper.make_node("Relu", ["p"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["q"], name="second"),
        helper.make_node("MatMul", ["h", "s"], ["r"], name="short"),
        helper.make_node("MatMul", ["q", "w"], ["t"], name="third"),
        helper.make_node("Add", ["r", "t"], ["y"]),
    ]
    weights = {"u": array(1, 48, 96), "b": array(2, 96), "v": 0.02 * array(3, 96, 64), "s": array(5, 96, 10)}
    return build(nodes, {**weights, "w": array(4, 64, 10)}, x=["n", 48])


@pytest.fixture(scope="module")
def shown(layers):
    return Workbench(feed=open_feed([{"x": each} for each in samples(8)], inputs=layers.inputs), threads=1)


@pytest.fixture(scope="module")
def usual(layers, shown):
    """What becomes of the model for 8,000 bytes."""
    return budget(bytes=8_000)(layers, shown)


@pytest.fixture
def file_bytes(tmp_path):
    """What a model takes once it is encoded."""

    def measure(model, **options):
        Pipeline([Encode(**options)], normalise=False)(model).model.save(tmp_path / "model.onnx")
        return (tmp_path / "model.onnx").stat().st_size

    return measure


@pytest.fixture
def sqnr(run):
    """How near the outputs of two models are on samples that no pass saw, in dB."""

    def between(model, original):
        unseen = np.concatenate(samples(8, seed=1000))
        wanted, found = (run(each, unseen)[0].astype(float) for each in (original, model))
        return 10 * np.log10((wanted**2).sum() / ((wanted - found) ** 2).sum())

    return between


def budget(**options):
    return ShareBudget(**{"sparsities": SPARSITIES, "widths": WIDTHS, "min_size": 64, **options})


@pytest.mark.parametrize(("target", "samples_given"), [(12_000, True), (6_500, True), (9_000, False)])
def test_lands_just_under_the_size_of_the_file(layers, shown, file_bytes, target, samples_given):
    result = budget(bytes=target)(layers, shown if samples_given else None)
    assert 0.97 * target < file_bytes(result.model) <= target
    assert not any("more than they may" in each for each in result.report.warnings)


def test_lands_under_the_size_without_huffman_codes(layers, shown, file_bytes):
    result = budget(bytes=11_000, huffman=False)(layers, shown)
    assert 0.9 * 11_000 < file_bytes(result.model, huffman=False) <= 11_000
    for site in find_sites(result.model):
        assert np.unique(site.array()).size in range(2, 257)


def test_only_as_many_weights_have_huffman_codes_as_memory_suffices_for(layers):
    found = {site.name: site.array() for site in find_sites(budget(bits=6, max_load_bytes=450 * 6_000)(layers).model)}
    assert np.unique(found["second"]).size in (2, 4, 8, 16, 32, 64, 256)  # the largest
    assert np.unique(found["short"]).size not in (2, 4, 8, 16, 32, 64, 256)


@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_loses_less_than_one_setting_for_all(layers, shown, file_bytes, sqnr, sparsity):
    shared = ShareKMeans(bits=3, importance="hessian", refit=True, min_size=64)
    zeros = [PruneSecondOrder(sparsity=sparsity, min_size=64)] if sparsity else []
    peer = Pipeline([*zeros, shared], normalise=False)(layers, shown).model
    ours = budget(bytes=file_bytes(peer))(layers, shown).model
    assert file_bytes(ours) <= file_bytes(peer)
    assert sqnr(ours, layers) > sqnr(peer, layers) + 1


def test_the_layer_that_hardly_matters_takes_fewest_bits(usual):
    told = {change.site: change.action for change in usual.report.changes}
    bits = {site: float(each.split(" bits a weight")[0].split()[-1]) for site, each in told.items()}
    assert bits["second"] < 0.7 * min(bits["first"], bits["short"])


@pytest.mark.parametrize(("options", "ratio"), [({"ratio": 9}, 9), ({"bits": 4}, 8)])
def test_meets_targets_of_the_weights_alone(layers, shown, file_bytes, options, ratio):
    dense = sum(site.nbytes for site in find_sites(layers))
    rest = 900  # graph, bias and declarations, roughly
    result = budget(**options)(layers, shown)
    assert file_bytes(result.model) <= dense / ratio + rest
    assert file_bytes(result.model) > 0.95 * dense / ratio


def test_is_deterministic_and_leaves_the_model_as_it_was(layers, shown, usual):
    before = [site.array().copy() for site in find_sites(layers)]
    again = budget(bytes=8_000)(layers, shown).model
    for one, other in zip(find_sites(usual.model), find_sites(again), strict=True):
        np.testing.assert_array_equal(one.array(), other.array())
    for site, old in zip(find_sites(layers), before, strict=True):
        np.testing.assert_array_equal(site.array(), old)


def test_reports_every_site_with_a_curve_and_what_it_takes(layers, usual):
    report, names = usual.report, {site.name for site in find_sites(layers)}
    assert {each.site for each in report.changes} == names
    for change in report.changes:
        assert "zeros" in change.action
        assert "bytes encoded" in change.action
        assert 0 < change.error < 1.5
    assert {(each.site, each.unit, each.where) for each in report.curves} == {
        (name, "bytes", "outputs") for name in names
    }
    for curve in report.curves:
        assert list(curve.errors) == sorted(curve.errors, reverse=True)


def test_leaves_what_is_excluded(layers):
    report = budget(bits=4, include=("Gemm",))(layers).report
    assert [each.site for each in report.changes] == ["first"]
    assert {each.reason for each in report.skips} == {"excluded by the recipe"}


def test_leaves_weights_alone_where_there_is_room(layers, shown):
    report = budget(bits=31.9)(layers, shown).report
    assert any(each.reason.startswith("stays as it is: its ") for each in report.skips)
    assert all(change.error < 0.02 for change in report.changes)


def test_says_what_can_be_met_where_the_target_cannot(layers, file_bytes):
    with pytest.raises(
        ConfigError, match=r"bytes 900 cannot be met; .* the least is [\d,]+, of which the rest"
    ) as told:
        budget(bytes=900)(layers)
    least = int(str(told.value).split("the least is ")[1].split(", of")[0].replace(",", ""))
    assert file_bytes(budget(bytes=round(1.05 * least))(layers).model) <= 1.05 * least
    with pytest.raises(ConfigError, match="ratio 1000 cannot be met"):
        budget(ratio=1000)(layers)
    with pytest.raises(ConfigError, match=r"bits 0\.01 cannot be met"):
        budget(bits=0.01)(layers)


def test_without_samples_weights_are_judged_by_themselves(layers):
    report = budget(bits=3)(layers).report
    assert report.warnings == ["no samples: weights are judged by their own errors; give some with --data"]
    assert {each.where for each in report.curves} == {"layer"}
    assert len(report.changes) == 4


def test_an_embedding_is_judged_by_itself_and_by_the_outputs(build, run):
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["e"], name="look_up"),
        helper.make_node("MatMul", ["e", "w"], ["y"], name="head"),
    ]
    model = build(
        nodes,
        {"table": array(0, 200, 24), "w": array(1, 24, 60)},
        x=["n"],
        dtype=TensorProto.INT64,
        gives=TensorProto.FLOAT,
    )
    feed = open_feed([{"x": np.arange(200)[i::4]} for i in range(4)], inputs=model.inputs)
    result = budget(bits=7)(model, Workbench(feed=feed, threads=1))
    told = {each.site: each.action for each in result.report.changes}
    assert told["look_up"].endswith("by the weights themselves: its rows are looked up, not summed")
    assert "by the weights themselves" not in told["head"]
    wanted, found = (run(each, np.arange(200))[0] for each in (model, result.model))
    assert np.linalg.norm(wanted - found) < 0.15 * np.linalg.norm(wanted)


def test_leaves_weights_that_encode_cannot_store(build):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")]
    model = build(nodes, {"w": array(0, 40, 40)}, x=["n", 40], opset=8)
    (skip,) = budget(bits=3)(model).report.skips
    assert skip.reason.startswith("encode leaves it as it is: opset 8 lacks operators")


def test_a_pruned_weight_gets_no_denser(layers, shown):
    pruned = PruneSecondOrder(sparsity=0.7, min_size=64)(layers, shown).model
    after = budget(bits=3)(pruned, shown).model
    for one, other in zip(find_sites(pruned), find_sites(after), strict=True):
        assert np.count_nonzero(other.array()) <= np.count_nonzero(one.array())


def test_weights_that_are_no_numbers_are_left(build):
    broken = array(0, 40, 40)
    broken[0, 0] = np.nan
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["h"], name="broken"),
        helper.make_node("MatMul", ["h", "w"], ["y"], name="sound"),
    ]
    model = build(nodes, {"v": broken, "w": array(1, 40, 40)}, x=["n", 40])
    report = budget(bits=8)(model).report
    assert [each.site for each in report.changes] == ["sound"]
    assert [each.site for each in report.skips] == ["broken"]


def test_skips_a_weight_that_is_zero_throughout(build):
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["h"], name="empty"),
        helper.make_node("MatMul", ["x", "w"], ["i"], name="full"),
        helper.make_node("Add", ["h", "i"], ["y"]),
    ]
    model = build(nodes, {"v": np.zeros((40, 40), np.float32), "w": array(1, 40, 40)}, x=["n", 40])
    report = budget(bits=8)(model).report
    assert [each.site for each in report.changes] == ["full"]
    assert [(each.site, each.reason) for each in report.skips] == [("empty", "all its weights are zero already")]


def test_leaves_all_as_it_is_where_nothing_need_go(layers):
    report = budget(ratio=1)(layers).report
    assert not report.changes
    assert len(report.skips) == 4


def test_does_not_warn_of_a_weight_that_fits_as_it_is(build):
    few = np.random.default_rng(0).choice(np.float32([-2, -1, 1, 3]), (64, 64))
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")], {"w": few}, x=["n", 64])
    report = budget(bits=4)(model).report
    assert not any("not shared" in each for each in report.warnings)


def test_measures_once_for_one_size_after_another(layers, shown, usual, file_bytes, monkeypatch):
    known = budget(ratio=2).measure(layers, shown)
    monkeypatch.setattr("onnxpress.passes.share.sharing.by_layer", None)  # nothing is measured any more
    sizes = [file_bytes(known.at(bytes=target).model) for target in (6_500, 8_000, 12_000)]
    assert all(0.97 * target < size <= target for size, target in zip(sizes, (6_500, 8_000, 12_000), strict=True))
    again = known.at(bytes=8_000)
    for one, other in zip(find_sites(usual.model), find_sites(again.model), strict=True):
        np.testing.assert_array_equal(one.array(), other.array())
    assert [change.action for change in again.report.changes] == [change.action for change in usual.report.changes]
    assert {each.site.name for each in known.measured} == {site.name for site in find_sites(layers)}
    with pytest.raises(ConfigError, match="cannot be met"):
        known.at(bytes=known.least_bytes - 1)


def test_tells_what_the_outputs_lost_on_samples_held_out(usual):
    (note,) = usual.report.notes
    assert re.fullmatch(r"outputs [\d.]+ dB on samples held out, [\d.]+ predicted", note)


def test_bytes_are_shared_out_again_where_the_outputs_are_far_from_what_was_predicted(
    layers, shown, usual, monkeypatch
):
    """Predicted is that the layer that matters most does no harm; what it does is seen at the end."""

    def blind(model, site, pair, grid, trials):
        found = by_layer(model, site, pair, grid, trials)
        return replace(found, harms=((0.03, 1e-6),)) if site.name == "short" else found

    by_layer = sharing.by_layer
    monkeypatch.setattr(sharing, "by_layer", blind)
    second = budget(bytes=8_000)(layers, shown)
    monkeypatch.setattr(sharing, "_FAR", np.inf)
    first = budget(bytes=8_000)(layers, shown)
    lost = [float(each.report.notes[-1].split()[1]) for each in (first, second)]
    assert lost[0] < lost[1] - 1


def test_only_as_many_weights_have_huffman_codes_as_there_is_time_for(layers):
    tried, sites = budget(bits=6, max_load_seconds=0.02).tried, find_sites(layers)
    assert tried.light(sites) == {"third", "short"}  # the smallest
    assert budget(bits=6).tried.light(sites) == {site.name for site in sites}
    assert budget(bits=6, max_load_seconds=0).tried.light(sites) == set()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give exactly one of bytes, ratio, bits; got none"),
        ({"bytes": 10, "bits": 3}, "got bytes 10 and bits 3"),
        ({"bytes": 0}, "bytes must be a whole number of at least 1, got 0"),
        ({"ratio": 0.5}, "ratio must be a number of at least 1, got 0.5"),
        ({"bits": 33}, r"bits must lie in \(0, 32\], got 33"),
        ({"bits": 3, "sparsities": [1.0]}, r"sparsities must list sparsities in \[0, 1\)"),
        ({"bits": 3, "widths": []}, "widths must list whole numbers from 1 to 8"),
        ({"bits": 3, "widths": [9]}, "widths must list whole numbers from 1 to 8"),
        ({"bits": 3, "max_load_bytes": -1}, "max_load_bytes must be a whole number of at least 0, got -1"),
        ({"bits": 3, "max_load_seconds": -1}, "max_load_seconds must be a number of at least 0, got -1"),
        ({"bits": 3, "huffman": 1}, "huffman must be true or false"),
        ({"bits": 3, "vary": "no"}, "vary must be true or false"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ConfigError, match=f"share-budget: .*{message}"):
        ShareBudget(**options)
