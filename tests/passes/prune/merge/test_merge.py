import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.prune.merge.merge import WIDEST, MergeNeurons
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites


def normal(random, *shape):
    return random.standard_normal(shape).astype(np.float32)


def twice(weight, axis, pairs, factor=1.0):
    """A weight in which some slices are others, times a factor."""
    copy = np.moveaxis(weight.copy(), axis, 0)
    for gone, kept in pairs:
        copy[gone] = factor * copy[kept]
    return np.moveaxis(copy, 0, axis)


def shapes(model):
    return {site.name: site.shape for site in find_sites(model)}


def check_equal(run, model, merged, x):
    for expected, found in zip(run(model, x), run(merged, x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)  # other order of float32 sums


def mlp(build, random, *, factor=1.0, op="Relu"):
    """Units 1 and 5 of 8 are units 0 and 2, times a factor."""
    pairs = [(1, 0), (5, 2)]
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], name="fc"),
        helper.make_node(op, ["h"], ["g"]),
        helper.make_node("Gemm", ["g", "v", "c"], ["y"], name="last", transB=1),
    ]
    arrays = {"w": twice(normal(random, 6, 8), 1, pairs, factor), "b": twice(normal(random, 8), 0, pairs, factor)}
    return build(nodes, arrays | {"v": normal(random, 3, 8), "c": normal(random, 3)}, x=("n", 6))


@pytest.mark.parametrize(("op", "factor"), [("Relu", 1.0), ("Tanh", 1.0), ("Relu", 2.5), ("LeakyRelu", 0.5)])
def test_merges_equal_twins_without_loss(build, run, random, op, factor):
    model = mlp(build, random, op=op, factor=factor)
    result = MergeNeurons(max_error=0.0)(model)
    (change,) = result.report.changes
    scaled = ", 2 of them scaled" if factor != 1 else ""
    assert (change.site, change.action) == ("fc", f"2 of 8 neurons merged into others{scaled}, twins differ by up to 0")
    assert (change.bytes_before, change.bytes_after) == (4 * (48 + 8 + 24), 4 * (36 + 6 + 18))
    assert shapes(result.model) == {"fc": (6, 6), "last": (3, 6)}
    check_equal(run, model, result.model, normal(random, 4, 6))


def test_needs_equal_units_where_nothing_is_homogeneous(build, random):
    report = MergeNeurons(max_error=0.0)(mlp(build, random, op="Tanh", factor=2.0)).report
    reasons = {each.site: each.reason for each in report.skips}
    assert reasons["fc"] == "no two units are alike enough: the nearest differ by 0.5, above max_error 0"


def test_leaves_the_model_it_is_given(build, random):
    model = mlp(build, random)
    before = model.to_proto().SerializeToString(deterministic=True)
    MergeNeurons(pruning_ratio=0.5)(model)
    assert model.to_proto().SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"pruning_ratio": 0.5}, 4),
        ({"count": 3}, 5),
        ({"count": 3, "round_to": 4}, 4),
        ({"count": 3, "round_to": 4, "min_kept": 5}, 8),
        ({"count": 99}, 1),
        ({"count": 99, "min_kept": 3}, 3),
        ({"max_error": 0.0, "round_to": 3}, 6),
        ({"max_error": 0.0, "round_to": 4}, 8),
        ({"max_error": 100.0}, 1),
    ],
)
def test_keeps_the_number_of_units_that_is_asked_for(build, random, options, left):
    result = MergeNeurons(**options)(mlp(build, random))
    assert shapes(result.model)["fc"] == (6, left)
    assert len(result.report.changes) == (left < 8)


def test_twins_take_over_what_removed_units_gave(build, run, random):
    base = mlp(build, random)
    x = normal(random, 64, 6)
    merged = MergeNeurons(count=2)(base).model
    reference = run(base, x)[0]
    removed = base.clone()
    site = find_sites(removed)[1]
    dropped = site.array().copy()
    dropped[:, [1, 5]] = 0
    removed.replace_weight(site.weight, dropped)
    assert np.square(run(merged, x)[0] - reference).sum() < 1e-6 * np.square(run(removed, x)[0] - reference).sum()


