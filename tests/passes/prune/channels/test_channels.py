"""Channels, neurons and hidden units that go with all weights that belong to them."""

from collections import Counter

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.prune.channels.channels import PruneChannels
from onnxpress.passes.prune.channels.ranking import DATA_FREE, IMPORTANCES
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.sites import find_sites

FREE = {"round_to": 1, "max_pruning_ratio": 0.9}
DEAD = [1, 4, 5, 11]


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_units_that_nobody_counts_on_go_and_outputs_stay(
    chain, rows, run, random, importance, deaden, removed, shapes_of
):
    model = chain()
    deaden(model, "first", DEAD, 1)
    deaden(model, "second", DEAD, 0)
    bias = model.graph.nodes[0].inputs[2]
    offset = bias.values.copy()
    offset[DEAD] = -1  # so they never get through the Relu either
    model.replace_weight(bias, offset)
    bench = Workbench() if importance in DATA_FREE else rows(model)
    options = PruneChannels(count=4, importance=importance, ignored_layers=("second",), reconstruct=False, **FREE)
    result = options(model, bench)
    assert removed(result.report) == {"first": 4}
    assert shapes_of(result.model) == {"first": (6, 12), "second": (12, 12), "last": (12, 3)}
    x = random.standard_normal((5, 6)).astype(np.float32)
    np.testing.assert_allclose(run(result.model, x)[0], run(model, x)[0], rtol=1e-4, atol=1e-5)  # order of sums


def test_channels_around_a_residual_connection_go_together(images, run, random, shapes_of):
    result = PruneChannels(pruning_ratio=0.25, **FREE)(images)
    assert shapes_of(result.model) == {
        "stem": (6, 3, 3, 3),
        "wide": (12, 6, 3, 3),
        "narrow": (6, 12, 1, 1),
        "classes": (6, 4),
    }
    x = random.standard_normal((2, 3, 7, 5)).astype(np.float32)
    assert run(result.model, x)[0].shape == run(images, x)[0].shape == (2, 4)


def test_ends_of_the_model_and_the_model_given_stay(chain, rows):
    model = chain()
    bench, before = rows(model), model.to_proto().SerializeToString()
    result = PruneChannels(pruning_ratio=0.25)(model, bench)
    assert model.to_proto().SerializeToString() == before
    pruned, whole = result.model.to_proto().graph, model.to_proto().graph
    assert len(result.model.to_proto().SerializeToString()) < len(before)
    assert [pruned.input, pruned.output] == [whole.input, whole.output]


def test_the_same_twice_is_the_same(chain, rows):
    model = chain()
    bench = rows(model)
    first, second = (PruneChannels(pruning_ratio=0.3, **FREE)(model, bench) for _ in range(2))
    assert first.model.to_proto().SerializeToString() == second.model.to_proto().SerializeToString()
    assert (first.report.changes, first.report.curves) == (second.report.changes, second.report.curves)


def test_refitting_makes_up_for_units(chain, rows, relative):
    model = chain()
    bench = rows(model)
    errors = {}
    for reconstruct in (True, False):
        result = PruneChannels(pruning_ratio=0.5, importance="l1", allocation="uniform", reconstruct=reconstruct)(
            model, bench
        )
        errors[reconstruct] = relative(result.model, model, bench)
        refitted = {change.site for change in result.report.changes if change.action.startswith("refitted")}
        assert refitted == ({"second", "last"} if reconstruct else set())
    assert errors[True] < 0.5 * errors[False]


def test_samples_choose_better_units_than_norms(chain, rows, relative):
    model = chain()
    bench = rows(model)
    errors = {
        importance: relative(PruneChannels(count=6, importance=importance, **FREE)(model, bench).model, model, bench)
        for importance in ("l1", "output")
    }
    assert errors["output"] < errors["l1"]


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_each_importance_works_with_samples(chain, rows, importance, relative, removed):
    model = chain()
    bench = rows(model)
    result = PruneChannels(pruning_ratio=0.25, importance=importance, **FREE)(model, bench)
    assert removed(result.report)
    assert 0 < relative(result.model, model, bench) < 0.7


def test_only_chosen_kinds_go(images, chain, removed):
    report = PruneChannels(pruning_ratio=0.25, kinds=["neurons"], **FREE)(images).report
    assert report.changes == []
    reasons = {skip.site: skip.reason for skip in report.skips}
    assert reasons["stem"] == reasons["wide"] == "its units are channels, which kinds leaves out"
    assert removed(PruneChannels(pruning_ratio=0.25, kinds=["neurons"], **FREE)(chain()).report)


@pytest.mark.parametrize("glob", ["first", "a", "fir*"])
def test_outputs_of_ignored_layers_stay_but_inputs_may_go(chain, glob, shapes_of):
    result = PruneChannels(pruning_ratio=0.25, ignored_layers=[glob], **FREE)(chain())
    assert shapes_of(result.model) == {"first": (6, 16), "second": (16, 9), "last": (9, 3)}
    assert "outputs of 'first', which ignored_layers names" in " ".join(skip.reason for skip in result.report.skips)
    second = PruneChannels(pruning_ratio=0.25, ignored_layers=["second"], **FREE)(chain())
    assert shapes_of(second.model)["second"] == (12, 12)


