"""Which units matter least."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.prune.channels.consumers import consumers_of, watch
from onnxpress.passes.prune.channels.ranking import (
    activation_scores,
    ranked_by_samples,
    ranked_by_scores,
    weight_scores,
)
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.couplings import find_couplings
from onnxpress.rewriter.sites import find_sites


@pytest.fixture
def pair(build, random):
    """A layer that makes four units, and one that reads them: of each unit the weights have another size."""
    a = np.array([[1, 2, 3, 4], [1, -2, 3, -4]], np.float32)
    b = np.array([[1, 0], [0, 2], [1, 1], [0, 4]], np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="first"),
        helper.make_node("Relu", ["p"], ["q"]),
        helper.make_node("MatMul", ["q", "b"], ["y"], name="last"),
    ]
    return build(nodes, {"a": a, "b": b}, x=("n", 2))


def group_of(model):
    return find_couplings(model).by_name("first")


def watched(model, bench):
    group = group_of(model)
    found = consumers_of(model, group, {id(site.weight): site for site in find_sites(model)})
    (one,) = watch(model, [(group, found)], bench)
    return one


def test_norms_of_all_layers_are_each_taken_over_their_mean(pair):
    l1 = weight_scores(group_of(pair), "l1")
    np.testing.assert_allclose(l1, (np.array([2, 4, 6, 8]) / 5 + np.array([1, 2, 2, 4]) / 2.25) / 2, rtol=1e-6, atol=0)
    l2 = weight_scores(group_of(pair), "l2")
    reads = np.array([1, 2, np.sqrt(2), 4])
    np.testing.assert_allclose(l2, (np.array([1, 2, 3, 4]) / 2.5 + reads / reads.mean()) / 2, rtol=1e-6, atol=0)


def test_weights_that_are_no_numbers_do_not_end_the_ranking(pair):
    weight = find_sites(pair)[0].array().copy()
    weight[0, 3] = np.nan
    pair.replace_weight(find_sites(pair)[0].weight, weight)
    assert np.isfinite(weight_scores(group_of(pair), "l2")).all()


def test_activity_is_that_of_what_the_next_layer_reads(pair, bench):
    x = np.array([[1, 1], [1, 0], [0, 2]], np.float32)
    group = group_of(pair)
    consumers = consumers_of(pair, group, {id(site.weight): site for site in find_sites(pair)})
    read = np.maximum(x @ find_sites(pair)[0].array(), 0)
    scores = activation_scores(pair, [(group, consumers)], "apoz", bench(pair, x))[group.name]
    shares = (read != 0).mean(axis=0)
    np.testing.assert_allclose(scores, shares / shares.mean(), rtol=1e-6, atol=0)
    scores = activation_scores(pair, [(group, consumers)], "activation", bench(pair, x))[group.name]
    sizes = np.sqrt((read**2).mean(axis=0))
    np.testing.assert_allclose(scores, sizes / sizes.mean(), rtol=1e-6, atol=0)


def test_what_scores_cost_is_guessed_by_their_squares(pair):
    ranking = ranked_by_scores(group_of(pair), np.array([3.0, 1, 2, 1]), most=3)
    assert ranking.order.tolist() == [1, 3, 2]
    np.testing.assert_allclose(ranking.errors, np.array([0, 1, 2, 6]) / 15, rtol=1e-12, atol=0)
    assert not ranking.observed


def test_units_go_first_whose_loss_costs_least(pair, bench, random):
    one = watched(pair, bench(pair, random.standard_normal((400, 2)).astype(np.float32)))
    kept = ranked_by_samples(one, "output", None, most=3, refitted=True)
    assert kept.observed
    assert (np.diff(kept.errors) >= 0).all()
    assert (np.diff(kept.scores) >= 0).all()
    assert kept.order[0] in (0, 2)  # parallel to one another: either makes up for the other
    bare = ranked_by_samples(one, "thinet", None, most=3, refitted=False)
    assert bare.errors[-1] > kept.errors[-1]


def test_a_given_order_is_kept_and_its_cost_measured(pair, bench, random):
    one = watched(pair, bench(pair, random.standard_normal((400, 2)).astype(np.float32)))
    scores = np.array([4.0, 3, 2, 1])
    ranking = ranked_by_samples(one, "l2", scores, most=3, refitted=True)
    assert ranking.order.tolist() == [3, 2, 1]
    assert ranking.scores.tolist() == [1, 2, 3]
    best = ranked_by_samples(one, "output", None, most=3, refitted=True)
    assert (best.errors <= ranking.errors + 1e-12).all()


def test_tells_that_there_is_nothing_to_see(pair, bench):
    one = watched(pair, bench(pair, np.zeros((4, 2), np.float32)))
    with pytest.raises(RefusalError, match="nothing but zeros"):
        ranked_by_samples(one, "output", None, most=3, refitted=True)
