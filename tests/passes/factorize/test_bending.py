"""Factors whose outputs are right behind the activation that reads them."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.aims import Aim, shift_for
from onnxpress.passes.equations import equations
from onnxpress.passes.factorize.bending import bend_of
from onnxpress.passes.factorize.cp import FactorizeCP
from onnxpress.passes.factorize.making import make
from onnxpress.passes.factorize.offers import Offer
from onnxpress.passes.factorize.schemes.channel import ChannelScheme
from onnxpress.passes.factorize.schemes.layer import rows_of
from onnxpress.passes.factorize.spatial import FactorizeSpatial
from onnxpress.passes.factorize.svd import FactorizeSVD
from onnxpress.passes.factorize.tucker import FactorizeTucker
from onnxpress.passes.factorize.wanted import Wanted
from onnxpress.rewriter.sites import find_sites

DRAW = np.random.default_rng(0)
WEIGHTS = {
    "w": DRAW.standard_normal((24, 16)).astype(np.float32) / 5,
    "b": DRAW.standard_normal(16).astype(np.float32) - 1,
    "k": DRAW.standard_normal((12, 6, 3, 3)).astype(np.float32) / 7,
    "c": DRAW.standard_normal(12).astype(np.float32) - 1,
    "six": np.array(0.8, np.float32),
    "zero": np.array(0, np.float32),
    "0": np.array([0]),
    "1": np.array([1]),
    "8": np.array([8]),
    "16": np.array([16]),
}


def node(op, inputs, output, name="", **attrs):
    return helper.make_node(op, inputs, [output], name=name, **attrs)


FC = node("Gemm", ["x", "w", "b"], "p", name="layer")
CONV = node("Conv", ["x", "k", "c"], "p", name="layer", pads=[1] * 4)
READERS = {
    "relu": [node("Relu", ["p"], "y")],
    "clip": [node("Clip", ["p", "zero", "six"], "y")],
    "leaky": [node("LeakyRelu", ["p"], "y", alpha=0.05)],
    "added": [node("Add", ["p", "r"], "q"), node("Relu", ["q"], "y")],
    "maxout": [
        node("Slice", ["p", "0", "8", "1"], "m"),
        node("Slice", ["p", "8", "16", "1"], "n"),
        node("Max", ["m", "n"], "y"),
    ],
}


def matrix(build, reader):
    beside = [node("Slice", ["x", "0", "16", "1"], "r")] if reader == "added" else []
    return build([*beside, FC, *READERS[reader]], WEIGHTS, x=("n", 24))


def batches(count, seed, *shape):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((64, *shape)).astype(np.float32) for _ in range(count)]


def errors(each, model, taught, unseen, run):
    """Of the outputs, by factors fitted before the activation and behind it; and what is told of the layer."""
    found, reports = [], []
    for nonlinear in (False, True):
        result = each(nonlinear=nonlinear)(model, taught)
        expected, given = (run(one, unseen)[0] for one in (model, result.model))
        found.append(float(np.linalg.norm(given - expected) / np.linalg.norm(expected)))
        reports.append(result.report.changes[0])
    return found, reports


@pytest.mark.parametrize("reader", list(READERS))
def test_outputs_are_nearer_behind_the_activation(reader, build, bench, run):
    model = matrix(build, reader)
    taught, (unseen,) = bench(model, *batches(16, 1, 24)), batches(1, 2, 24)
    found, reports = errors(lambda **options: FactorizeSVD(rank=6, **options), model, taught, unseen, run)
    assert found[1] < 0.97 * found[0]
    assert ", behind " not in reports[0].action
    assert ", behind " in reports[1].action


@pytest.mark.parametrize("each", [FactorizeSpatial, FactorizeTucker, FactorizeCP])
def test_factors_of_any_scheme_are(each, build, bench, run):
    model = build([CONV, *READERS["relu"]], WEIGHTS, x=("n", 6, 8, 8))
    taught, unseen = bench(model, *batches(4, 1, 6, 8, 8)), batches(1, 2, 6, 8, 8)[0]
    found, reports = errors(lambda **options: each(ratio=0.5, **options), model, taught, unseen, run)
    assert found[1] < 0.98 * found[0]
    assert reports[0].error != reports[1].error


def test_a_layer_that_nothing_bends_stays_as_it_was(build, bench):
    model = build([FC, node("Sigmoid", ["p"], "y")], WEIGHTS, x=("n", 24))
    taught = bench(model, *batches(8, 1, 24))
    one, other = (FactorizeSVD(rank=6, nonlinear=nonlinear)(model, taught) for nonlinear in (False, True))
    assert one.model.to_proto() == other.model.to_proto()


@pytest.mark.parametrize("option", ["refit", "correct"])
def test_factors_that_learn_less_from_samples_do_without(option, build, bench):
    model = matrix(build, "relu")
    taught = bench(model, *batches(8, 1, 24))
    one, other = (
        FactorizeSVD(rank=6, nonlinear=nonlinear, **{option: False})(model, taught) for nonlinear in (False, True)
    )
    assert one.model.to_proto() == other.model.to_proto()


def test_what_is_added_must_be_known(build, bench):
    model = matrix(build, "added")
    (site,), taught = find_sites(model), bench(model, *batches(8, 1, 24))
    for original, known in ((model.clone(), True), (model, False)):  # of a model that is its own none is kept
        ((_, pair),) = equations(model, original, [site], taught, kept=[site.name])
        assert (bend_of(model, site, pair) is not None) == known


def test_rows_held_out_decide(build, bench):
    model = matrix(build, "relu")
    (site,) = find_sites(model)
    ((_, pair),) = equations(model, model.clone(), [site], bench(model, *batches(8, 1, 24)), kept=[site.name])
    aim = Aim.of(pair.fit, rows_of(site), np.inf, bias=True)
    wanted, form = Wanted(site, aim.target, aim.metric, seed=0), (ChannelScheme(), (6,))
    start, bend = wanted.fit(*form), bend_of(model, site, pair)
    trial = bend.trial(wanted, form, start, rival=None)
    assert trial.after < 0.95 * trial.before
    # what the factors give already is as right as can be
    shift = shift_for(pair.fit, start.dense(), bias=True).astype(np.float32)
    right = tuple(replace(rows, outputs=rows.product(start.dense()) + shift) for rows in pair.rows[1])
    sated = replace(bend, pair=replace(pair, rows=(pair.rows[0], right)))
    assert sated.trial(wanted, form, start, rival=None) is None
    assert sated.trial(wanted, form, start, rival=wanted.fit(ChannelScheme(), (1,))) is not None


def test_the_same_samples_give_the_same_factors(build, bench):
    model = matrix(build, "relu")
    one, other = (FactorizeSVD(rank=6, nonlinear=True)(model, bench(model, *batches(8, 1, 24))) for _ in range(2))
    assert one.model.to_proto() == other.model.to_proto()


@pytest.mark.parametrize(
    ("options", "expected"), [({"nonlinear": True}, True), ({}, False), ({"nonlinear": True, "refitted": None}, False)]
)
def test_chosen_chains_are_fitted_so_too(options, expected, build, bench):
    model = matrix(build, "relu")
    choice = {"layer": Offer("layer", ChannelScheme(), (6,), 0.0, 0.0, 0.0)}
    (change,) = make(model, choice, bench(model, *batches(16, 1, 24)), **options).report.changes
    assert (", behind Relu " in change.action) == expected
