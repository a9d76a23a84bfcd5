"""Recurrent weights that make up for hidden units that went."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.prune.channels.channels import PruneChannels
from onnxpress.passes.prune.channels.consumers import consumers_of, watch
from onnxpress.passes.prune.channels.hidden import made_up
from onnxpress.passes.prune.removal import MadeUp, refit_behind, remove
from onnxpress.passes.report import Report
from onnxpress.rewriter.couplings import find_couplings
from onnxpress.rewriter.sites import find_sites

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@pytest.fixture
def twins(build, random):
    """A recurrent layer of 8 hidden units, of which the last is the twin of the first."""

    def of(op):
        w, r = random.standard_normal((GATES[op], 8, 5)) / 2, random.standard_normal((GATES[op], 8, 8)) / 2
        w[:, 7], r[:, 7] = w[:, 0], r[:, 0]
        weights = {"w": w.reshape(1, -1, 5), "r": r.reshape(1, -1, 8), "c": random.standard_normal((8, 3))}
        stored = {name: each.astype(np.float32) for name, each in weights.items()} | {"axes": np.array([1])}
        nodes = [
            helper.make_node(op, ["x", "w", "r"], ["h"], name="recurrent", hidden_size=8),
            helper.make_node("Squeeze", ["h", "axes"], ["t"]),
            helper.make_node("MatMul", ["t", "c"], ["y"], name="last"),
        ]
        return build(nodes, stored, x=("steps", "n", 5))

    return of


def hidden(model):
    return next(group for group in find_couplings(model).groups if group.kind == "hidden")


@pytest.mark.parametrize("op", list(GATES))
def test_a_twin_takes_over_what_the_state_of_the_other_gave(twins, bench, random, op):
    model = twins(op)
    samples = bench(model, *random.standard_normal((4, 6, 5, 5)).astype(np.float32))
    gone = np.array([7])
    made = made_up(model, {hidden(model): gone}, samples)
    (weight,) = made.weights.values()
    assert not made.refused
    old = next(site.array() for site in find_sites(model) if site.shape == weight.shape)
    assert weight.dtype == np.float32
    assert not weight[..., 7].any()
    # damping, 1 % of the mean moment, draws weights a little to where they were
    np.testing.assert_allclose(weight[..., 0], old[..., 0] + old[..., 7], rtol=0, atol=0.15)
    np.testing.assert_allclose(weight[..., 1:7], old[..., 1:7], rtol=0, atol=0.1)


def test_the_model_stays_closer_to_itself(twins, bench, random, run):
    model = twins("GRU")
    samples = bench(model, *random.standard_normal((4, 6, 5, 5)).astype(np.float32))
    unseen = random.standard_normal((6, 9, 5)).astype(np.float32)
    wanted, errors = run(model, unseen)[0], []
    for made in (MadeUp(), None):
        pruned = model.clone()
        weight = next(site.weight for site in find_sites(pruned) if site.name == "last")
        array = pruned.array(weight).copy()
        array[0] += array[7]  # what a refit of the next layer finds
        pruned.replace_weight(weight, array)
        units = {hidden(pruned): np.array([7])}
        remove(pruned, units, made_up=made_up(pruned, units, samples) if made is None else made)
        errors.append(np.linalg.norm(run(pruned, unseen)[0] - wanted) / np.linalg.norm(wanted))
    assert errors[1] < 0.1 * errors[0]


def test_the_pass_reports_the_recurrent_weight_as_refitted(twins, bench, random):
    model = twins("LSTM")
    samples = bench(model, *random.standard_normal((4, 6, 5, 5)).astype(np.float32))
    report = PruneChannels(count=1, round_to=1)(model, samples).report
    refitted = [change.site for change in report.changes if change.action.startswith("refitted: what it reads")]
    assert refitted == ["recurrent:r"]
    assert not [skip for skip in report.skips if skip.site == "recurrent:r"]


def test_states_that_are_no_numbers_are_a_reason_in_the_report(twins, bench, random):
    model, report = twins("RNN"), Report("prune")
    site = next(site for site in find_sites(model) if site.name == "recurrent:w")
    model.replace_weight(site.weight, site.array() * np.float32(np.nan))
    samples = bench(model, *random.standard_normal((2, 6, 5, 5)).astype(np.float32))
    units = {hidden(model): np.array([7])}
    made = made_up(model, units, samples)
    assert not made.weights
    refit_behind(model, remove(model, units, made_up=made)[0], samples, report)
    assert [skip.reason for skip in report.skips if skip.site == "recurrent:r"] == [
        "is not refitted: the samples show no state of it without NaN or infinities"
    ]


def test_a_weight_that_its_type_cannot_hold_is_refused(twins, bench, random):
    model = twins("RNN")
    site = next(site for site in find_sites(model) if site.name == "recurrent:r")
    large = site.array().copy()
    large[0, 1, [0, 7]] = 3e38  # together more than float32 holds
    model.replace_weight(site.weight, large)
    samples = bench(model, *random.standard_normal((4, 6, 5, 5)).astype(np.float32))
    made = made_up(model, {hidden(model): np.array([7])}, samples)
    assert made == MadeUp(refused={"recurrent:r": "the new weight does not fit into float32"})


def test_states_that_nobody_sees_leave_the_weight(build, bench, random):
    weights = {"w": random.standard_normal((1, 8, 5)), "r": random.standard_normal((1, 8, 8))}
    weights |= {"c": random.standard_normal((8, 3))}
    nodes = [
        helper.make_node("RNN", ["x", "w", "r"], ["", "h"], hidden_size=8),
        helper.make_node("MatMul", ["h", "c"], ["y"]),
    ]
    model = build(nodes, {name: each.astype(np.float32) for name, each in weights.items()}, x=("steps", "n", 5))
    samples = bench(model, random.standard_normal((6, 5, 5)).astype(np.float32))
    assert made_up(model, {hidden(model): np.array([2])}, samples) == MadeUp()


def test_of_a_stream_that_many_read_some_stand_for_all(build, bench, random, monkeypatch):
    nodes = [helper.make_node("MatMul", ["x", "a"], ["p"])]
    weights = {"a": random.standard_normal((4, 6))}
    for index in range(5):
        nodes.append(helper.make_node("MatMul", ["p", f"b{index}"], [f"q{index}"], name=f"reader{index}"))
        weights[f"b{index}"] = random.standard_normal((6, 2))
    nodes.append(helper.make_node("Sum", [f"q{index}" for index in range(5)], ["y"]))
    model = build(nodes, {name: each.astype(np.float32) for name, each in weights.items()}, x=("n", 4))
    group = next(each for each in find_couplings(model).groups if each.size == 6)
    sites = {id(site.weight): site for site in find_sites(model)}
    assert len(consumers_of(model, group, sites)) == 5
    monkeypatch.setattr("onnxpress.passes.prune.channels.consumers.MOST", 3 * 36)
    chosen = consumers_of(model, group, sites)
    assert [each.site.name for each in chosen] == ["reader0", "reader2", "reader4"]
    (seen,) = watch(model, [(group, chosen)], bench(model, random.standard_normal((9, 4)).astype(np.float32)))
    assert len(seen.readers()) == 3
    monkeypatch.setattr("onnxpress.passes.prune.channels.consumers.MOST", 1)
    assert len(consumers_of(model, group, sites)) == 1
