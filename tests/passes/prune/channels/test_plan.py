"""What the loss of units costs, by samples where they tell, else by the weights and with the reason."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.prune.amounts import Limits
from onnxpress.passes.prune.channels import plan, ranking
from onnxpress.passes.prune.channels.channels import PruneChannels
from onnxpress.passes.prune.channels.plan import UnitCriterion, judge
from onnxpress.rewriter.couplings import find_couplings

FREE = {"round_to": 1, "max_pruning_ratio": 0.9}


def criterion(**options):
    chosen = {"importance": "output", "limits": Limits(), "ratio": 0.25, "refitted": True, "trials": True}
    return UnitCriterion(**chosen | options)


def free(model):
    return [group for group in find_couplings(model).groups if group.frozen is None]


def inverse_fails(*args, **options):
    raise np.linalg.LinAlgError("the second moments have no inverse; give more samples")


def test_samples_tell_where_they_can(chain, rows):
    model = chain()
    for each in judge(model, free(model), criterion(), rows(model)):
        assert each.ranking.observed
        assert each.gain > 0
        assert (each.unseen, each.untried) == (None, None)


def test_scores_of_what_nobody_observed_are_errors_like_the_others(branched, rows):
    model = branched(more=True)
    group = find_couplings(model).by_name("in")
    (candidate,) = judge(model, [group], criterion(trials=False), rows(model))
    assert not candidate.ranking.observed
    assert candidate.unseen == "what reads it cannot be observed on these samples"
    np.testing.assert_allclose(candidate.ranking.scores, np.diff(candidate.ranking.errors), rtol=1e-12, atol=0)


def test_without_samples_nothing_has_to_be_said(chain):
    report = PruneChannels(pruning_ratio=0.25, **FREE)(chain()).report
    assert {change.action for change in report.changes} == {"4 of 16 neurons removed", "3 of 12 neurons removed"}


def test_a_weight_that_is_no_number_leaves_the_choice_to_weights_and_says_so(chain, rows):
    model = chain()
    weight = model.graph.nodes[0].inputs[1]
    spoilt = weight.values.copy()
    spoilt[0, 0] = np.nan
    model.replace_weight(weight, spoilt)
    report = PruneChannels(pruning_ratio=0.25, **FREE)(model, rows(model)).report
    (action,) = (change.action for change in report.changes if change.site == "first")
    assert action.endswith("neurons removed; by the size of weights: what reads it cannot be observed on these samples")


def test_units_that_reach_nothing_leave_the_choice_to_weights_and_say_so(chain, bench):
    model = chain(bias=False)
    report = PruneChannels(pruning_ratio=0.25, **FREE)(model, bench(model, *np.zeros((4, 8, 6), np.float32))).report
    told = [change.action for change in report.changes if "removed" in change.action]
    assert len(told) == 2
    assert all(each.endswith("the layers that read it give nothing but zeros on these samples") for each in told)


def test_weights_that_are_too_large_leave_the_choice_to_weights_and_say_so(chain, rows):
    model = chain()
    last = model.graph.nodes[-1].inputs[1]
    spoilt = last.values.copy()
    spoilt[0, 0] = np.inf
    model.replace_weight(last, spoilt)
    _, second = judge(model, free(model), criterion(), rows(model))
    assert second.unseen == "weights that read it, or what they read, are no numbers or too large"


def test_moments_without_an_inverse_leave_the_choice_to_weights_and_say_so(chain, rows, monkeypatch):
    monkeypatch.setattr(ranking, "eliminate", inverse_fails)
    model = chain()
    for each in judge(model, free(model), criterion(), rows(model)):
        assert not each.ranking.observed
        assert each.unseen == "the second moments have no inverse; give more samples"


def test_a_defect_is_not_taken_for_a_reason(chain, rows, monkeypatch):
    def fail(*args, **options):
        raise ValueError("operands could not be broadcast together")

    model = chain()
    monkeypatch.setattr(plan, "compensated", fail)
    with pytest.raises(ValueError, match="broadcast"):
        judge(model, free(model), criterion(), rows(model))
    monkeypatch.setattr(ranking, "eliminate", fail)
    with pytest.raises(ValueError, match="broadcast"):
        judge(model, free(model), criterion(), rows(model))


def test_a_group_whose_trial_finds_no_inverse_counts_like_the_others(chain, rows, monkeypatch, removed):
    monkeypatch.setattr(plan, "compensated", inverse_fails)
    model = chain()
    report = PruneChannels(pruning_ratio=0.25, **FREE)(model, rows(model)).report
    assert removed(report)
    assert {curve.where for curve in report.curves} == {"layer"}
    told = {change.action.partition("; ")[2] for change in report.changes if "removed" in change.action}
    assert told == {
        "what that does to the outputs was not measured: the second moments have no inverse; give more samples"
    }


def test_says_that_the_weights_of_a_reader_cannot_be_tried(chain, bench, random):
    model = chain(np.float64)
    samples = bench(model, *random.standard_normal((4, 8, 6)))
    (first, *_) = judge(model, free(model), criterion(), samples)
    assert first.ranking.observed
    assert first.untried == "other weights of 'second' cannot be tried: it lies in a branch, or is no float32"


def test_outputs_of_whole_numbers_are_not_asked(build, rows, random):
    weights = {"a": random.standard_normal((6, 8)), "b": random.standard_normal((8, 3))}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="first"),
        helper.make_node("MatMul", ["p", "b"], ["q"], name="last"),
        helper.make_node("Cast", ["q"], ["y"], to=7),
    ]
    stored = {name: each.astype(np.float32) for name, each in weights.items()}
    model = build(nodes, stored, x=("n", 6), gives=7)
    (only,) = judge(model, free(model), criterion(), rows(model))
    assert (only.gain, only.untried) == (None, None)
