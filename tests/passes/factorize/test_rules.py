"""Rules for ranks, on the site of one matrix of known singular values."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.factorize.cp import FactorizeCP
from onnxpress.passes.factorize.fitting import Wanted
from onnxpress.passes.factorize.groups import FactorizeGroups
from onnxpress.passes.factorize.rules import named, shown
from onnxpress.passes.factorize.schemes.channel import ChannelScheme
from onnxpress.passes.factorize.schemes.layer import rows_of
from onnxpress.passes.factorize.schemes.tucker import TuckerScheme
from onnxpress.passes.factorize.svd import FactorizeSVD
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.sites import find_sites

VALUES = np.array([4.0, 2.0, 2.0, 1.0])  # energies 16, 4, 4, 1 of 25


@pytest.fixture
def choose(build):
    """The rank of a matrix [60, 40] with these singular values, the others zero."""

    def choose_rank(scheme=None, metric=None, **options) -> int:
        rng = np.random.default_rng(0)
        left, right = (np.linalg.qr(rng.standard_normal((size, 40)))[0] for size in (60, 40))
        weight = (left[:, :4] * VALUES) @ right[:, :4].T
        model = build([helper.make_node("MatMul", ["w", "x"], ["y"])], {"w": weight.astype(np.float32)}, x=(40, 5))
        (site,) = find_sites(model)
        wanted = Wanted(site, rows_of(site).astype(float), None if metric is None else metric[None], 0)
        rule = FactorizeSVD(**{"always": True, **options})
        return rule.choose(scheme or ChannelScheme(), wanted)[0]

    return choose_rank


@pytest.mark.parametrize(("energy", "rank"), [(0.6, 1), (0.65, 2), (0.799, 2), (0.961, 4), (0.95, 3)])
def test_energy_takes_the_smallest_rank_that_keeps_it(choose, energy, rank):
    assert choose(energy=energy) == rank


def test_with_a_metric_energy_is_that_of_the_outputs(choose):
    rng = np.random.default_rng(0)
    right = np.linalg.qr(rng.standard_normal((40, 40)))[0]
    assert choose(energy=0.95, metric=np.eye(40)) == 3
    blind = np.outer(right[:, 0], right[:, 0]) + 1e-9 * np.eye(40)  # a single direction is ever read
    assert choose(energy=0.95, metric=blind) == 1


@pytest.mark.parametrize(("ratio", "rank"), [(0.5, 12), (0.25, 6), (1.0, 24), (0.05, 1)])
def test_ratio_takes_the_largest_rank_that_fits(choose, ratio, rank):
    assert choose(ratio=ratio) == rank


def test_a_rank_is_taken_as_it_is_up_to_the_full_one(choose):
    assert choose(rank=7, round_to=8) == 7
    assert choose(rank=70) == 40


def test_vbmf_finds_what_is_more_than_noise(build):
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((60, 5)) @ rng.standard_normal((5, 40))
    weight = (signal + 0.1 * rng.standard_normal((60, 40))).astype(np.float32)
    model = build([helper.make_node("MatMul", ["w", "x"], ["y"])], {"w": weight}, x=(40, 5))
    (change,) = FactorizeSVD(vbmf=True)(model).report.changes
    assert change.action.startswith("rank 5 of 40, ")
    (change,) = FactorizeSVD(vbmf=True, round_to=8)(model).report.changes
    assert change.action.startswith("rank 8 of 40, ")


def test_vbmf_refuses_noise(build):
    weight = np.random.default_rng(0).standard_normal((60, 40)).astype(np.float32)
    model = build([helper.make_node("MatMul", ["w", "x"], ["y"])], {"w": weight}, x=(40, 5))
    (skip,) = FactorizeSVD(vbmf=True)(model).report.skips
    assert skip.reason == "variational Bayes finds nothing but noise in its weights"


def test_rounds_up_for_energy_and_down_for_ratio(choose):
    assert choose(energy=0.95, round_to=2) == 4
    assert choose(energy=0.95, round_to=64) == 40
    assert choose(ratio=0.5, round_to=8) == 8


def test_refuses_a_ratio_that_no_rank_fits(choose):
    with pytest.raises(RefusalError, match=r"ratio 0.02 is too small: rank 1 leaves 4.2% of the parameters"):
        choose(ratio=0.02)
    with pytest.raises(RefusalError, match=r"ratio 0.3 is too small: rank 8 leaves 33.3% of the parameters"):
        choose(ratio=0.3, round_to=8)


@pytest.mark.parametrize("ratio", [0.15, 0.3, 0.45])
def test_no_rank_beside_the_others_could_be_larger(build, ratio):
    weight = np.random.default_rng(0).standard_normal((24, 16, 3, 3)).astype(np.float32)
    model = build([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": weight}, x=(1, 16, 9, 9))
    (site,), scheme = find_sites(model), TuckerScheme()
    ranks = FactorizeSVD(ratio=ratio).foreseen(scheme, site)
    for more in ((ranks[0] + 1, ranks[1]), (ranks[0], ranks[1] + 1)):
        cost = scheme.cost(site, more)
        assert cost.parameters.value > ratio * cost.dense.value


def test_ranks_are_named_in_sentences():
    assert (named((3,)), named((3, 4)), named((3, 4, 5))) == ("rank 3", "ranks 3 and 4", "ranks 3, 4 and 5")
    assert (shown((3,), (9,)), shown((3, 4), (9, 8))) == ("rank 3 of 9", "ranks 3 of 9 and 4 of 8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give exactly one of energy, ratio, rank, vbmf; got none"),
        ({"energy": 0.9, "rank": 3}, "give exactly one of energy, ratio, rank, vbmf; got energy 0.9 and rank 3"),
        ({"rank": 3, "vbmf": True}, "give exactly one of energy, ratio, rank, vbmf; got rank 3 and vbmf"),
        ({"vbmf": 1}, "vbmf must be true or false, got 1"),
        ({"energy": 0.0}, "energy must lie in (0, 1], got 0.0"),
        ({"ratio": 1.5}, "ratio must lie in (0, 1], got 1.5"),
        ({"ratio": "half"}, "ratio must lie in (0, 1], got 'half'"),
        ({"rank": 0}, "rank must be a whole number of at least 1, got 0"),
        ({"rank": 2.5}, "rank must be a whole number of at least 1, got 2.5"),
        ({"rank": 2, "round_to": 0}, "round_to must be a whole number of at least 1, got 0"),
        ({"rank": 2, "correct": "no"}, "correct must be true or false, got 'no'"),
        ({"rank": 2, "refit": 1}, "refit must be true or false, got 1"),
        ({"rank": 2, "nonlinear": "yes"}, "nonlinear must be true or false, got 'yes'"),
        ({"rank": 2, "vary": 3}, "vary must be true or false, got 3"),
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(ConfigError) as caught:
        FactorizeSVD(**options)
    assert str(caught.value) == f"factorize-svd: {message}"


def test_groups_have_no_rank_to_be_found():
    with pytest.raises(ConfigError, match="factorize-groups: vbmf must be false, for groups have no rank to be found"):
        FactorizeGroups(vbmf=True)


def test_vbmf_of_cp_is_that_of_its_unfoldings(build):
    rng = np.random.default_rng(0)
    kernel = np.einsum("or,ir,kr->oik", *(rng.standard_normal((size, 4)) for size in (24, 16, 9)))
    kernel += 0.05 * rng.standard_normal(kernel.shape)
    weight = kernel.reshape(24, 16, 3, 3).astype(np.float32)
    model = build([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": weight}, x=(1, 16, 9, 9))
    (change,) = FactorizeCP(vbmf=True)(model).report.changes
    assert change.action.startswith("rank 4 of ")
