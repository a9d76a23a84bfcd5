import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxpress.calibration.feeds import Feed
from onnxpress.passes.base import Workbench
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.prune.blocks.blocks import PruneBlocks
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.sites import find_sites

SIZES = (0.02, 0.5, 0.1, 1.0)
"""How much each block of the chain changes."""


@pytest.fixture
def chain(build, random):
    """Four residual blocks of different sizes, x + W relu(x)."""
    nodes, x = [], "x"
    for index in range(len(SIZES)):
        y = "y" if index == len(SIZES) - 1 else f"y{index}"
        nodes += [
            helper.make_node("Relu", [x], [f"r{index}"]),
            helper.make_node("MatMul", [f"r{index}", f"w{index}"], [f"b{index}"], name=f"fc{index}"),
            helper.make_node("Add", [x, f"b{index}"], [y], name=f"join{index}"),
        ]
        x = y
    weights = {
        f"w{index}": (size / 3 * random.standard_normal((8, 8))).astype(np.float32) for index, size in enumerate(SIZES)
    }
    return build(nodes, weights, x=("n", 8))


@pytest.fixture
def x(random):
    return random.standard_normal((16, 8), np.float32)


def layers(model):
    return [site.name for site in find_sites(model)]


def sqnr(run, model, other, x):
    reference, test = run(model, x)[0].astype(np.float64), run(other, x)[0]
    return 10 * np.log10(np.square(reference).sum() / np.square(reference - test).sum())


def pruned(model, bench, **options):
    result = Pipeline([PruneBlocks(**options)])(model, bench)
    return result.model, result.reports[-1]


@pytest.mark.parametrize(
    ("options", "left"),
    [({"count": 1}, [1, 2, 3]), ({"count": 2}, [1, 3]), ({"pruning_ratio": 0.5}, [1, 3]), ({"count": 9}, [])],
)
def test_removes_the_blocks_that_are_missed_least(chain, bench, x, options, left):
    model, report = pruned(chain, bench(chain, x), **options)
    assert layers(model) == [f"fc{index}" for index in left]
    assert len(report.changes) == 4 - len(left)
    assert len(report.skips) == len(left)


def test_reports_the_decibels_that_are_left(chain, bench, run, x):
    model, report = pruned(chain, bench(chain, x), count=2)
    last = report.changes[-1]
    left = sqnr(run, chain, model, x)
    assert last.site == "fc2"
    assert last.action.startswith("branch of 2 nodes removed: ")
    assert last.action.endswith(f" dB without it alone, {left:.1f} dB after 2")
    assert (last.bytes_before, last.bytes_after) == (256, 0)
    (curve,) = report.curves
    assert (curve.site, curve.unit, curve.ratios, curve.where) == ("blocks", "blocks", (0.25, 0.5), "outputs")
    assert curve.errors[1] == pytest.approx(left, rel=1e-4)
    assert all(" dB would be left without it alone, " in each.reason for each in report.skips)


def test_removes_as_many_as_keep_the_decibels(chain, bench, run, x):
    """Both small blocks can go at what the second leaves, one at a little more."""
    two = pruned(chain, bench(chain, x), count=2)[1].curves[0].errors[1]
    for limit, left in ((two - 0.1, ["fc1", "fc3"]), (two + 0.1, ["fc1", "fc2", "fc3"])):
        model, _ = pruned(chain, bench(chain, x), min_sqnr=limit)
        assert layers(model) == left
        assert sqnr(run, chain, model, x) >= limit


def test_keeps_all_blocks_where_each_is_needed(chain, bench, x):
    model, report = pruned(chain, bench(chain, x), min_sqnr=90.0)
    assert (report.changes, report.curves) == ([], [])
    assert len(layers(model)) == 4


def test_leaves_the_model_it_is_given(chain, bench, x):
    before = chain.to_proto().SerializeToString(deterministic=True)
    PruneBlocks(count=2)(chain, bench(chain, x))
    assert chain.to_proto().SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("option", ["exclude", "ignored_layers"])
def test_leaves_excluded_blocks(chain, bench, x, option):
    model, report = pruned(chain, bench(chain, x), count=1, **{option: ("fc0",)})
    assert layers(model) == ["fc0", "fc1", "fc3"]
    assert next(each.reason for each in report.skips if each.site == "fc0") == "excluded by the recipe"
    model, _ = pruned(chain, bench(chain, x), count=1, include=("fc[13]",))
    assert layers(model) == ["fc0", "fc2", "fc3"]


