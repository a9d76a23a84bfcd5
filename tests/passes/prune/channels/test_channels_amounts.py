"""How many units go, from which groups."""

import numpy as np
import pytest

from onnxpress.passes.base import Workbench
from onnxpress.passes.prune.channels.channels import PruneChannels
from onnxpress.rewriter.sites import find_sites

FREE = {"round_to": 1, "max_pruning_ratio": 0.9}


def test_count_is_taken_from_each_group(chain, removed):
    report = PruneChannels(count=3, **FREE)(chain()).report
    assert removed(report) == {"first": 3, "second": 3}


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"round_to": 1}, (10, 7)),  # 40 % of 16 and of 12
        ({"round_to": 8}, (8, 8)),
        ({"round_to": 4}, (8, 8)),
        ({"round_to": 1, "min_kept": 11}, (11, 11)),
        ({"round_to": 1, "pruning_ratio": 0.2, "max_pruning_ratio": 0.2}, (13, 10)),
    ],
)
def test_limits_hold_for_each_group(chain, options, left, shapes_of):
    made = PruneChannels(**{"pruning_ratio": 0.4, "allocation": "uniform", **options})(chain())
    assert shapes_of(made.model) == {"first": (6, left[0]), "second": left, "last": (left[1], 3)}


@pytest.mark.parametrize("allocation", ["uniform", "error", "global"])
@pytest.mark.parametrize("target", ["units", "parameters", "flops"])
def test_as_much_of_the_target_goes_as_wanted(chain, rows, target, allocation, removed):
    model = chain(bias=False)
    result = PruneChannels(pruning_ratio=0.3, target=target, allocation=allocation, **FREE)(model, rows(model))
    before, after = ([site.size for site in find_sites(each)] for each in (model, result.model))
    parts = {
        "units": sum(removed(result.report).values()) / 28,
        "parameters": 1 - sum(after) / sum(before),
        "flops": 1 - sum(after) / sum(before),  # each weight of these layers is multiplied once for a row
    }
    assert 0.28 <= parts[target] < 0.4  # of groups of 16 and 12 a unit is 4 % of all; uniform takes the nearest number
    if (target, allocation) != ("units", "uniform"):
        assert parts[target] >= 0.3


def test_flops_count_how_often_a_weight_is_multiplied(images, bench, random):
    samples = bench(images, *random.standard_normal((2, 2, 3, 8, 8)).astype(np.float32))
    pruned = PruneChannels(pruning_ratio=0.3, target="flops", **FREE)(images, samples).model
    work = [
        sum(site.size * (64 if site.op == "Conv" else 1) for site in find_sites(model)) for model in (images, pruned)
    ]
    assert 0.3 <= 1 - work[1] / work[0] < 0.45


@pytest.mark.parametrize("options", [{"global_pruning": True}, {"allocation": "global"}])
def test_one_threshold_takes_from_where_units_matter_least(chain, options, deaden, removed):
    model = chain()
    deaden(model, "second", range(9), 1)
    deaden(model, "last", range(9), 0)
    model.replace_weight(bias := model.graph.nodes[2].inputs[2], 0 * bias.values)
    report = PruneChannels(pruning_ratio=9 / 28, **options, **FREE)(model).report
    assert removed(report) == {"second": 9}
    assert {skip.site for skip in report.skips} >= {"first"}


def test_less_is_taken_where_it_harms_the_outputs_more(chain, rows, deaden, removed):
    model = chain()
    deaden(model, "first", range(8), 1)
    deaden(model, "second", range(8), 0)
    bench = rows(model)
    shared = removed(PruneChannels(pruning_ratio=8 / 28, **FREE)(model, bench).report)
    even = removed(PruneChannels(pruning_ratio=8 / 28, allocation="uniform", **FREE)(model, bench).report)
    assert shared["first"] >= 8 > even["first"]


def test_says_why_no_smaller_number_is_allowed(chain):
    report = PruneChannels(pruning_ratio=0.25, max_pruning_ratio=0.75, round_to=16, min_kept=2)(chain()).report
    reasons = {skip.site: skip.reason for skip in report.skips}
    assert reasons["first"] == (
        "none of its 16 neurons may go with max_pruning_ratio 0.75 and min_kept 2 and round_to 16"
    )
    assert not report.changes


@pytest.mark.parametrize(
    ("options", "wanted"),
    [({"count": 1}, "count 1"), ({"pruning_ratio": 0.1, "max_pruning_ratio": 0.5}, "pruning_ratio 0.1")],
)
def test_says_so_where_the_nearest_number_is_none(chain, options, wanted):
    report = PruneChannels(round_to=8, **options)(chain()).report
    reasons = {skip.site: skip.reason for skip in report.skips}
    told = f"keeps its 16 neurons: 8 of them would have to go at least, and none is nearer to {wanted}"
    assert reasons["first"] == told


def test_says_that_other_groups_cost_less(chain, rows, deaden, removed):
    model = chain()
    deaden(model, "first", range(8), 1)
    deaden(model, "second", range(8), 0)
    report = PruneChannels(pruning_ratio=0.25, target="parameters", max_pruning_ratio=0.6)(model, rows(model)).report
    assert removed(report) == {"first": 8}
    reasons = [skip.reason for skip in report.skips if skip.site == "second"]
    assert "keeps its 12 neurons: the ratio is met at less cost by other groups" in reasons


@pytest.mark.parametrize("target", ["parameters", "flops", "units"])
def test_warns_where_the_limits_do_not_allow_the_ratio(chain, rows, target):
    model = chain()
    options = PruneChannels(pruning_ratio=0.5, target=target, round_to=1, max_pruning_ratio=0.5, min_kept=10)
    (warning,) = options(model, rows(model)).report.warnings
    assert warning.startswith(f"pruning_ratio 0.5 of the {target} is not reached, only 0.")
    assert "max_pruning_ratio" in warning


def test_curves_tell_what_more_would_cost(chain, rows, run, relative):
    model = chain()
    bench = rows(model)
    report = PruneChannels(pruning_ratio=0.25, **FREE)(model, bench).report
    assert [(curve.site, curve.unit, curve.where) for curve in report.curves] == [
        ("first", "neurons", "outputs"),
        ("second", "neurons", "outputs"),
    ]
    for curve in report.curves:
        assert curve.errors == tuple(sorted(curve.errors, reverse=True))
        assert len(curve.ratios) == 7
        at = curve.ratios.index(0.5)
        size = {"first": 16, "second": 12}[curve.site]
        others = tuple({"first", "second"} - {curve.site})
        pruned = PruneChannels(count=size // 2, ignored_layers=others, **FREE)(model, bench).model
        measured = -20 * np.log10(relative(pruned, model, bench))
        assert abs(curve.errors[at] - measured) < 6  # dB; foretold from moments and two trials


@pytest.mark.parametrize("samples", [True, False])
def test_without_trials_curves_are_of_the_layers(chain, rows, samples):
    model = chain()
    bench = rows(model) if samples else Workbench()
    report = PruneChannels(pruning_ratio=0.25, sensitivity=False, **FREE)(model, bench).report
    assert {curve.where for curve in report.curves} == {"layer"}


@pytest.mark.parametrize(("count", "short"), [(11, 0), (12, 1), (100, 2)])
def test_warns_where_there_are_fewer_units_than_the_count(chain, count, short):
    report = PruneChannels(count=count, round_to=1)(chain()).report  # of 16 and of 12
    assert [f"of {short} of 2 groups" in each for each in report.warnings] == [True] * bool(short)
