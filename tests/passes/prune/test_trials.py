"""What other weights do to the outputs, tried in one session; and how often weights are multiplied."""

import math

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.prune.channels.work import work_of
from onnxpress.passes.prune.trials import Altered, open_trials
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.sites import find_sites


@pytest.fixture
def model(build, random):
    """A convolution, a product with an Add behind it, and a Softmax."""
    weights = {
        "a": random.standard_normal((4, 2, 3, 3)),
        "b": random.standard_normal((4, 3)),
        "b0": random.standard_normal(3),
    }
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["p"], name="conv"),
        helper.make_node("Relu", ["p"], ["q"]),
        helper.make_node("ReduceMean", ["q"], ["r"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["r", "b"], ["s"], name="product"),
        helper.make_node("Add", ["s", "b0"], ["t"]),
        helper.make_node("Softmax", ["t"], ["y"], axis=-1),
    ]
    return build(nodes, {name: each.astype(np.float32) for name, each in weights.items()}, x=("n", 2, 6, 6))


@pytest.fixture
def samples(bench, random, model):
    return bench(model, *random.standard_normal((3, 2, 2, 6, 6)).astype(np.float32))


def site(model, name):
    return next(each for each in find_sites(model) if each.name == name)


def test_weights_as_they_are_make_no_noise(model, samples):
    with open_trials(model, find_sites(model), samples) as trials:
        assert trials.useful
        assert trials.takes("conv")
        assert not trials.takes("other")
        assert trials.noise({}) == 0
        assert trials.noise({"conv": Altered(site(model, "conv").array(), None)}) == 0


def test_noise_is_that_of_what_the_softmax_reads_without_its_mean(model, samples, run):
    product = site(model, "product")
    changed, shift = product.array() * np.float32(1.1), np.array([0.1, -0.2, 0.3], np.float32)
    with open_trials(model, [product], samples) as trials:
        noise = trials.noise({"product": Altered(changed, shift)})
    signal = lost = 0.0
    other = model.clone()
    twin = site(other, "product")
    other.replace_weight(twin.weight, changed)
    for batch in samples.feed:
        # the logarithm of a Softmax is what it reads but for a constant
        before, after = (np.log(run(each, batch["x"])[0].astype(np.float64)) for each in (model, other))
        before, after = (each - each.mean(axis=-1, keepdims=True) for each in (before, after + shift))
        signal, lost = signal + (before**2).sum(), lost + ((after - before) ** 2).sum()
    # float32 throughout, and a logarithm of rounded probabilities
    np.testing.assert_allclose(noise, lost / signal, rtol=1e-3, atol=0)


SHIFTED = {
    # as many columns as outputs: on a wrong axis the numbers would fit, too
    "conv": ("Conv", {"w": (4, 4, 3, 3)}, (3, 2, 4, 6, 6), (4, 1, 1), {}),
    "right": ("MatMul", {"w": (5, 4)}, (3, 2, 4, 5), (4,), {}),
    "left": ("MatMul", {"w": (4, 5)}, (3, 2, 5, 4), (4, 1), {}),
    "many": ("MatMul", {"w": (4, 5, 4)}, (3, 2, 4, 4, 5), (4, 1, 4), {}),
    "scaled": ("Gemm", {"w": (5, 4)}, (3, 4, 5), (4,), {"alpha": 2.5}),
    "scaled left": ("Gemm", {"w": (5, 4)}, (3, 5, 4), (4, 1), {"alpha": -0.5, "transA": 1}),
}


@pytest.mark.parametrize("case", list(SHIFTED))
def test_a_shift_is_added_to_the_products_of_a_layer(build, bench, run, random, case):
    op, weights, x, shape, attrs = SHIFTED[case]
    x = random.standard_normal(x).astype(np.float32)
    stored = {name: random.standard_normal(size).astype(np.float32) for name, size in weights.items()}
    order = ["w", "x"] if "left" in case else ["x", "w"]
    plain = build([helper.make_node(op, order, ["y"], name="layer", **attrs)], stored, x=x.shape[1:])
    shift = random.standard_normal(int(np.prod(shape)))
    with open_trials(plain, find_sites(plain), bench(plain, *x)) as trials:
        weight = site(plain, "layer").array()
        assert trials.noise({"layer": Altered(weight, np.zeros(shift.size))}) == 0
        noise = trials.noise({"layer": Altered(weight, shift)})
    outputs = np.stack([run(plain, each)[0] for each in x])
    moved = np.broadcast_to(attrs.get("alpha", 1.0) * shift.reshape(shape), outputs.shape)
    np.testing.assert_allclose(noise, (moved**2).sum() / (outputs**2).sum(), rtol=1e-4, atol=0)  # float32


