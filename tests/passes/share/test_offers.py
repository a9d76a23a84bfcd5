"""Offers for weights, and bytes shared out among them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from onnxpress.passes.encode.options import Option as Stored
from onnxpress.passes.share.offers import Known, Purse, share_out
from onnxpress.rewriter.sites import find_sites


@pytest.fixture(scope="module")
def sites(build):
    """Two weights."""
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["h"], name="first"),
        helper.make_node("MatMul", ["h", "w"], ["y"], name="second"),
    ]
    draw = np.random.default_rng(0)
    return find_sites(
        build(nodes, {name: draw.standard_normal((50, 50)).astype(np.float32) for name in "vw"}, x=[1, 50])
    )


def known(site, *, harm=1.0, needs=frozenset()):
    """A weight whose noise is that of pruning and of codes together."""
    densities, widths = np.array([0.1, 0.3, 1.0]), np.array([1.0, 3.0, 5.0])
    nbytes = site.size / 8 * densities[:, None] * (widths + 2)
    noise = (1 - densities[:, None]) ** 3 + 2.0 * 4.0**-widths
    plans = [[(Stored(None, site.nbytes), Stored(None, round(each), needs)) for each in row] for row in nbytes]
    harms = ((0.01, harm), (0.1, harm)) if harm else ()
    return Known(site, 1.0, densities, widths, nbytes, noise, plans, harms, site.nbytes, True)


def test_each_offer_costs_less_and_harms_more(sites):
    offers = known(sites[0]).offers
    assert offers[0].width == math.inf
    assert offers[0].nbytes == sites[0].nbytes
    steps = np.diff([[each.nbytes, each.noise] for each in offers], axis=0)
    assert (steps[:, 0] < 0).all()
    slopes = -steps[:, 1] / steps[:, 0]
    assert (slopes >= 0).all()
    assert (np.diff(slopes) >= -1e-15).all()


def test_between_two_points_noise_falls_by_six_decibels_a_bit(sites):
    each = known(sites[0])
    only = Known(
        *(getattr(each, name) for name in ("site", "before")),
        each.densities[2:],
        each.widths,
        each.nbytes[2:],
        each.noise[2:],
        each.plans[2:],
        (),
        each.dense,
        True,
    )
    noise = {offer.width: offer.noise for offer in only.offers}
    assert noise[4.0] == pytest.approx(noise[3.0] / 4, rel=1e-6)


def test_harm_is_that_of_the_nearest_noise(sites):
    each = known(sites[0])
    each = Known(
        each.site,
        1.0,
        each.densities,
        each.widths,
        each.nbytes,
        each.noise,
        each.plans,
        ((0.01, 2.0), (0.1, 8.0)),
        each.dense,
        True,
    )
    np.testing.assert_allclose(
        each.predicted(np.array([0.001, 0.01, 10**-1.5, 0.1, 1.0])), [0.002, 0.02, 4 * 10**-1.5, 0.8, 8.0], rtol=1e-9
    )


@given(harm=st.floats(1e-3, 1e3), part=st.floats(0.02, 1.1))
def test_shares_out_no_more_than_there_is(sites, harm, part):
    both = [known(sites[0], harm=harm), known(sites[1])]
    least, most = (
        sum(getattr(each, name) for each in pair)
        for pair, name in (([each.smallest for each in both], "nbytes"), (both, "dense"))
    )
    budget = part * most
    chosen = share_out(both, budget)
    if budget < least:
        assert chosen == [each.smallest for each in both]
    else:
        assert sum(each.nbytes for each in chosen) <= budget * (1 + 1e-9)
        assert chosen[0].nbytes >= chosen[1].nbytes or harm <= 1.001


def test_what_one_leaves_goes_to_the_next(sites):
    both = [known(each) for each in sites]
    thrifty, lavish = Purse(both, 2000, 17), Purse(both, 2000, 17)
    _, first = thrifty.offer("first")
    thrifty.spend("first", [Stored(None, 10_000), Stored(None, round(first) - 300)])
    lavish.spend("first", [Stored(None, 10_000), Stored(None, round(first))])
    assert thrifty.offer("second")[1] == pytest.approx(lavish.offer("second")[1] + 300)
    assert thrifty.offer("second")[1] <= 2000 - round(first) + 300


def test_what_weights_share_is_paid_once(sites):
    plain, sharing = (
        Purse([known(each, needs=frozenset(needs)) for each in sites], 3000, 17) for needs in ((), {"Huffman"})
    )
    paid = plain.least
    assert paid < sharing.least < paid + 2000
