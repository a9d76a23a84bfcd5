"""How sparse each layer becomes."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.prune.zeros import budget
from onnxpress.passes.prune.zeros.budget import Budget, Pruner, shares
from onnxpress.passes.prune.zeros.criteria import Criterion
from onnxpress.passes.prune.zeros.patterns import Form, Unstructured
from onnxpress.passes.prune.zeros.targets import Aim
from onnxpress.passes.report import Report
from onnxpress.rewriter.sites import find_sites


@pytest.fixture(scope="module")
def sites(build):
    """Layers of very different sizes."""
    names = ["x", "p", "q", "y"]
    widths = (10, 30, 33, 1)
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]], name=f"fc{i}") for i in range(3)]
    draw = np.random.default_rng(0)
    weights = {f"w{i}": draw.standard_normal((widths[i], widths[i + 1])).astype(np.float32) for i in range(3)}
    model = build(nodes, weights, x=("n", 10))
    return model, find_sites(model)


def known(site, sparsity, *, steepness=2.0, harm=1.0):
    """A layer whose noise is a power of what goes."""
    densities = np.geomspace((1 - sparsity) / 8, max(0.9, 1 - sparsity), 7)
    return Budget(site, densities, 0.5 * (1 - densities) ** steepness, harm)


@pytest.fixture
def shared(sites, monkeypatch):
    """What is shared out where the layers are known to be such."""

    def of(sparsity, budgets):
        model, found = sites
        monkeypatch.setattr(budget, "open_trials", lambda *_: nullcontext())
        monkeypatch.setattr(budget, "_measured", lambda *_: iter(budgets))
        report = Report("prune")
        pruner = Pruner(lambda site: Criterion("magnitude", Unstructured(), Form.of(site)), reconstruct=False)
        given = shares(model, Aim(sparsity, tuple(found)), pruner, "error", Workbench(), report)
        return {site.name: part for site, part in given.items()}, report

    return of


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    sparsity=st.floats(0.02, 0.95),
    steepness=st.lists(st.floats(0.2, 6), min_size=3, max_size=3),
    harms=st.lists(st.floats(1e-6, 1e6), min_size=3, max_size=3),
)
def test_all_together_are_as_sparse_as_asked_and_none_sparser_than_it_was_tried(sites, sparsity, steepness, harms):
    model, found = sites
    budgets = [
        known(site, sparsity, steepness=each, harm=harm)
        for site, each, harm in zip(found, steepness, harms, strict=True)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "open_trials", lambda *_: nullcontext())
        patch.setattr(budget, "_measured", lambda *_: iter(budgets))
        pruner = Pruner(lambda site: Criterion("magnitude", Unstructured(), Form.of(site)), reconstruct=False)
        given_out = shares(model, Aim(sparsity, tuple(found)), pruner, "error", Workbench(), Report("prune"))
    gone = sum(part * site.size for site, part in given_out.items())
    assert gone == pytest.approx(sparsity * sum(site.size for site in found), rel=1e-9)
    for each in budgets:
        assert -1e-12 <= given_out[each.site] <= 1 - each.densities[0] * (1 - 1e-6)


def test_a_layer_that_harms_the_outputs_more_stays_denser(sites, shared):
    _, found = sites
    even, _ = shared(0.5, [known(site, 0.5) for site in found])
    found_out, _ = shared(
        0.5, [known(site, 0.5, harm=harm) for site, harm in zip(found, (100.0, 1.0, 1.0), strict=True)]
    )
    assert found_out["fc0"] < even["fc0"]
    assert found_out["fc1"] > even["fc1"]


@pytest.mark.parametrize("wrong", [math.inf, math.nan])
def test_a_harm_that_is_no_number_is_the_usual_one(sites, shared, wrong):
    _, found = sites
    one, report = shared(0.5, [known(s, 0.5, harm=h) for s, h in zip(found, (wrong, 0.25, 4.0), strict=True)])
    other, _ = shared(0.5, [known(s, 0.5, harm=h) for s, h in zip(found, (2.125, 0.25, 4.0), strict=True)])
    assert one == other  # the median of 0.25 and 4
    assert all(np.isfinite(curve.errors).all() for curve in report.curves)


def test_where_no_harm_is_known_layers_count_alike(sites, shared):
    _, found = sites
    assert (
        shared(0.5, [known(s, 0.5, harm=math.nan) for s in found])[0] == shared(0.5, [known(s, 0.5) for s in found])[0]
    )


@settings(deadline=None, derandomize=True, max_examples=60)
@given(steps=st.lists(st.floats(0, 1), min_size=7, max_size=7), harm=st.floats(1e-9, 1e9))
def test_denser_is_never_foretold_to_be_worse_and_whole_costs_nothing(sites, steps, harm):
    noise = np.cumsum(steps)[::-1]
    one = Budget(sites[1][0], np.geomspace(0.05, 0.9, 7), noise, harm)
    found = one.predicted(np.linspace(0.05, 1, 200))
    assert found[-1] == 0
    assert (np.diff(found) <= 1e-9 * harm * max(1.0, noise[0])).all()
    np.testing.assert_allclose(
        one.predicted(one.densities), harm * noise, rtol=1e-9, atol=1e-9 * harm * (noise[0] + 1e-30)
    )


def test_a_layer_that_no_samples_reach_costs_nothing(sites):
    one = Budget(sites[1][0], np.geomspace(0.05, 0.9, 7), np.zeros(7), 1.0)
    assert (one.predicted(np.linspace(0.05, 1, 20)) < 1e-30).all()


@pytest.mark.parametrize("allocation", ["uniform", "error", "global"])
def test_where_nothing_is_to_go_nothing_is_asked(sites, allocation):
    model, found = sites
    pruner = Pruner(lambda site: Criterion("magnitude", Unstructured(), Form.of(site)), reconstruct=False)
    assert set(shares(model, Aim(0.0, tuple(found)), pruner, allocation, Workbench(), Report("p")).values()) == {0.0}