def test_a_shift_is_what_a_bias_would_be(build, bench, run, random):
    """Numbers on the wrong axis make as much noise, but other noise behind another layer."""
    weight = random.standard_normal((4, 4, 3, 3)).astype(np.float32)
    stored = {"w": weight, "b": random.standard_normal(4).astype(np.float32), "v": random.standard_normal((4, 5))}
    stored["v"] = stored["v"].astype(np.float32)
    plain, biased = (
        build(
            [
                helper.make_node("Conv", names, ["p"], name="layer"),
                helper.make_node("Tanh", ["p"], ["q"]),
                helper.make_node("MatMul", ["q", "v"], ["y"], name="last"),
            ],
            stored,
            x=("n", 4, 6, 6),
        )
        for names in (["x", "w"], ["x", "w", "b"])
    )
    x = random.standard_normal((3, 2, 4, 6, 6)).astype(np.float32)
    with open_trials(plain, find_sites(plain), bench(plain, *x)) as trials:
        noise = trials.noise({"layer": Altered(weight, stored["b"])})
    pairs = [[run(each, batch)[0].astype(np.float64) for each in (plain, biased)] for batch in x]
    expected = sum(((a - b) ** 2).sum() for a, b in pairs) / sum((a**2).sum() for a, _ in pairs)
    np.testing.assert_allclose(noise, expected, rtol=1e-4, atol=0)  # float32


def test_noise_that_is_no_number_is_infinite(model, samples):
    product = site(model, "product")
    with open_trials(model, [product], samples) as trials:
        assert trials.noise({"product": Altered(np.full((4, 3), np.nan, np.float32), None)}) == math.inf


def test_the_caller_s_model_stays(model, samples):
    before = [tensor.name for tensor in (*model.graph.inputs, *model.graph.outputs)]
    with open_trials(model, find_sites(model), samples):
        pass
    assert [tensor.name for tensor in (*model.graph.inputs, *model.graph.outputs)] == before
    assert len(find_sites(model)) == 2


def test_whole_numbers_cannot_get_a_little_worse(build, bench, random):
    weights = {"a": random.standard_normal((4, 3)).astype(np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="product"),
        helper.make_node("Cast", ["p"], ["y"], to=7),
    ]
    model = build(nodes, weights, x=("n", 4), gives=7)
    samples = bench(model, random.standard_normal((5, 4)).astype(np.float32))
    with open_trials(model, find_sites(model), samples) as trials:
        assert not trials.useful


def test_asks_for_samples(model):
    with pytest.raises(FeedError, match="--data"), open_trials(model, [], Workbench()):
        pass


@pytest.mark.parametrize("measured", [True, False])
def test_a_weight_is_multiplied_at_every_position(model, samples, measured):
    work = work_of(model, samples if measured else Workbench())
    rows = 2 if measured else 1  # a size that is open counts as 1
    assert work == {"conv": rows * 16, "product": rows}


def test_work_of_recurrent_left_and_transposed_layers(build, bench, random):
    shapes = {"w": (1, 16, 5), "r": (1, 16, 4), "d": (4, 2, 3, 3), "l": (7, 10)}
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    weights |= {"to": np.array([2, 4, 2, 5]), "flat": np.array([2, 10, -1])}
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["h"], name="recurrent", hidden_size=4),
        helper.make_node("Reshape", ["h", "to"], ["i"]),
        helper.make_node("ConvTranspose", ["i", "d"], ["u"], name="transposed", strides=[2, 2]),
        helper.make_node("Reshape", ["u", "flat"], ["v"]),
        helper.make_node("MatMul", ["l", "v"], ["y"], name="left"),
    ]
    model = build(nodes, weights, x=(10, 2, 5))
    samples = bench(model, random.standard_normal((10, 2, 5)).astype(np.float32))
    work = work_of(model, samples)
    # 10 steps of 2 rows; 2 images of 2 x 5; [2, 2, 5, 11] as [2, 10, 11]: 22 columns
    assert work == {"recurrent:w": 20, "recurrent:r": 20, "transposed": 20, "left": 22}