def test_one_of_two_projections_stays(build, bench, random, x):
    """Without either of them nothing would be left of the sum."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="left"),
        helper.make_node("MatMul", ["x", "v"], ["b"], name="right"),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    weights = {"w": np.eye(8, dtype=np.float32), "v": (0.1 * random.standard_normal((8, 8))).astype(np.float32)}
    model = build(nodes, weights, x=("n", 8))
    found, report = pruned(model, bench(model, x), count=2)
    assert layers(found) == ["left"]
    (skip,) = report.skips
    assert (skip.site, skip.reason) == ("left", "is all that is left of the sum without 'right'")


def test_what_is_inside_of_a_removed_block_goes_with_it(build, bench, random, x):
    nodes = [
        helper.make_node("MatMul", ["x", "small"], ["a"], name="outer"),
        helper.make_node("MatMul", ["a", "w"], ["b"], name="inner"),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    weights = {"small": np.full((8, 8), 1e-4, np.float32), "w": random.standard_normal((8, 8), np.float32)}
    weights["small"][0] = 1e-6
    model = build(nodes, weights, x=("n", 8))
    found, report = pruned(model, bench(model, x), include=("outer",), count=1)
    assert layers(found) == []
    assert [each.bytes_before for each in report.changes] == [512]
    found, report = pruned(model, bench(model, x), count=2)
    assert layers(found) == []
    assert sum(each.bytes_before for each in report.changes) == 512


def test_averages_stand_in_where_they_help(build, bench, run, random, x):
    """A branch that is nearly constant, and one whose average is nothing."""
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["a"], name="constant"),
        helper.make_node("Add", ["x", "a"], ["s"]),
        helper.make_node("MatMul", ["s", "v"], ["c"], name="other"),
        helper.make_node("Add", ["s", "c"], ["y"]),
    ]
    weights = {
        "w": (0.01 * random.standard_normal((8, 8))).astype(np.float32),
        "b": random.standard_normal(8).astype(np.float32),
        "v": np.eye(8, dtype=np.float32),
    }
    model = build(nodes, weights, x=("n", 8))
    feed = bench(model, x - x.mean(axis=0), x.mean(axis=0) - x)
    plain, report = pruned(model, feed, count=1, include=("constant",))
    mean, better = pruned(model, feed, count=1, include=("constant",), stand_in="mean")
    assert better.curves[0].errors[0] > report.curves[0].errors[0] + 20
    assert sqnr(run, model, mean, x) > sqnr(run, model, plain, x) + 20
    assert (report.changes[0].bytes_after, better.changes[0].bytes_after) == (0, 32)


def test_gates_are_replaced_by_their_average(build, bench, run, random):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], name="conv"),
        helper.make_node("GlobalAveragePool", ["h"], ["p"]),
        helper.make_node("Conv", ["p", "v"], ["q"], name="squeeze"),
        helper.make_node("Sigmoid", ["q"], ["g"]),
        helper.make_node("Mul", ["h", "g"], ["y"], name="gate"),
    ]
    weights = {
        "w": random.standard_normal((4, 4, 1, 1), np.float32),
        "v": (0.01 * random.standard_normal((4, 4, 1, 1))).astype(np.float32),
    }
    model = build(nodes, weights, x=("n", 4, 6, 6))
    x = random.standard_normal((8, 4, 6, 6), np.float32)
    found, report = pruned(model, bench(model, x), count=1, gates=True)
    (change,) = report.changes
    assert change.action.startswith("gate of 3 nodes removed")
    assert layers(found) == ["conv"]
    assert sqnr(run, model, found, x) > 30  # sigmoid(small) is nearly 0.5


def test_a_sum_that_broadcasts_on_samples_keeps_its_branch(build, bench, random):
    """The size of what stays is unknown, and 1: the branch makes it wider."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["r"]),
        helper.make_node("ReduceMean", ["r"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Reshape", ["m", "sizes"], ["k"]),
        helper.make_node("MatMul", ["r", "w"], ["a"], name="fc"),
        helper.make_node("Add", ["k", "a"], ["y"]),
    ]
    weights = {"shape": np.array([-1, 8]), "sizes": np.array([-1, 8]), "w": random.standard_normal((8, 8), np.float32)}
    model = build(nodes, weights, x=("n", 8))
    found, report = pruned(model, bench(model, random.standard_normal((4, 8), np.float32)), count=1)
    (skip,) = (each for each in report.skips if each.site == "fc")
    assert skip.reason == "without it 'y' has another shape on these samples"
    assert layers(found) == ["fc"]


def test_judges_what_a_softmax_reads(build, bench, random, x):
    """A sure answer hides what is lost; the two blocks differ only before the Softmax."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="much"),
        helper.make_node("Add", ["x", "a"], ["s"]),
        helper.make_node("MatMul", ["s", "v"], ["b"], name="little"),
        helper.make_node("Add", ["s", "b"], ["t"]),
        helper.make_node("Mul", ["t", "large"], ["u"]),
        helper.make_node("Softmax", ["u"], ["y"], axis=-1),
    ]
    weights = {
        "w": np.eye(8, dtype=np.float32),
        "v": (0.01 * random.standard_normal((8, 8))).astype(np.float32),
        "large": np.array(1e4, np.float32),
    }
    model = build(nodes, weights, x=("n", 8))
    found, report = pruned(model, bench(model, x), count=1)
    assert layers(found) == ["much"]
    assert report.curves[0].errors[0] < 60


def test_refits_what_lies_behind(build, bench, run, random):
    """The layer behind reads twice what it read: only its weight has to be halved."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="block"),
        helper.make_node("Add", ["x", "a"], ["s"]),
        helper.make_node("MatMul", ["s", "v"], ["y"], name="last"),
    ]
    model = build(
        nodes, {"w": np.eye(8, dtype=np.float32), "v": random.standard_normal((8, 3), np.float32)}, x=("n", 8)
    )
    x = random.standard_normal((256, 8), np.float32)
    feed = bench(model, *np.split(x, 16))
    found, report = pruned(model, feed, count=1, reconstruct=True)
    assert [each.site for each in report.changes] == ["block", "last"]
    assert report.changes[0].action.endswith(" dB once refitted")
    assert sqnr(run, model, found, x) > 40