def test_merges_channels_through_depthwise_and_pooling(build, run, random):
    pairs = [(3, 1)]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["h"], name="first"),
        helper.make_node("PRelu", ["h", "s"], ["r"]),
        helper.make_node("Conv", ["r", "d", "e"], ["k"], name="depthwise", group=6, pads=[1, 1, 1, 1]),
        helper.make_node("MaxPool", ["k"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"], name="last"),
    ]
    arrays = {
        "w": twice(normal(random, 6, 2, 3, 3), 0, pairs, 3),
        "b": twice(normal(random, 6), 0, pairs, 3),
        "s": twice(normal(random, 6, 1, 1), 0, pairs),
        "d": twice(normal(random, 6, 1, 3, 3), 0, pairs),
        "e": twice(normal(random, 6), 0, pairs, 3),
        "v": normal(random, 6 * 4, 3),
    }
    model = build(nodes, arrays, x=(1, 2, 6, 6))
    result = MergeNeurons(max_error=0.0)(model)
    found = shapes(result.model)
    assert (found["first"], found["depthwise"], found["last"]) == ((5, 2, 3, 3), (5, 1, 3, 3), (20, 3))
    check_equal(run, model, result.model, normal(random, 1, 2, 6, 6))


def test_twins_must_agree_in_all_layers_that_are_added(build, run, random):
    """Units 1 and 0 agree in both operands of the sum, units 5 and 2 in one only."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="left"),
        helper.make_node("MatMul", ["x", "u"], ["k"], name="right"),
        helper.make_node("Add", ["h", "k"], ["s"]),
        helper.make_node("Relu", ["s"], ["g"]),
        helper.make_node("MatMul", ["g", "v"], ["y"], name="last"),
    ]
    arrays = {
        "w": twice(normal(random, 6, 8), 1, [(1, 0), (5, 2)]),
        "u": twice(normal(random, 6, 8), 1, [(1, 0)]),
        "v": normal(random, 8, 3),
    }
    model = build(nodes, arrays, x=("n", 6))
    result = MergeNeurons(max_error=0.0)(model)
    assert shapes(result.model) == {"left": (6, 7), "right": (6, 7), "last": (7, 3)}
    check_equal(run, model, result.model, normal(random, 4, 6))


def test_merges_group_after_group(build, run, random):
    """The second layer's twins are twins only for what the first hands over; a shared reader is handed over once."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="one"),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("MatMul", ["a", "v"], ["k"], name="two"),
        helper.make_node("Relu", ["k"], ["b"]),
        helper.make_node("MatMul", ["b", "u"], ["y"], name="three"),
    ]
    v = normal(random, 8, 5)
    v[:2, 4] = v[:2, 0]
    v[2:, 4] = v[2:, 0]
    v[1, 4] += v[0, 4] - 1
    v[0, 4] = 1
    arrays = {"w": twice(normal(random, 6, 8), 1, [(1, 0)]), "v": v, "u": normal(random, 5, 3)}
    model = build(nodes, arrays, x=("n", 6))
    result = MergeNeurons(max_error=0.0)(model)
    assert shapes(result.model) == {"one": (6, 7), "two": (7, 4), "three": (4, 3)}
    check_equal(run, model, result.model, normal(random, 4, 6))


def test_merges_hidden_units_of_an_lstm(build, run, random):
    hidden, pairs = 4, [(gate * 4 + 3, gate * 4 + 1) for gate in range(4)]
    both = [*pairs, *((16 + gone, 16 + kept) for gone, kept in pairs)]
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r", "b"], ["h"], name="lstm", hidden_size=hidden),
        helper.make_node("Squeeze", ["h", "axes"], ["s"]),
        helper.make_node("MatMul", ["s", "v"], ["y"], name="last"),
    ]
    arrays = {
        "w": twice(normal(random, 1, 16, 5), 1, pairs),
        "r": twice(normal(random, 1, 16, hidden), 1, pairs),
        "b": twice(normal(random, 1, 32), 1, both),
        "axes": np.array([1]),
        "v": normal(random, hidden, 2),
    }
    model = build(nodes, arrays, x=(7, 2, 5))
    result = MergeNeurons(max_error=0.0)(model)
    assert shapes(result.model)["lstm:r"] == (1, 12, 3)
    check_equal(run, model, result.model, normal(random, 7, 2, 5))


