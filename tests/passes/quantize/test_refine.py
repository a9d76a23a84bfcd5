import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.kernels.affine import dequantize, quantize
from onnxpress.passes.quantize import refine as refining
from onnxpress.passes.quantize.refine import SCALES, Refinement, refine
from onnxpress.passes.quantize.static import QuantizeStatic
from onnxpress.passes.report import Report
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.sites import find_sites


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs)


@pytest.fixture
def x(random):
    """Samples whose channels depend on each other, as those of a trained model do."""
    mix = random.standard_normal((6, 32)) + 0.1 * random.standard_normal((6, 32))
    return (random.standard_normal((200, 6)) @ mix + random.standard_normal(32)).astype(np.float32)


@pytest.fixture
def weight(random):
    return random.standard_normal((32, 16), np.float32)


@pytest.fixture
def model(build, weight):
    nodes = [node("Gemm", ["x", "w", "b"], ["y"])]
    return build(nodes, {"w": weight, "b": np.zeros(16, np.float32)}, x=("n", 32))


def planned(model, workbench, **options):
    """A plan with nearest codes at the scales of the greatest weights."""
    return QuantizeStatic(layer_sqnr=0, rounding="nearest", **options).plan(model, Report("plan"), workbench)


def refined(model, workbench, how, **options):
    plan = planned(model, workbench, **options)
    refine(model, plan, find_sites(model), workbench, how)
    return plan


def weight_of(layer):
    """What the codes of a layer stand for."""
    return dequantize(layer.rounded[layer.codes].load(), layer.scales[layer.codes], axis=layer.axis)


@pytest.mark.parametrize(
    ("how", "empty"),
    [
        (Refinement(rounding="nearest"), True),
        (Refinement(), False),
        (Refinement(rounding="nearest", scales="mse"), False),
        (Refinement(rounding="nearest", correct_bias=True), False),
    ],
)
def test_needs_samples_only_where_there_is_something_to_choose(model, bench, x, how, empty):
    assert how.empty is empty
    layer = refined(model, bench(model, x), how).layers["Gemm_y"]
    assert bool(layer.rounded) is not empty
    assert bool(layer.note) is not empty


@pytest.mark.parametrize("per_channel", [True, False])
def test_codes_change_the_output_less_than_the_nearest(model, bench, x, weight, per_channel):
    plan = refined(model, bench(model, x), Refinement(rounding="gptq"), per_channel=per_channel, target="cpu-avx2")
    layer = plan.layers["Gemm_y"]
    codes = layer.rounded[layer.codes].load()
    assert codes.dtype == np.int8
    assert codes.shape == weight.shape
    grid, scale = plan.codes(layer).signed, layer.scales[layer.codes]
    nearest = dequantize(quantize(weight, scale, grid=grid, axis=layer.axis), scale, axis=layer.axis)
    before, after = (np.linalg.norm(x @ (each - weight)) for each in (nearest, weight_of(layer)))
    assert after < 0.7 * before
    whole = np.linalg.norm(x @ weight)
    assert layer.note == f"gptq {before / whole:.2%} → {after / whole:.2%}"


@pytest.mark.parametrize("per_channel", [True, False])
def test_scales_of_the_least_error_let_outliers_saturate(build, bench, x, weight, per_channel):
    weight[0] *= 30  # of an input that is nearly nothing
    x[:, 0] *= 1e-4
    model = build([node("MatMul", ["x", "w"], ["y"])], {"w": weight}, x=("n", 32))
    errors, scales = {}, {}
    for each in SCALES:
        how = Refinement(scales=each, rounding="gptq")
        layer = refined(model, bench(model, x), how, per_channel=per_channel).layers["MatMul_y"]
        errors[each] = np.linalg.norm(x @ (weight_of(layer) - weight))
        scales[each] = layer.scales[layer.codes]
    assert scales["mse"].shape == scales["max"].shape == ((16,) if per_channel else ())
    assert (scales["mse"] < scales["max"]).all()
    assert errors["mse"] < 0.5 * errors["max"]


def test_the_correction_is_the_mean_error_of_the_output(model, bench, x, weight):
    how = Refinement(rounding="nearest", correct_bias=True)
    layer = refined(model, bench(model, x), how).layers["Gemm_y"]
    wanted = (x @ (weight - weight_of(layer))).mean(axis=0)
    np.testing.assert_allclose(layer.correction, wanted, rtol=1e-3, atol=1e-5)  # float32 sums of 200 rows
    assert refined(model, bench(model, x), Refinement()).layers["Gemm_y"].correction is None


def test_weights_without_samples_keep_the_nearest_codes_and_say_so(model, bench, x, monkeypatch):
    nothing = RefusalError("no sample reaches it")
    monkeypatch.setattr(refining, "moments_of", lambda model, sites, bench: ((site, nothing) for site in sites))
    plan = refined(model, bench(model, x), Refinement())
    assert plan.layers["Gemm_y"].note == "codes nearest: no sample reaches it"
    assert not plan.layers["Gemm_y"].rounded
    assert not plan.stored


def test_weights_decoded_at_load_get_codes_from_samples_too(model, bench, x, weight):
    plan = refined(model, bench(model, x), Refinement(), ops=("Conv",))
    assert not plan.layers
    chosen = plan.stored["Gemm_y"]
    decoded = dequantize(chosen.codes.load(), chosen.scale, axis=1)
    nearest = dequantize(
        quantize(weight, chosen.scale, grid=QuantizeStatic()._target().weights[0].signed, axis=1), chosen.scale, axis=1
    )
    assert np.linalg.norm(x @ (decoded - weight)) < 0.7 * np.linalg.norm(x @ (nearest - weight))
    assert chosen.note.startswith("gptq ")


def test_convolutions_of_groups_keep_the_layout_of_their_weights(build, bench, random):
    weight = random.standard_normal((8, 2, 3, 3), np.float32)
    x = random.standard_normal((4, 4, 6, 6), np.float32)
    model = build([node("Conv", ["x", "w"], ["y"], group=2)], {"w": weight}, x=("n", 4, 6, 6))
    layer = refined(model, bench(model, x), Refinement()).layers["Conv_y"]
    step = layer.scales[layer.codes].reshape(-1, 1, 1, 1)
    assert layer.rounded[layer.codes].shape == weight.shape
    assert np.abs(weight_of(layer) - weight).max() < 3 * step.max()  # in its place, near the weight


def test_what_is_chosen_is_not_chosen_again(model, bench, x, monkeypatch):
    workbench = bench(model, x)
    plan = refined(model, workbench, Refinement())
    asked = []
    monkeypatch.setattr(refining, "moments_of", lambda model, sites, bench: asked.extend(sites) or iter(()))
    refine(model, plan, find_sites(model), workbench, Refinement())
    assert asked == []
