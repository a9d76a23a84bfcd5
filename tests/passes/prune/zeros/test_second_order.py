"""Pruning by what layers read, with the weights that stay refitted."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.prune.zeros.magnitude import PruneMagnitude
from onnxpress.passes.prune.zeros.second_order import PruneSecondOrder
from onnxpress.rewriter.errors import ConfigError, FeedError
from onnxpress.rewriter.sites import find_sites

DRAW = np.random.default_rng(0)
MIX = DRAW.standard_normal((6, 24)).astype(np.float32)


def samples(seed, count=4):
    """Batches [50, 24] of inputs that mostly lie in six directions."""
    draw = np.random.default_rng(seed)
    return [(draw.standard_normal((50, 6)) @ MIX + 0.3 * draw.standard_normal((50, 24)) + 1) for _ in range(count)]


def narrow(batches):
    return [each.astype(np.float32) for each in batches]


@pytest.fixture
def net(build):
    """Three layers: a MatMul with an Add behind it, a Gemm without bias, and a Gemm with one."""
    draw = np.random.default_rng(1)
    shapes = {"a": (24, 40), "ab": (40,), "b": (30, 40), "c": (8, 30), "cb": (8,)}
    weights = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="first"),
        helper.make_node("Add", ["p", "ab"], ["q"]),
        helper.make_node("Relu", ["q"], ["r"]),
        helper.make_node("Gemm", ["r", "b"], ["s"], name="second", transB=1),
        helper.make_node("Relu", ["s"], ["t"]),
        helper.make_node("Gemm", ["t", "c", "cb"], ["y"], name="third", transB=1),
    ]
    return build(nodes, weights, x=("n", 24))


@pytest.fixture
def conv(build):
    """Two convolutions, the second depthwise."""
    draw = np.random.default_rng(2)
    weights = {
        "a": draw.standard_normal((8, 4, 3, 3)).astype(np.float32),
        "b": draw.standard_normal((8, 1, 3, 3)).astype(np.float32),
        "bias": draw.standard_normal(8).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["p"], name="full", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["p"], ["q"]),
        helper.make_node("Conv", ["q", "b", "bias"], ["y"], name="depthwise", group=8),
    ]
    return build(nodes, weights, x=("n", 4, 8, 8))


def images(seed):
    draw = np.random.default_rng(seed)
    blurred = draw.standard_normal((4, 6, 4, 10, 10))
    return narrow([each[..., 1:-1, 1:-1] + each[..., :-2, 2:] + each[..., 2:, :-2] for each in blurred])


def masks(model):
    return {site.name: site.array() != 0 for site in find_sites(model)}


def zeros(model):
    return {name: int(np.count_nonzero(~mask)) for name, mask in masks(model).items()}


def noise(run, original, model, batches):
    """Relative squared error of the output on some batches."""
    wanted, found = (np.concatenate([run(each, x)[0] for x in batches]) for each in (original, model))
    return float(np.square(wanted - found).sum() / np.square(wanted).sum())


@pytest.mark.parametrize("saliency", ["magnitude", "wanda", "obd", "obs", "alps"])
def test_every_saliency_with_refit_beats_plain_magnitude_on_unseen_samples(net, bench, run, saliency):
    result = PruneSecondOrder(sparsity=0.6, saliency=saliency, allocation="uniform")(
        net, bench(net, *narrow(samples(0)))
    )
    plain = PruneMagnitude(sparsity=0.6, scope="tensor", min_size=1)(net).model
    assert (
        sum(zeros(result.model).values())
        == sum(zeros(plain).values()) - zeros(plain)["third"] + zeros(result.model)["third"]
    )
    unseen = narrow(samples(9))
    assert noise(run, net, result.model, unseen) < 0.5 * noise(run, net, plain, unseen)


def test_finding_mask_and_weights_together_beats_refitting_the_mask_of_obd(net, bench, run):
    given, unseen = bench(net, *narrow(samples(0))), narrow(samples(9))
    together, apart = (
        noise(run, net, PruneSecondOrder(sparsity=0.75, saliency=saliency, min_size=1)(net, given).model, unseen)
        for saliency in ("alps", "obd")
    )
    assert together < apart


@pytest.mark.parametrize("allocation", ["error", "uniform", "global"])
def test_all_layers_together_are_as_sparse_as_asked(net, bench, allocation):
    given = bench(net, *narrow(samples(0)))
    found = zeros(PruneSecondOrder(sparsity=0.7, allocation=allocation, min_size=1)(net, given).model)
    assert abs(sum(found.values()) - 0.7 * (960 + 1200 + 240)) <= 3  # each layer rounds
    assert (
        len({round(count / size, 2) for count, size in zip(found.values(), (960, 1200, 240), strict=True)}) == 1
    ) == (allocation == "uniform")


def test_allocation_by_error_is_no_worse_than_uniform(net, bench, run):
    given, unseen = bench(net, *narrow(samples(0))), narrow(samples(9))
    error, uniform = (
        noise(run, net, PruneSecondOrder(sparsity=0.7, allocation=each, min_size=1)(net, given).model, unseen)
        for each in ("error", "uniform")
    )
    assert error < uniform


def test_reports_curves_of_what_each_layer_does_to_the_outputs(net, bench):
    report = PruneSecondOrder(sparsity=0.7, min_size=1)(net, bench(net, *narrow(samples(0)))).report
    assert [curve.site for curve in report.curves] == ["first", "second", "third"]
    for curve in report.curves:
        assert curve.unit == "sparsity"
        assert curve.where == "outputs"
        assert all(np.diff(curve.errors) <= 0)
        assert curve.errors[0] > curve.errors[-1] + 6


def test_reports_held_out_error_before_and_after_each_refit(net, bench):
    report = PruneSecondOrder(sparsity=0.6, allocation="uniform")(net, bench(net, *narrow(samples(0)))).report
    (first, second) = report.changes
    assert first.action.startswith("60.0% zeros, output error ")
    for change in (first, second):
        before, after = (float(part.split("%")[0]) for part in change.action.split("output error ")[1].split(" -> "))
        assert after < before
        assert change.error > 0
    assert [(skip.site, skip.reason) for skip in report.skips] == [
        ("third", "has 240 weights, fewer than min_size 256")
    ]


def test_refits_the_bias_behind_a_matmul_and_gives_a_gemm_one(net, bench):
    model = PruneSecondOrder(sparsity=0.8, allocation="uniform")(net, bench(net, *narrow(samples(0)))).model
    (add,) = (node for node in model.graph.nodes if node.op == "Add")
    before = next(node for node in net.graph.nodes if node.op == "Add").inputs[1]
    assert not np.array_equal(model.array(add.inputs[1]), net.array(before))
    assert len(next(node for node in model.graph.nodes if node.name == "second").inputs) == 3


def test_without_reconstruction_biases_stay_and_so_do_weights_that_magnitude_keeps(net, bench):
    pass_ = PruneSecondOrder(sparsity=0.5, saliency="magnitude", allocation="uniform", reconstruct=False)
    result = pass_(net, bench(net, *narrow(samples(0))))
    plain = PruneMagnitude(sparsity=0.5, scope="tensor")(net).model
    for mine, other in zip(find_sites(result.model), find_sites(plain), strict=True):
        np.testing.assert_array_equal(mine.array(), other.array())
    assert [change.action for change in result.report.changes] == ["50.0% zeros"] * 2


@pytest.mark.parametrize("saliency", ["obs", "alps"])
def test_without_reconstruction_what_learns_still_beats_its_own_mask_alone(net, bench, run, saliency):
    pass_ = PruneSecondOrder(sparsity=0.6, saliency=saliency, allocation="uniform", reconstruct=False)
    given, unseen = bench(net, *narrow(samples(0))), narrow(samples(9))
    model = pass_(net, given).model
    masked = net.clone()
    for site, kept in zip(find_sites(masked), masks(model).values(), strict=True):
        masked.replace_weight(site.weight, site.array() * kept)
    assert noise(run, net, model, unseen) < noise(run, net, masked, unseen)


@pytest.mark.parametrize("saliency", ["obd", "obs", "alps"])
def test_two_of_four_along_the_reduction_axis(net, bench, saliency):
    model = PruneSecondOrder(pattern="2:4", saliency=saliency)(net, bench(net, *narrow(samples(0)))).model
    kept = masks(model)
    assert (kept["first"].reshape(6, 4, 40).sum(axis=1) == 2).all()
    assert (kept["second"].reshape(30, 10, 4).sum(axis=2) == 2).all()


@pytest.mark.parametrize("saliency", ["magnitude", "obs", "alps"])
@pytest.mark.parametrize(("pattern", "axis"), [("rows", 1), ("columns", 0)])
def test_whole_rows_or_columns_of_the_matrix_go(net, bench, saliency, pattern, axis):
    pass_ = PruneSecondOrder(sparsity=0.5, pattern=pattern, saliency=saliency, allocation="uniform")
    kept = masks(pass_(net, bench(net, *narrow(samples(0)))).model)["second"]
    assert (kept.all(axis=axis) | ~kept.any(axis=axis)).all()
    assert np.count_nonzero(~kept.any(axis=axis)) == kept.shape[1 - axis] // 2


@pytest.mark.parametrize("saliency", ["obs", "alps"])
def test_blocks_go_whole(net, bench, saliency):
    pass_ = PruneSecondOrder(sparsity=0.5, pattern="2x4", saliency=saliency)
    kept = masks(pass_(net, bench(net, *narrow(samples(0)))).model)["second"].reshape(15, 2, 10, 4)
    counts = kept.sum(axis=(1, 3))
    assert set(np.unique(counts)) == {0, 8}


@pytest.mark.parametrize("saliency", ["obs", "alps"])
def test_prunes_convolutions_of_any_groups(conv, bench, run, saliency):
    given = bench(conv, *images(0))
    pass_ = PruneSecondOrder(sparsity=0.5, saliency=saliency, allocation="uniform", min_size=1)
    model = pass_(conv, given).model
    assert zeros(model) == {"full": 144, "depthwise": 36}
    plain = PruneMagnitude(sparsity=0.5, scope="tensor", min_size=1)(conv).model
    assert noise(run, conv, model, images(9)) < noise(run, conv, plain, images(9))


def test_targets_hold_for_the_sites_that_match_and_others_stay(net, bench):
    result = PruneSecondOrder(targets={"second": 0.8}, min_size=1)(net, bench(net, *narrow(samples(0))))
    assert zeros(result.model) == {"first": 0, "second": 960, "third": 0}
    assert {skip.site for skip in result.report.skips} == {"first", "third"}


def test_leaves_the_model_it_is_given(net, bench):
    before = net.to_proto().SerializeToString()
    PruneSecondOrder(sparsity=0.8)(net, bench(net, *narrow(samples(0))))
    assert net.to_proto().SerializeToString() == before


def test_twice_the_same_samples_give_the_same_model(net, bench):
    first, second = (
        PruneSecondOrder(sparsity=0.8)(net, bench(net, *narrow(samples(0)))).model.to_proto() for _ in range(2)
    )
    assert first == second


def test_runs_in_a_pipeline(net, bench, run):
    result = Pipeline([PruneSecondOrder(sparsity=0.5)])(net, bench(net, *narrow(samples(0))))
    assert noise(run, net, result.model, narrow(samples(9))) < 0.2


def test_skips_embeddings_branches_and_weights_that_others_read(build, bench):
    table = DRAW.standard_normal((24, 24)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], name="embed"),
        helper.make_node("MatMul", ["x", "shared"], ["s"], name="shared"),
        helper.make_node("ReduceSum", ["shared"], ["t"], keepdims=0),
        helper.make_node("ReduceSum", ["e"], ["u"], keepdims=0),
        helper.make_node("Sum", ["s", "t", "u"], ["y"]),
    ]
    weights = {"table": table, "shared": table + 1, "ids": np.array([1, 2])}
    model = build(nodes, weights, x=("n", 24))
    report = PruneSecondOrder(sparsity=0.5)(model, bench(model, *narrow(samples(0)))).report
    reasons = {skip.site: skip.reason for skip in report.skips}
    assert "looked up, not summed" in reasons["embed"]
    assert "ReduceSum" in reasons["shared"]
    assert not report.changes


def test_skips_a_layer_that_reads_no_numbers(build, bench):
    nodes = [
        helper.make_node("Log", ["x"], ["l"]),
        helper.make_node("MatMul", ["l", "w"], ["y"], name="fc"),
    ]
    model = build(nodes, {"w": DRAW.standard_normal((24, 24)).astype(np.float32)}, x=("n", 24))
    batches = [np.full((4, 24), -1, np.float32)] * 4
    for allocation in ("error", "uniform", "global"):
        report = PruneSecondOrder(sparsity=0.5, allocation=allocation)(model, bench(model, *batches)).report
        assert [skip.site for skip in report.skips] == ["fc"]
        assert "NaN" in report.skips[0].reason


def test_works_on_half_floats(build, bench):
    weight = DRAW.standard_normal((24, 24)).astype(np.float16)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")]
    model = build(nodes, {"w": weight}, x=("n", 24), dtype=onnx.TensorProto.FLOAT16)
    batches = [each.astype(np.float16) for each in samples(0)]
    result = PruneSecondOrder(sparsity=0.5)(model, bench(model, *batches)).model
    (site,) = find_sites(result)
    assert site.array().dtype == np.float16
    assert np.count_nonzero(site.array() == 0) == 288


def test_asks_for_samples(net):
    with pytest.raises(FeedError, match="give some with --data"):
        PruneSecondOrder(sparsity=0.5)(net, Workbench())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "sparsity must lie in [0, 1), got None"),
        ({"sparsity": 1.0}, "sparsity must lie in [0, 1), got 1.0"),
        (
            {"sparsity": 0.5, "saliency": "best"},
            "saliency must be magnitude or wanda or obd or obs or alps, got 'best'",
        ),
        ({"sparsity": 0.5, "allocation": "layer"}, "allocation must be error or uniform or global, got 'layer'"),
        ({"sparsity": 0.5, "reconstruct": 1}, "reconstruct must be true or false, got 1"),
        ({"sparsity": 0.5, "pattern": "4:2"}, "got '4:2'"),
        ({"sparsity": 0.5, "targets": {"a": 2}}, "targets must map globs"),
        ({"sparsity": 0.9, "pattern": "2:4"}, "sparsity must be left out, for pattern 2:4 means 0.5, got 0.9"),
        ({"targets": {"a": 0.5}, "pattern": "2:4"}, "targets must be left out, for pattern 2:4 means 0.5"),
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(ConfigError) as caught:
        PruneSecondOrder(**options)
    assert message in str(caught.value)


def test_a_layer_that_others_make_up_for_keeps_all_its_weights(build, bench):
    """One layer reads nothing but zeros and is large: it takes all that goes."""
    nodes = [
        helper.make_node("Mul", ["x", "zero"], ["z"]),
        helper.make_node("MatMul", ["z", "silent"], ["s"], name="silent"),
        helper.make_node("MatMul", ["x", "loud"], ["l"], name="loud"),
        helper.make_node("Add", ["s", "l"], ["y"]),
    ]
    weights = {
        "zero": np.zeros(1, np.float32),
        "silent": DRAW.standard_normal((24, 40)).astype(np.float32),
        "loud": DRAW.standard_normal((24, 40)).astype(np.float32),
    }
    model = build(nodes, weights, x=("n", 24))
    report = PruneSecondOrder(sparsity=0.4)(model, bench(model, *narrow(samples(0)))).report
    assert [skip.reason for skip in report.skips] == ["all its weights stay: those of other layers matter less"]
    assert [change.site for change in report.changes] == ["silent"]
