import numpy as np
import pytest

from onnxpress.passes.factorize.rank import Cost, Products, largest
from onnxpress.passes.factorize.svd import FactorizeSVD
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.errors import ConfigError

VALUES = np.array([4.0, 2.0, 2.0, 1.0])  # energies 16, 4, 4, 1 of 25


def cost_of(rank: int) -> Cost:
    both = Products(((40,), (60,)), rank)
    return Cost(Products(((40, 60),)), both, both)


def choose(full: int = 4, **options) -> int:
    return FactorizeSVD(**options).choose(full, cost_of, lambda: VALUES)


def test_products_show_how_they_came_about():
    both = Products(((3, 2), (5,)), 4)
    assert (both.value, str(both)) == (44, "4·(3·2+5)")
    alone = Products(((3, 2), (5, 1), (1, 1)))
    assert (alone.value, str(alone)) == (12, "3·2 + 5 + 1")


@pytest.mark.parametrize(("energy", "rank"), [(0.6, 1), (0.65, 2), (0.8, 2), (0.96, 3), (1.0, 4)])
def test_energy_takes_the_smallest_rank_that_keeps_it(energy, rank):
    assert choose(energy=energy) == rank


@pytest.mark.parametrize(("ratio", "rank"), [(0.5, 12), (0.25, 6), (1.0, 24), (0.05, 1)])
def test_ratio_takes_the_largest_rank_that_fits(ratio, rank):
    assert choose(full=40, ratio=ratio) == rank


def test_a_rank_is_taken_as_it_is_up_to_the_full_one():
    assert choose(full=40, rank=7, round_to=8) == 7
    assert choose(full=40, rank=70) == 40


def test_rounds_up_for_energy_and_down_for_ratio():
    assert choose(energy=0.96, round_to=2) == 4
    assert choose(energy=0.96, round_to=8) == 4
    assert choose(full=40, ratio=0.5, round_to=8) == 8


def test_refuses_a_ratio_that_no_rank_fits():
    with pytest.raises(RefusalError, match=r"ratio 0.02 is too small: rank 1 leaves 4.2% of the parameters"):
        choose(full=40, ratio=0.02)
    with pytest.raises(RefusalError, match=r"ratio 0.3 is too small: rank 8 leaves 33.3% of the parameters"):
        choose(full=40, ratio=0.3, round_to=8)


def test_largest_is_zero_where_nothing_holds():
    assert [largest(9, lambda n, top=top: n <= top) for top in (0, 1, 8, 9, 20)] == [0, 1, 8, 9, 9]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give exactly one of energy, ratio, rank; got none"),
        ({"energy": 0.9, "rank": 3}, "give exactly one of energy, ratio, rank; got energy 0.9 and rank 3"),
        ({"energy": 0.0}, "energy must lie in (0, 1], got 0.0"),
        ({"ratio": 1.5}, "ratio must lie in (0, 1], got 1.5"),
        ({"ratio": "half"}, "ratio must lie in (0, 1], got 'half'"),
        ({"rank": 0}, "rank must be a whole number of at least 1, got 0"),
        ({"rank": 2.5}, "rank must be a whole number of at least 1, got 2.5"),
        ({"rank": 2, "round_to": 0}, "round_to must be a whole number of at least 1, got 0"),
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(ConfigError) as caught:
        FactorizeSVD(**options)
    assert str(caught.value) == f"factorize-svd: {message}"
