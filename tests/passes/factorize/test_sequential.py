"""Layers fitted to samples one after the other, against factors of the weights alone."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxpress.calibration.feeds import open_feed
from onnxpress.calibration.synthetic import synthesise
from onnxpress.passes.base import Workbench
from onnxpress.passes.factorize.cp import FactorizeCP
from onnxpress.passes.factorize.groups import FactorizeGroups
from onnxpress.passes.factorize.separable import FactorizeSeparable
from onnxpress.passes.factorize.spatial import FactorizeSpatial
from onnxpress.passes.factorize.svd import FactorizeSVD
from onnxpress.passes.factorize.train import FactorizeTrain
from onnxpress.passes.factorize.tucker import FactorizeTucker

NETWORK = {
    "svd": FactorizeSVD(ratio=0.5, conv="channel"),
    "spatial": FactorizeSpatial(ratio=0.5),
    "tucker": FactorizeTucker(ratio=0.5),
    "cp": FactorizeCP(ratio=0.5),
    "train": FactorizeTrain(ratio=0.5),
    "separable": FactorizeSeparable(ratio=0.7),
    "groups": FactorizeGroups(ratio=0.5),
}


@pytest.fixture
def network(build):
    """Two convolutions with a Relu between; its inputs have a few strong directions."""
    rng = np.random.default_rng(0)
    weights = {
        "w0": rng.standard_normal((8, 8, 3, 3)) / 9,
        "b0": rng.standard_normal(8),
        "w1": rng.standard_normal((12, 8, 3, 3)) / 9,
    }
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["t"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["t"], ["u"]),
        helper.make_node("Conv", ["u", "w1"], ["y"], name="second"),
    ]
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    return build(nodes, weights, x=("n", 8, 12, 12))


def samples(seed: int, count: int = 8, rows: int = 4) -> list[np.ndarray]:
    rng, mixing = np.random.default_rng(seed), np.random.default_rng(99).standard_normal((8, 3))
    smooth = [rng.standard_normal((rows, 3, 12, 12)).cumsum(axis=2).cumsum(axis=3) / 6 for _ in range(count)]
    noise = [0.05 * rng.standard_normal((rows, 8, 12, 12)) for _ in range(count)]
    return [(np.einsum("cs,nshw->nchw", mixing, s) + n).astype(np.float32) for s, n in zip(smooth, noise, strict=True)]


def error(run, model, result, x: np.ndarray) -> float:
    expected, found = run(model, x)[0], run(result, x)[0]
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("kind", list(NETWORK))
def test_samples_bring_the_outputs_nearer_at_equal_ranks(kind, network, bench, run):
    each = NETWORK[kind]
    plain, fitted = each(network), each(network, bench(network, *samples(0)))
    (unseen,) = samples(1, count=1)
    reports = plain.report, fitted.report
    cut = [[change.action.split(", output")[0] for change in report.changes] for report in reports]
    assert cut[0] == cut[1]
    assert len(cut[0]) == 2
    # 3 dB at least: what is promised of real models
    assert error(run, network, fitted.model, unseen) < 0.7 * error(run, network, plain.model, unseen)
    assert all("% on samples held out" in change.action for change in fitted.report.changes)


def test_refit_makes_up_for_the_layers_before(network, bench, run):
    taught, (unseen,) = bench(network, *samples(0)), samples(1, count=1)
    errors = [
        error(run, network, FactorizeSVD(ratio=0.5, conv="channel", refit=refit)(network, taught).model, unseen)
        for refit in (False, True)
    ]
    assert errors[1] < 0.9 * errors[0]


def test_correct_false_does_without_samples(network, bench):
    each = FactorizeSVD(ratio=0.5, correct=False)
    one, other = each(network), each(network, bench(network, *samples(0)))
    assert one.model.to_proto() == other.model.to_proto()


def test_a_layer_without_bias_is_given_one_that_is_fitted(network, bench):
    result = FactorizeSVD(ratio=0.5, conv="channel")(network, bench(network, *samples(0)))
    last = result.model.graph.nodes[-1]
    assert (last.name, len(last.inputs)) == ("second_wide", 3)
    assert np.abs(result.model.array(last.inputs[2])).max() > 0


def test_what_cannot_be_observed_goes_by_its_weights(build, bench):
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((8, 8, 3, 3)).astype(np.float32)}
    model = build([helper.make_node("ConvTranspose", ["x", "w"], ["y"], name="up")], weights, x=("n", 8, 12, 12))
    (change,) = FactorizeSpatial(ratio=0.5)(model, bench(model, *samples(0))).report.changes
    reason = "ConvTranspose does not multiply rows of an activation by its weight"
    assert change.action.endswith(f", by its weights alone, for {reason}")


def test_factors_of_the_weights_stay_where_samples_do_no_better(build, bench):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((40, 6)) @ rng.standard_normal((6, 30))  # rank 6: nothing is lost
    model = build(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], {"w": weight.astype(np.float32)}, x=("n", 40)
    )
    batches = [rng.standard_normal((16, 40)).astype(np.float32) for _ in range(8)]
    (change,) = FactorizeSVD(rank=6)(model, bench(model, *batches)).report.changes
    assert change.action.endswith("% on samples held out, not corrected") or change.error < 1e-6


def test_made_up_samples_teach_nothing(network):
    made_up = Workbench(feed=synthesise(network.inputs, samples=2, seed=0))
    each = FactorizeSVD(ratio=0.5)
    assert each(network, made_up).model.to_proto() == each(network).model.to_proto()


def test_a_weight_that_two_layers_share_is_fitted_to_both(build, bench, run):
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((16, 16)) / 4).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["t"], name="a"), helper.make_node("MatMul", ["t", "w"], ["y"])]
    model = build(nodes, {"w": weight}, x=("n", 16))
    mixing = rng.standard_normal((4, 16))
    batches = [(rng.standard_normal((32, 4)) @ mixing).astype(np.float32) for _ in range(8)]
    each = FactorizeSVD(rank=7)
    fitted = each(model, bench(model, *batches))
    assert len(fitted.model.constants()) == 2
    unseen = (rng.standard_normal((64, 4)) @ mixing).astype(np.float32)
    assert error(run, model, fitted.model, unseen) < 0.7 * error(run, model, each(model).model, unseen)


def test_half_precision_stays(build):
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((40, 30)).astype(np.float16), "b": np.zeros(30, np.float16)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["t"], name="fc"), helper.make_node("Add", ["t", "b"], ["y"])]
    model = build(nodes, weights, x=("n", 40), dtype=onnx.TensorProto.FLOAT16)
    batches = [{"x": rng.standard_normal((16, 40)).astype(np.float16)} for _ in range(8)]
    feed = open_feed(batches, inputs=model.inputs)
    result = FactorizeSVD(rank=6)(model, Workbench(feed=feed, threads=1))
    assert {c.dtype for c in result.model.constants()} == {np.dtype(np.float16)}
    assert len(result.report.changes) == 1


def test_ranks_that_save_nothing_are_refused_before_samples_are_run(build):
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.ones((8, 8), np.float32)}, x=("n", 8))

    feed = open_feed([{"x": np.full((4, 8), np.nan, np.float32)}], inputs=model.inputs)  # refused where it is read
    (skip,) = FactorizeSVD(rank=4)(model, Workbench(feed=feed)).report.skips
    assert skip.reason == "rank 4 saves nothing: 4·(8+8) ≥ 8·8"
