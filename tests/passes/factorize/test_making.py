"""Chosen chains, fitted one after the other, and layers behind that make up for them."""

import numpy as np
import pytest

from onnxpress.calibration.metrics import sqnr
from onnxpress.passes.factorize import fitting, making
from onnxpress.passes.factorize.making import make
from onnxpress.passes.factorize.offers import Offer
from onnxpress.passes.factorize.schemes.channel import SVDScheme
from onnxpress.passes.factorize.schemes.spatial import SpatialScheme
from onnxpress.passes.factorize.schemes.tucker import TuckerScheme
from onnxpress.passes.kernels.least_squares import Choice
from onnxpress.rewriter.sites import find_sites


@pytest.fixture
def x():
    return np.random.default_rng(77).standard_normal((64, 8, 6, 6)).astype(np.float32)


def choice_of(**plans):
    return {name: Offer(name, scheme, ranks, 0.0, 0.0, 0.0) for name, (scheme, ranks) in plans.items()}


def test_chains_take_the_places_of_the_layers_that_were_chosen(layers, samples, run, x):
    made = make(layers, choice_of(conv=(SpatialScheme(), (20,)), low=(SVDScheme(), (16,))), samples)
    names = [node.name for node in made.model.graph.nodes if node.op in ("Conv", "Gemm", "MatMul")]
    assert names == ["conv_vertical", "conv_horizontal", "low_narrow", "low_wide", "full"]
    assert sqnr(run(layers, x)[0], run(made.model, x)[0]) > 20
    assert [change.site for change in made.report.changes] == ["conv", "low"]
    assert len(layers.graph.nodes) == 6


def test_layers_behind_make_up_for_chains(layers, samples, monkeypatch):
    tried = []

    def refit_site(model, site, pair):
        tried.append(site.name)
        model.replace_weight(site.weight, 0.9 * site.array())
        return Choice(0.1, 0.5, 0.4)

    monkeypatch.setattr(making, "refit_site", refit_site)
    made = make(layers, choice_of(low=(SVDScheme(), (8,))), samples, refitted=("conv", "low", "full"))
    assert tried == ["full"]  # the convolution lies before
    actions = {change.site: change.action for change in made.report.changes}
    assert actions["full"] == "refitted: output error 50 % -> 40 % (ridge 0.1)"
    assert set(actions) == {"low", "full"}


def test_what_cannot_be_fitted_stays_with_the_reason(layers, samples, monkeypatch):
    for site in find_sites(layers):
        if site.name == "conv":
            broken = site.array().copy()
            broken[0, 0, 0, 0] = np.nan
            layers.replace_weight(site.weight, broken)
    made = make(layers, choice_of(conv=(TuckerScheme(), (8, 4))), samples)
    assert made.refused == {"conv": "holds values that are not finite"}
    assert not made.choice
    assert next(node.name for node in made.model.graph.nodes) == "conv"


@pytest.mark.parametrize(("refitted", "asked"), [((), 1), (None, 0)])
def test_chains_make_up_for_others_only_where_something_is_refitted(layers, samples, monkeypatch, refitted, asked):
    ridges = []
    monkeypatch.setattr(fitting, "ridge_for", lambda *given, bias: ridges.append(0.1) or 0.1)
    make(layers, choice_of(low=(SVDScheme(), (8,))), samples, refitted=refitted)
    assert len(ridges) == asked