def test_says_why_a_group_stays(build, random):
    model = mlp(build, random)
    reasons = {each.site: each.reason for each in MergeNeurons(count=1, ignored_layers=("fc",))(model).report.skips}
    assert reasons["fc"] == "excluded by the recipe"
    assert reasons["last"] == "'y' is an output of the model"
    reasons = {each.site: each.reason for each in MergeNeurons(count=1, kinds=("channels",))(model).report.skips}
    assert reasons["fc"] == "neurons are not among kinds"
    reasons = {each.site: each.reason for each in MergeNeurons(count=1, include=("other",))(model).report.skips}
    assert reasons["fc"] == "excluded by the recipe"


def test_warns_where_no_group_is_left(build, random):
    (warning,) = MergeNeurons(count=1, exclude=("*",))(mlp(build, random)).report.warnings
    assert "inspect --couplings" in warning


def test_skips_groups_whose_pairs_do_not_fit_into_memory(build, random, monkeypatch):
    monkeypatch.setitem(WIDEST, "weights", 7)
    reasons = {each.site: each.reason for each in MergeNeurons(count=1)(mlp(build, random)).report.skips}
    assert reasons["fc"] == "has 8 units: by weights, at most 7 are compared"


def attention(build, random):
    """Two heads of 4."""
    split = [
        node
        for name, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3]))
        for node in (
            helper.make_node("MatMul", ["x", f"w{name}"], [f"{name}1"], name=name),
            helper.make_node("Reshape", [f"{name}1", "heads"], [f"{name}2"]),
            helper.make_node("Transpose", [f"{name}2"], [f"{name}3"], perm=perm),
        )
    ]
    nodes = [
        *split,
        helper.make_node("MatMul", ["q3", "k3"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v3"], ["c"]),
        helper.make_node("Transpose", ["c"], ["d"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["d", "flat"], ["e"]),
        helper.make_node("MatMul", ["e", "wo"], ["y"], name="out"),
    ]
    weights = {f"w{name}": normal(random, 8, 8) for name in "qkv"}
    for each in weights.values():
        each[:, 4:] = each[:, :4]  # the second head is the first
    arrays = weights | {"wo": normal(random, 8, 3), "heads": np.array([0, 0, -1, 4]), "flat": np.array([0, 0, -1])}
    return build(nodes, arrays, x=(2, 5, 8))


def test_merges_heads_only_if_asked_to(build, run, random):
    model = attention(build, random)
    result = MergeNeurons(max_error=0.0)(model)
    assert result.report.changes == []
    assert any("add heads to kinds" in each.reason for each in result.report.skips)
    merged = MergeNeurons(max_error=0.0, kinds=("heads",))(model).model
    assert shapes(merged)["out"] == (4, 3)
    check_equal(run, model, merged, normal(random, 2, 5, 8))


def test_refits_what_lies_behind(build, run, bench, random):
    model = mlp(build, random)
    x = normal(random, 256, 6)
    feed = bench(model, *np.split(x, 8))
    plain, refitted = (MergeNeurons(count=4, reconstruct=each)(model, feed) for each in (False, True))
    assert [each.site for each in refitted.report.changes] == ["fc", "last"]
    reference = run(model, x)[0]
    errors = [np.square(run(each.model, x)[0] - reference).sum() for each in (plain, refitted)]
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize("options", [{"by": "activations"}, {"reconstruct": True}])
def test_says_what_needs_samples(build, random, options):
    with pytest.raises(FeedError, match="--data"):
        MergeNeurons(count=1, **options)(mlp(build, random), Workbench())


def test_promises_large_weights_of_a_file(build, run, random, tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="fc"),
        helper.make_node("Relu", ["h"], ["g"]),
        helper.make_node("MatMul", ["g", "v"], ["y"], name="last"),
    ]
    arrays = {"w": twice(normal(random, 4, 600), 1, [(599, 7)], 2), "v": normal(random, 600, 600)}
    build(nodes, arrays, x=("n", 4)).save(tmp_path / "in.onnx", external_data=True)
    model = Model.load(tmp_path / "in.onnx")
    merged = MergeNeurons(max_error=0.0)(model).model
    merged.save(tmp_path / "out.onnx")
    check_equal(run, model, Model.load(tmp_path / "out.onnx"), normal(random, 3, 4))
    assert shapes(merged) == {"fc": (4, 599), "last": (599, 600)}


def test_runs_in_a_pipeline(build, run, random):
    model = mlp(build, random)
    result = Pipeline([MergeNeurons(max_error=0.0)])(model)
    check_equal(run, model, result.model, normal(random, 4, 6))
