"""Errors of layers at every rank, and what they do to the outputs of the model."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.factorize.curves import measured
from onnxpress.passes.factorize.latency import Ladder
from onnxpress.passes.factorize.prospects import ladders_of
from onnxpress.passes.factorize.schemes.channel import SVDScheme
from onnxpress.passes.factorize.svd import FactorizeSVD
from onnxpress.passes.report import Report
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.sites import find_sites


def known_of(model, bench, *names):
    report = Report("test")
    ladders = ladders_of(model, find_sites(model), names or ("svd", "spatial", "tucker"), report)
    return {each.site.name: each for each in measured(model, ladders, bench, report)}, report


def test_singular_values_tell_the_error_at_every_rank(build, bench, random):
    weight = (random.standard_normal((48, 40)) * np.geomspace(1, 0.01, 40)).astype(np.float32)
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], {"w": weight}, x=("n", 48))
    batches = (random.standard_normal((8, 256, 48)) @ random.standard_normal((48, 48))).astype(np.float32)
    known, _ = known_of(model, bench(model, *batches))
    (found,) = known.values()
    (ladder,) = found.ladders
    for (rank,), noise in zip(ladder.ranks[::2], found.noise["svd"][::2], strict=True):
        fitted = FactorizeSVD(rank=rank, always=True)(model, bench(model, *batches)).model
        first, second = (site.array() for site in find_sites(fitted))
        wanted, given = batches @ weight, batches @ (first @ second)
        # What samples held out add is told at one rank, and taken for the same at the others.
        np.testing.assert_allclose(
            noise, np.square(given - wanted).sum() / np.square(wanted).sum(), rtol=0.25, atol=1e-9
        )


def test_noise_falls_with_the_rank(layers, samples):
    known, _ = known_of(layers, samples, "svd", "channel", "spatial", "tucker", "cp", "train", "groups")
    assert set(known) == {"conv", "low", "full"}
    assert {"channel", "spatial", "tucker", "cp", "train", "groups"} <= set(known["conv"].noise)
    for each in known.values():
        for ladder in each.ladders:
            noise = each.noise[ladder.scheme.name]
            assert noise.shape == (len(ladder.ranks),)
            order = np.argsort(ladder.work, kind="stable")
            assert (np.diff(noise[order]) <= 1e-12).all()


def test_low_ranks_are_seen(layers, samples):
    known, _ = known_of(layers, samples, "svd")
    at = {name: dict(zip(each.ladders[0].ranks, each.noise["svd"], strict=True)) for name, each in known.items()}
    assert at["low"][(16,)] < 1e-3 < 0.1 < at["low"][(8,)]
    assert at["full"][(16,)] > 20 * at["low"][(16,)]


def test_harm_is_what_the_outputs_suffer(layers, samples):
    known, _ = known_of(layers, samples, "svd")
    # The last layer makes the output: its noise is that of the model.
    assert known["full"].harm == pytest.approx(1, rel=0.3)


def test_a_weight_that_others_read_is_skipped_with_the_reason(layers, samples):
    layers.graph.outputs.append(next(site.weight for site in find_sites(layers) if site.name == "low"))
    known, report = known_of(layers, samples, "svd")
    assert "low" not in known
    assert [(skip.site, skip.reason) for skip in report.skips if skip.site == "low"] == [
        ("low", "its weight is an output, too, so it must stay as it is")
    ]


def test_the_report_has_the_least_noise_for_the_work_that_goes(layers, samples):
    known, report = known_of(layers, samples)
    curves = {curve.site: curve for curve in report.curves}
    assert set(curves) == set(known)
    curve = curves["conv"]
    assert curve.unit == "multiply-adds"
    assert list(curve.errors) == sorted(curve.errors, reverse=True)


def test_needs_samples(layers):
    site = find_sites(layers)[1]
    with pytest.raises(FeedError, match="samples"):
        measured(layers, {site: [Ladder.of(SVDScheme(), site)]}, Workbench(), Report("test"))
