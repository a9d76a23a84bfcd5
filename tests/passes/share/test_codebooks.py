"""What few values learn from samples: which errors matter, and the values that give the outputs best."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.calibration.feeds import open_feed
from onnxpress.calibration.synthetic import synthesise
from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.quantizers import entropy
from onnxpress.passes.share.entropy import ShareEntropy
from onnxpress.passes.share.kmeans import ShareKMeans
from onnxpress.rewriter.errors import ConfigError, FeedError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites
from onnxpress.rewriter.weights import Produced, values_of

FEW = [(ShareKMeans, {"bits": 2}), (ShareKMeans, {"bits": 2, "per": "channel"}), (ShareEntropy, {"bits": 2})]
few = pytest.mark.parametrize(("kind", "options"), FEW, ids=["tensor", "channel", "entropy"])


def array(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


SCALES = 2.0 ** -np.arange(16).astype(np.float32)
MIXING = array(9, 5, 16) * np.sqrt(SCALES)


def samples(count, seed=0):
    """Sixteen inputs that depend on five causes; the first are large, the last small."""
    return [array(seed + i, 24, 5) @ MIXING + 0.1 * SCALES * array(99 + i, 24, 16) for i in range(count)]


@pytest.fixture
def layers(two_layers):
    """x @ w + b -> Relu -> @ v + c -> y, 16 to 40 to 20."""
    return two_layers(w=array(1, 16, 40), b=array(2, 40), v=array(3, 40, 20), c=array(4, 20))


@pytest.fixture
def distance(run):
    """How far the outputs of two models are apart, on samples that no pass saw."""

    def between(model, original):
        unseen = np.concatenate(samples(8, seed=1000))
        wanted = run(original, unseen)[0]
        return float(np.linalg.norm(run(model, unseen)[0] - wanted) / np.linalg.norm(wanted))

    return between


def weights(model: Model):
    return [site.array() for site in find_sites(model)]


@few
def test_importance_brings_the_outputs_closer(layers, bench, distance, kind, options):
    plain = kind(**options)(layers).model
    weighed = kind(**options, importance="hessian")(layers, bench(layers, *samples(8))).model
    assert distance(weighed, layers) < distance(plain, layers)


@few
@pytest.mark.parametrize("importance", ["none", "hessian"])
def test_refitted_values_bring_the_outputs_closer(layers, bench, distance, kind, options, importance):
    work = bench(layers, *samples(8))
    plain = kind(**options, importance=importance)(layers, work)
    refitted = kind(**options, importance=importance, refit=True)(layers, work)
    assert distance(refitted.model, layers) < 0.9 * distance(plain.model, layers)
    for change, weight in zip(refitted.report.changes, weights(layers), strict=True):
        assert ", refitted: output error " in change.action
        assert change.bytes_before == change.bytes_after == weight.nbytes


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_refitted_weights_have_no_more_values(layers, bench, per):
    work = bench(layers, *samples(8))
    for weight in weights(ShareKMeans(bits=2, per=per, refit=True)(layers, work).model):
        assert max(np.unique(part).size for part in (weight.T if per == "channel" else [weight])) == 4


def test_refitted_weights_have_no_more_bits(layers, bench):
    for weight in weights(ShareEntropy(bits=2, refit=True)(layers, bench(layers, *samples(8))).model):
        assert entropy(np.unique(weight, return_counts=True)[1]) <= 2


@few
def test_zeros_of_pruned_weights_stay_zero_when_values_are_refitted(layers, bench, kind, options):
    for site in find_sites(layers):
        stored = site.array()
        layers.replace_weight(site.weight, np.where(np.abs(stored) < 0.7, np.float32(0), stored))
    result = kind(**options, importance="hessian", refit=True)(layers, bench(layers, *samples(8)))
    for before, after, change in zip(weights(layers), weights(result.model), result.report.changes, strict=True):
        assert not after[before == 0].any()
        assert "zeros kept, refitted" in change.action


def test_the_bias_is_refitted_too(layers, bench):
    result = ShareKMeans(bits=1, refit=True)(layers, bench(layers, *samples(8)))
    biases = {each.name: result.model.array(each) for each in result.model.constants() if each.name in ("b", "c")}
    assert np.abs(biases["b"] - array(2, 40)).max() > 1e-3
    assert np.abs(biases["c"] - array(4, 20)).max() > 1e-3


def test_layers_make_up_for_those_before(layers, bench, distance):
    """The second layer alone is refitted to what the shared first one gives."""
    work = bench(layers, *samples(8))
    both = ShareKMeans(bits=2, refit=True)(layers, work).model
    alone = ShareKMeans(bits=2, refit=True, include=("first",))(layers, work).model
    second = ShareKMeans(bits=2, refit=True, include=("second",))(layers, work).model
    first, kept = find_sites(both)
    assert not np.array_equal(kept.array(), find_sites(second)[1].array())
    np.testing.assert_array_equal(first.array(), find_sites(alone)[0].array())


def test_codes_make_up_for_layers_before_too(layers, bench):
    """Which weights have the same value is another division than that of the weights themselves."""
    plain, refitted = (
        find_sites(ShareKMeans(bits=2, refit=refit)(layers, bench(layers, *samples(8))).model)[1].array()
        for refit in (False, True)
    )
    codes = [np.unique(each, return_inverse=True)[1] for each in (plain, refitted)]
    assert not np.array_equal(*codes)


@pytest.mark.parametrize("kind", [ShareKMeans, ShareEntropy])
def test_convolutions_with_groups_are_weighed_and_refitted(build, bench, run, kind):
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv", group=2, pads=[1, 1, 1, 1])
    model = build([node], {"w": array(0, 12, 3, 3, 3), "b": array(1, 12)}, x=["n", 6, 8, 8])
    scale = np.array([9, 3, 1, 1, 0.1, 0.1], np.float32)[:, None, None]
    batches = [array(seed, 2, 6, 8, 8) * scale for seed in range(8)]
    unseen = array(77, 4, 6, 8, 8) * scale
    wanted, lost = run(model, unseen)[0], []
    for more in ({}, {"importance": "hessian"}, {"importance": "hessian", "refit": True}):
        shared = kind(bits=3, **more)(model, bench(model, *batches)).model
        lost.append(float(np.linalg.norm(run(shared, unseen)[0] - wanted)))
    assert lost[1] < 0.9 * lost[0]
    assert lost[2] < lost[0]


@few
def test_says_why_a_weight_learns_nothing(build, bench, kind, options):
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=7),
        helper.make_node("Gather", ["w", "i"], ["y"], name="embedding"),
    ]
    model = build(nodes, {"w": array(0, 60, 30)}, x=["n"])
    work = bench(model, *[np.arange(4, dtype=np.float32)] * 4)
    (change,) = kind(**options, importance="hessian")(model, work).report.changes
    assert change.action.endswith(", all count alike: Gather does not multiply rows of an activation by its weight")
    (change,) = kind(**options, refit=True)(model, work).report.changes
    assert change.action.endswith(", not refitted: Gather does not multiply rows of an activation by its weight")


def test_says_where_refitting_is_no_better(layers, bench):
    """Inputs that are all zero show nothing."""
    work = bench(layers, *[np.zeros((4, 16), np.float32)] * 4)
    result = ShareKMeans(bits=2, refit=True, include=("first",))(layers, work)
    (change,) = result.report.changes
    assert ", not refitted: that does not lower the output error, " in change.action
    np.testing.assert_array_equal(
        weights(result.model)[0], weights(ShareKMeans(bits=2, include=("first",))(layers).model)[0]
    )


def test_inputs_that_are_never_seen_count_alike(layers, bench):
    work = bench(layers, *[np.zeros((4, 16), np.float32)] * 4)
    share = {"bits": 2, "include": ("first",)}
    weighed = ShareKMeans(**share, importance="hessian")(layers, work).model
    np.testing.assert_array_equal(weights(weighed)[0], weights(ShareKMeans(**share)(layers).model)[0])


def test_refits_float16_weights(build, bench):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")
    model = build([node], {"w": array(0, 16, 40).astype(np.float16)}, x=["n", 16], dtype=10)
    batches = [each.astype(np.float16) for each in samples(8)]
    result = ShareKMeans(bits=2, refit=True)(model, bench(model, *batches))
    (weight,) = weights(result.model)
    assert weight.dtype == np.float16
    assert np.unique(weight.astype(np.float32)).size <= 4
    assert ", refitted" in result.report.changes[0].action


@few
def test_promises_large_weights_with_their_refitted_values(build, bench, tmp_path, kind, options):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")
    model = build([node], {"w": array(0, 600, 440)}, x=["n", 600])
    batches = [array(seed, 20, 600) for seed in range(4)]
    result = kind(**options, importance="hessian", refit=True)(model, bench(model, *batches))
    assert isinstance(values_of(find_sites(result.model)[0].weight), Produced)
    result.model.save(tmp_path / "out.onnx")
    (before,), (after,) = weights(model), weights(Model.load(tmp_path / "out.onnx"))
    error = np.linalg.norm(before - after) / np.linalg.norm(before)
    assert result.report.changes[0].error == pytest.approx(error, rel=1e-4)


@few
@pytest.mark.parametrize(
    ("learned", "wish"), [({"importance": "hessian"}, "importance hessian"), ({"refit": True}, "refit")]
)
def test_does_not_learn_without_samples(layers, kind, options, learned, wish):
    made_up = Workbench(feed=synthesise(layers.inputs, samples=2, seed=0))
    for bench in (Workbench(), made_up):
        with pytest.raises(FeedError) as caught:
            kind(**options, **learned)(layers, bench)
        assert str(caught.value) == (
            f"{kind.name} learns from samples what layers read ({wish}); give some with --data"
        )
    kind(**options)(layers, made_up)


@few
def test_learns_only_where_it_is_asked_to(kind, options):
    assert not kind(**options).learns
    assert kind(**options, importance="hessian").learns
    assert kind(**options, refit=True).learns


@few
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"importance": "fisher"}, "importance must be none or hessian, got 'fisher'"),
        ({"refit": 1}, "refit must be true or false, got 1"),
    ],
)
def test_refuses_bad_options(kind, options, wrong, message):
    with pytest.raises(ConfigError, match=message):
        kind(**options, **wrong)


@few
def test_samples_leave_the_model_as_it_was(layers, bench, kind, options):
    before = layers.to_proto().SerializeToString()
    kind(**options, importance="hessian", refit=True)(layers, bench(layers, *samples(4)))
    assert layers.to_proto().SerializeToString() == before


def test_a_feed_is_walked_as_often_as_needed_and_not_changed(layers):
    batches = [{"x": each} for each in samples(4)]
    feed = open_feed(batches, inputs=layers.inputs)
    share = ShareKMeans(bits=2, importance="hessian")
    first, second = (weights(share(layers, Workbench(feed=feed, threads=1)).model) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, two)
