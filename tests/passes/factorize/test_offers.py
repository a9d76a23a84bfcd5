"""The choice of one offer for each layer."""

import pytest

from onnxpress.passes.factorize.offers import Market, Offer, gain_of, noise_of
from onnxpress.passes.factorize.schemes.channel import ChannelScheme, SVDScheme

FIRST, SECOND = SVDScheme(), ChannelScheme()


def offers(site, *pairs, scheme=FIRST):
    return [Offer(site, scheme, (rank,), noise, gain, 10.0) for rank, (noise, gain) in enumerate(pairs, start=1)]


@pytest.fixture
def market():
    return Market({"a": offers("a", (4.0, 6.0), (1.0, 4.0)), "b": offers("b", (2.0, 5.0), (0.5, 1.0))})


def test_gains_most_within_a_budget_of_noise(market):
    for budget, gain in ((0.4, 0), (0.5, 1), (1.0, 4), (1.5, 5), (3.0, 9), (6.0, 11), (99.0, 11)):
        choice = market.within(budget)
        assert noise_of(choice) <= budget
        assert gain_of(choice) == gain


def test_reaches_a_gain_at_the_least_noise(market):
    assert noise_of(market.gaining(4.0)) == 1.0
    assert noise_of(market.gaining(9.0)) == 3.0
    assert gain_of(market.gaining(1e9)) == 11.0


def test_layers_that_are_not_chosen_stay(market):
    assert set(market.within(1.0)) == {"a"}


def test_without_a_scheme_the_others_are_left(market):
    more = Market({"a": [*market.offers["a"], *offers("a", (3.0, 4.5), scheme=SECOND)], "b": market.offers["b"]})
    left = more.without({("a", "svd"), ("b", "svd")})
    assert {each.scheme.name for each in left.gaining(4.0).values()} == {"channel"}
    assert set(left.offers) == {"a"}


def test_noise_that_is_no_number_is_no_offer():
    assert Market({"a": offers("a", (float("nan"), 1.0), (float("inf"), 1.0))}).gaining(1.0) == {}
