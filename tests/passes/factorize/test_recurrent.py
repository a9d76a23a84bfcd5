import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.factorize.auto import Factorize
from onnxpress.passes.factorize.svd import FactorizeSVD
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.quantize.static import QuantizeStatic
from onnxpress.rewriter.sites import find_sites

FULL = FactorizeSVD(rank=10**6, always=True)
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
SIZES = {"forward": 1, "reverse": 1, "bidirectional": 2}
STEPS, BATCH, WIDTH, HIDDEN = 6, 3, 10, 7


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def recurrent(build, op: str, direction: str = "forward", *, width: int = WIDTH, layout: int = 0, **attrs):
    """A layer with bias, lengths of sequences and a first state; the last state is an output, too."""
    gates, directions = GATES[op], SIZES[direction]
    weights = {
        "w": normal(directions, gates * HIDDEN, width) / 3,
        "r": normal(directions, gates * HIDDEN, HIDDEN, seed=1) / 3,
        "b": normal(directions, 2 * gates * HIDDEN, seed=2) / 3,
        "lengths": np.array([STEPS, 3, 1], np.int32),
        "h": normal(*((BATCH, directions) if layout else (directions, BATCH)), HIDDEN, seed=3),
    }
    if op == "LSTM":
        weights |= {"c": normal(directions, BATCH, HIDDEN, seed=4), "p": normal(directions, 3 * HIDDEN, seed=5) / 3}
    inputs = [name for name in weights if not (layout and name in ("c", "p", "lengths"))]
    if layout:
        inputs[3:] = ["", "h"]
        attrs["layout"] = 1
    node = helper.make_node(op, ["x", *inputs], ["y", "last"], "rnn", hidden_size=HIDDEN, direction=direction, **attrs)
    shape = (BATCH, STEPS, width) if layout else (STEPS, BATCH, width)
    used = {name: weights[name] for name in inputs if name}
    return build([node], used, x=shape, outputs=("y", "last")), normal(*shape, seed=6)


@pytest.mark.parametrize("direction", SIZES)
@pytest.mark.parametrize(
    ("op", "attrs"),
    [("LSTM", {}), ("LSTM", {"clip": 0.5}), ("GRU", {}), ("GRU", {"linear_before_reset": 1}), ("RNN", {})],
)
def test_full_rank_reproduces_the_layer(build, run, op, attrs, direction):
    model, x = recurrent(build, op, direction, **attrs)
    result = Pipeline([FULL])(model)
    assert [node.op for node in result.model.graph.nodes] == ["MatMul", op]
    for found, wanted in zip(run(result.model, x), run(model, x), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)  # sums of ten float32 terms


@pytest.mark.parametrize("op", GATES)
def test_full_rank_reproduces_layers_that_have_the_batch_first(build, op):
    model, x = recurrent(build, op, layout=1)  # which ONNX Runtime does not run
    result = FULL(model).model
    found, wanted = (ReferenceEvaluator(each.to_proto()).run(None, {"x": x}) for each in (result, model))
    assert result.graph.nodes[1].attrs["layout"] == 1
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-4, atol=1e-5)  # sums of ten float32 terms


def test_both_directions_read_the_same_product(build):
    model, _ = recurrent(build, "LSTM", "bidirectional")
    result = FactorizeSVD(rank=4)(model)
    narrow, wide = (site for site in find_sites(result.model) if site.op == "MatMul" or site.uses[0].index == 1)
    assert (narrow.shape, wide.shape) == ((WIDTH, 4), (2, 4 * HIDDEN, 4))
    (change,) = result.report.changes
    assert change.action == "rank 4 of 10, 47.1% of the parameters, 47.1% of the multiply-adds"


def test_the_error_is_the_least_that_two_directions_can_have_together(build):
    model, _ = recurrent(build, "GRU", "bidirectional")
    (change,) = FactorizeSVD(rank=4)(model).report.changes
    values = np.linalg.svd(find_sites(model)[0].array().reshape(-1, WIDTH).astype(float), compute_uv=False)
    assert change.error == pytest.approx(np.sqrt((values[4:] ** 2).sum() / (values**2).sum()), rel=1e-5)


def test_a_weight_of_two_layers_is_split_once(build, run):
    weights = {"w": normal(1, HIDDEN, HIDDEN), "r": normal(1, HIDDEN, HIDDEN, seed=1)}
    nodes = [
        helper.make_node("RNN", ["x", "w", "r"], ["", "t"], "one", hidden_size=HIDDEN),
        helper.make_node("RNN", ["t", "w", "r"], ["y"], "two", hidden_size=HIDDEN),
    ]
    model, x = build(nodes, weights, x=(STEPS, 1, HIDDEN)), normal(STEPS, 1, HIDDEN)
    result = FULL(model)
    assert len(result.model.graph.nodes) == 4
    assert len(result.model.constants()) == 3
    np.testing.assert_allclose(run(result.model, x)[0], run(model, x)[0], rtol=1e-4, atol=1e-5)  # sums of seven terms


def test_refuses_the_weight_of_the_state(build):
    model, _ = recurrent(build, "GRU")
    (skip,) = FactorizeSVD(rank=4)(model).report.skips
    assert (skip.site, skip.reason) == (
        "rnn:r",
        "multiplies the state within GRU, where no other layer can stand: only what it reads is narrowed",
    )


def test_refuses_a_rank_that_saves_nothing(build):
    model, _ = recurrent(build, "RNN")
    reasons = [skip.reason for skip in FactorizeSVD(rank=5)(model).report.skips]
    assert reasons[0] == "rank 5 saves nothing: 5·(10+7) ≥ 10·7"


@pytest.fixture
def narrow_inputs(build, bench):
    """A layer of 24 inputs, most of which hardly ever move, and samples."""
    model, _ = recurrent(build, "LSTM", width=24)
    scale = np.where(np.arange(24) % 4, 0.02, 2).astype(np.float32)
    batches = [normal(STEPS, BATCH, 24, seed=seed) * scale for seed in range(10, 34)]
    return model, bench(model, *batches[:20]), batches[20:]


def test_samples_tell_which_inputs_count(narrow_inputs, run):
    model, samples, unseen = narrow_inputs

    def noise(bench) -> float:
        result = FactorizeSVD(rank=6, include=("*:w",))(model, bench).model
        return sum(np.square(run(result, x)[0] - run(model, x)[0]).sum() for x in unseen)

    assert noise(samples) < 1e-2 * noise(None)


def test_factorize_narrows_what_a_recurrent_layer_reads(narrow_inputs, run, clock):
    clock()
    model, samples, unseen = narrow_inputs
    result = Factorize(min_sqnr=20.0)(model, samples)
    assert [change.site for change in result.report.changes] == ["rnn:w"]
    lost = sum(np.square(run(result.model, x)[0] - run(model, x)[0]).sum() for x in unseen)
    assert lost < 0.01 * sum(np.square(run(model, x)[0]).sum() for x in unseen)  # 20 dB


def test_chains_of_recurrent_layers_are_quantized_and_encoded(narrow_inputs, run):
    model, samples, unseen = narrow_inputs
    passes = [FactorizeSVD(rank=6, include=("*:w",)), QuantizeStatic(), Encode()]
    result = Pipeline(passes)(model, samples)
    assert result.model.weight_bytes() < model.weight_bytes()
    lost = sum(np.square(run(result.model, x)[0] - run(model, x)[0]).sum() for x in unseen)
    assert lost < 0.02 * sum(np.square(run(model, x)[0]).sum() for x in unseen)  # 17 dB