def test_warns_of_a_glob_that_names_nothing(chain):
    report = PruneChannels(pruning_ratio=0.25, ignored_layers=["frist", "Gemm"], **FREE)(chain()).report
    assert report.warnings == ["ignored_layers: 'frist' names no layer; see `onnxpress inspect`"]


@pytest.mark.parametrize("with_samples", [True, False])
def test_every_group_is_in_the_report_once(chain, rows, with_samples):
    model = chain()
    result = PruneChannels(pruning_ratio=0.25, **FREE)(model, rows(model) if with_samples else None)
    groups = [c.site for c in result.report.changes if " removed" in c.action]
    groups += [skip.site for skip in result.report.skips if "refitted" not in skip.reason]
    assert set(groups) == {"first", "second", "last", "x:1"}
    assert max(Counter(groups).values()) == 1
    reasons = {skip.site: skip.reason for skip in result.report.skips}
    assert reasons["last"] == "'y' is an output of the model"
    assert reasons["x:1"] == "'x' is an input of the model"


def test_hidden_units_of_a_recurrent_layer_go(build, bench, random, run, removed, shapes_of):
    shapes = {"w": (1, 64, 5), "r": (1, 64, 16), "c": (16, 3)}
    weights = {name: (random.standard_normal(shape) / 3).astype(np.float32) for name, shape in shapes.items()}
    weights["axes"] = np.array([1])
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["h"], name="lstm", hidden_size=16),
        helper.make_node("Squeeze", ["h", "axes"], ["t"]),
        helper.make_node("MatMul", ["t", "c"], ["y"], name="last"),
    ]
    model = build(nodes, weights, x=("steps", "n", 5))
    samples = bench(model, *random.standard_normal((4, 6, 2, 5)).astype(np.float32))
    result = PruneChannels(pruning_ratio=0.4)(model, samples)
    assert list(removed(result.report).values()) == [8]
    assert sorted(shapes_of(result.model).values()) == [(1, 32, 5), (1, 32, 8), (8, 3)]
    x = random.standard_normal((7, 3, 5)).astype(np.float32)
    assert run(result.model, x)[0].shape == (7, 3, 3)


@pytest.mark.parametrize("count", [1, 2])
def test_few_samples_are_enough_to_run(chain, rows, count, relative, removed):
    model = chain()
    bench = rows(model, count=count, each=1)
    result = PruneChannels(pruning_ratio=0.25, **FREE)(model, bench)
    assert sum(removed(result.report).values()) >= 7
    assert np.isfinite(relative(result.model, model, bench))


def test_half_precision_stays_and_is_refitted(chain, rows, relative):
    model = chain(np.float16)
    bench = rows(model, dtype=np.float16)
    result = PruneChannels(pruning_ratio=0.25, **FREE)(model, bench)
    assert {site.weight.dtype for site in find_sites(result.model)} == {np.dtype(np.float16)}
    assert any("refitted" in change.action for change in result.report.changes)
    assert relative(result.model, model, bench) < 0.3


def test_samples_that_overflow_still_leave_a_model(chain, bench, run, removed):
    model = chain()
    model.replace_weight(weight := model.graph.nodes[0].inputs[1], np.full_like(weight.values, 3e38))
    result = PruneChannels(pruning_ratio=0.25, **FREE)(model, bench(model, *np.ones((4, 8, 6), np.float32)))
    assert sum(removed(result.report).values()) >= 7
    assert run(result.model, np.zeros((2, 6), np.float32))[0].shape == (2, 3)


def test_works_inside_a_branch(branched, rows, run, removed):
    model = branched(more=False)
    result = PruneChannels(pruning_ratio=0.25, **FREE)(model, rows(model))
    assert removed(result.report) == {"in": 4}
    assert any(skip.site == "out" and "not refitted" in skip.reason for skip in result.report.skips)
    assert run(result.model, np.ones((2, 6), np.float32))[0].shape == (2, 6)
    with pytest.raises(ConfigError, match="flops"):
        PruneChannels(pruning_ratio=0.25, target="flops", **FREE)(model, rows(model))


def test_layers_behind_a_branch_are_refitted(branched, rows, removed):
    model = branched(more=True)
    report = PruneChannels(pruning_ratio=0.25, ignored_layers=("wide",), **FREE)(model, rows(model)).report
    assert set(removed(report)) == {"in"}
    told = {c.site for c in report.changes if "refitted" in c.action}
    told |= {skip.site for skip in report.skips if "not refitted" in skip.reason}
    assert told == {"out", "wide", "narrow"}


def test_a_model_without_weights_is_left_alone(build, bench):
    model = build([helper.make_node("Relu", ["x"], ["y"])], {}, x=("n", 3))
    report = PruneChannels(pruning_ratio=0.25)(model, bench(model, np.ones((2, 3), np.float32))).report
    assert (report.changes, report.skips) == ([], [])


def test_runs_in_a_pipeline(chain, rows):
    model = chain()
    result = Pipeline([PruneChannels(pruning_ratio=0.25)])(model, rows(model))
    assert sum(site.nbytes for site in find_sites(result.model)) < sum(site.nbytes for site in find_sites(model))