def test_refits_what_lies_behind_a_condition(build, bench, random):
    """Only the branches of an If read the sum; the layer behind reads what the If gives."""
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, None)] for name in "tu"]
    yes = helper.make_graph([helper.make_node("Identity", ["s"], ["t"])], "yes", [], ends[0])
    no = helper.make_graph([helper.make_node("Neg", ["s"], ["u"])], "no", [], ends[1])
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="block"),
        helper.make_node("Add", ["x", "a"], ["s"]),
        helper.make_node("If", ["which"], ["c"], then_branch=yes, else_branch=no),
        helper.make_node("MatMul", ["c", "v"], ["y"], name="last"),
    ]
    weights = {
        "w": np.eye(8, dtype=np.float32),
        "v": random.standard_normal((8, 3), np.float32),
        "which": np.array(True),
    }
    model = build(nodes, weights, x=("n", 8))
    samples = bench(model, *random.standard_normal((8, 16, 8), np.float32))
    report = PruneBlocks(count=1, reconstruct=True)(model, samples).report
    assert [each.site for each in report.changes] == ["block", "last"]


def test_says_so_where_nothing_can_be_judged(build, bench, x):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="block"),
        helper.make_node("Add", ["x", "a"], ["s"]),
        helper.make_node("Greater", ["s", "zero"], ["y"]),
    ]
    weights = {"w": np.eye(8, dtype=np.float32), "zero": np.zeros((), np.float32)}
    model = build(nodes, weights, x=("n", 8), gives=TensorProto.BOOL)
    _, report = pruned(model, bench(model, x), count=1)
    (skip,) = report.skips
    assert (skip.site, skip.reason) == ("block", "the model has no output of floating-point numbers to judge it by")


def test_warns_where_there_is_no_branch(build, bench, x, random):
    model = build(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": random.standard_normal((8, 8), np.float32)}, x=("n", 8)
    )
    _, report = pruned(model, bench(model, x), count=1)
    assert report.warnings == ["no residual branch was found: there is nothing prune-blocks could remove"]


def test_needs_samples(chain):
    with pytest.raises(FeedError, match="--data"):
        PruneBlocks(count=1)(chain, Workbench())
    with pytest.raises(FeedError, match="holds no samples"):
        PruneBlocks(count=1)(chain, Workbench(feed=Feed([], count=0)))


def test_warns_where_there_are_fewer_branches_than_the_count(chain, bench, x):
    _, report = pruned(chain, bench(chain, x), count=100)
    assert ["count 100 is not reached" in each for each in report.warnings] == [True]
