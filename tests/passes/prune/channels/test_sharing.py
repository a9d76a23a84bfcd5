"""How much of each group goes."""

import numpy as np
import pytest

from onnxpress.passes.prune.amounts import Amounts, Limits
from onnxpress.passes.prune.channels.plan import Candidate
from onnxpress.passes.prune.channels.ranking import Ranking
from onnxpress.passes.prune.channels.sharing import shares
from onnxpress.rewriter.couplings import find_couplings

LIMITS = Limits(most=0.9)


@pytest.fixture
def candidates(model):
    """Candidates of the model's groups; each unit of a group costs so much."""

    def of(*costs, gains=(1.0, 1.0)):
        groups = [group for group in find_couplings(model).groups if group.frozen is None]
        found = []
        for group, cost, gain in zip(groups, costs, gains, strict=True):
            scores = np.full(group.size - 1, float(cost))
            errors = np.concatenate([[0.0], np.cumsum(scores)])
            ranking = Ranking(group, np.arange(group.size - 1), scores, errors, consumers=1, observed=True)
            found.append(Candidate(ranking, LIMITS.removable(group), gain))
        return found

    return of


@pytest.fixture
def shared(model, candidates):
    """What is shared out, given the cost of a unit of each group."""

    def of(*costs, gains=(1.0, 1.0), **options):
        made = candidates(*costs, gains=gains)
        work = {"first": 1.0, "second": 1.0, "last": 1.0}
        amounts = Amounts(model, [each.group for each in made], work)
        chosen = {"ratio": 0.25, "target": "units", "allocation": "error", "limits": LIMITS} | options
        return shares(made, amounts, **chosen), amounts

    return of


@pytest.mark.parametrize("target", ["units", "parameters", "flops"])
@pytest.mark.parametrize("allocation", ["error", "uniform", "global"])
def test_the_target_is_reached_and_not_by_far(shared, target, allocation):
    counts, amounts = shared(1, 1, target=target, allocation=allocation, ratio=0.25)
    part = getattr(amounts, target)(counts)
    assert part >= 0.25
    if allocation != "global":  # all units are alike, so one threshold takes them all
        assert part < 0.5


def test_the_same_part_of_each_group_is_not_asked_what_it_costs(shared):
    assert shared(1, 9, allocation="uniform")[0] == shared(9, 1, allocation="uniform")[0] == [2, 1]


@pytest.mark.parametrize("allocation", ["error", "global"])
@pytest.mark.parametrize(("costs", "cheap"), [((1, 100), 0), ((100, 1), 1)])
def test_the_cheaper_group_gives_more(shared, allocation, costs, cheap):
    counts, _ = shared(*costs, allocation=allocation, target="parameters", ratio=0.2)
    parts = [counts[0] / 8, counts[1] / 4]
    assert parts[cheap] > parts[1 - cheap]


def test_units_shared_out_save_as_much_work_as_the_same_part_of_each(shared):
    counts, amounts = shared(100, 1)
    assert amounts.units(counts) >= 0.25
    assert amounts.flops(counts) >= amounts.flops([2, 1])


def test_a_group_that_was_not_tried_counts_like_the_usual_one(shared):
    mixed, _ = shared(1, 100, gains=(None, 0.001), target="parameters")
    assert mixed == shared(1, 100, gains=(0.001, 0.001), target="parameters")[0]
    assert mixed != shared(1, 100, gains=(1.0, 0.001), target="parameters")[0]
