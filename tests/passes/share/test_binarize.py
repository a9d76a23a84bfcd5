"""Weights of few scaled signs: few values, near the old ones, nearer in what layers give where there are samples."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.prune.zeros.magnitude import PruneMagnitude
from onnxpress.passes.share.binarize import Binarize
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites
from onnxpress.rewriter.weights import Produced, values_of

DRAW = np.random.default_rng(0)


def array(*shape):
    return DRAW.standard_normal(shape).astype(np.float32)


MIXING = array(4, 40) / 2


def samples(count, rows=32):
    return [array(rows, 4) @ MIXING + 0.1 * array(rows, 40) for _ in range(count)]


@pytest.fixture
def layers(two_layers):
    return two_layers(w=array(40, 30), b=array(30), v=array(30, 20), c=array(20))


@pytest.fixture
def layer(build):
    def one(shape=(60, 12), op="MatMul", dtype=np.float32):
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        node = helper.make_node(op, ["x", "w"], ["y"], name="layer")
        weight = np.random.default_rng(0).standard_normal(shape).astype(dtype)
        return build([node], {"w": weight}, x=(1, shape[op == "Conv"], *shape[2:]), dtype=kind)

    return one


def weight(model: Model) -> np.ndarray:
    return find_sites(model)[0].array()


def distance(run, model, original):
    unseen = np.concatenate(samples(8))
    wanted = run(original, unseen)[0]
    return float(np.linalg.norm(run(model, unseen)[0] - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize(
    ("options", "count"),
    [({"levels": "binary"}, 2), ({"levels": "ternary"}, 3), ({"bits": 1}, 2), ({"bits": 3}, 8)],
)
def test_leaves_each_channel_few_values(layer, options, count):
    result = Binarize(**options)(layer())
    sizes = {np.unique(column).size for column in weight(result.model).T}
    assert max(sizes) == count
    assert min(sizes) > count / 2
    assert result.report.changes[0].action == f"{count} levels a channel"


def test_binary_is_the_sign_times_the_mean_of_a_channel(layer):
    model = layer((8, 6, 5, 5), "Conv")
    rows, found = weight(model).reshape(8, -1), weight(Binarize(levels="binary")(model).model).reshape(8, -1)
    np.testing.assert_allclose(found, np.sign(rows) * np.abs(rows).mean(axis=1, keepdims=True), rtol=1e-6)


def test_one_scale_for_all_where_asked(layer):
    model = layer()
    found = weight(Binarize(levels="binary", per="tensor")(model).model)
    np.testing.assert_allclose(found, np.sign(weight(model)) * np.abs(weight(model)).mean(), rtol=1e-6)


def test_symmetric_levels_have_one_magnitude(layer):
    found = weight(Binarize(levels="ternary", symmetric=True)(layer()).model)
    assert {np.unique(np.abs(column)).size for column in found.T} == {2}


@pytest.mark.parametrize(
    "options",
    [{"levels": "binary"}, {"levels": "ternary"}, {"bits": 2}, {"bits": 2, "per": "tensor"}, {"levels": "ternary",
     "symmetric": True}],
)  # fmt: skip
def test_samples_bring_outputs_nearer(layers, bench, run, options):
    plain = Binarize(**options)(layers)
    fitted = Binarize(**options)(layers, bench(layers, *samples(12)))
    assert distance(run, fitted.model, layers) < 0.6 * distance(run, plain.model, layers)
    assert [change.site for change in fitted.report.changes] == ["first", "second"]
    for change in fitted.report.changes:
        assert "scales refitted: output error" in change.action
    each = 1 if options.get("per") == "tensor" else 0
    for site in find_sites(fitted.model):
        columns = [site.array()] if each else site.array().T
        most = {"binary": 2, "ternary": 3}.get(options.get("levels"), 4)
        assert max(np.unique(column).size for column in columns) <= most


def test_steps_on_samples_can_be_left_out(layers, bench, run):
    def without(**options):
        return Binarize(levels="binary", **options)(layers, bench(layers, *samples(12)))

    full, plain = without(), without(refit=False, compensate=False)
    assert "nothing fitted is better" in plain.report.changes[0].action
    assert "compensated" not in without(compensate=False).report.changes[0].action
    assert "refitted" not in without(refit=False).report.changes[0].action
    assert distance(run, full.model, layers) < distance(run, plain.model, layers)


def test_a_layer_without_equations_is_coded_by_its_weights(build, bench):
    nodes = [helper.make_node("Gather", ["w", "i"], ["t"], name="lookup"), helper.make_node("Add", ["x", "t"], ["y"])]
    model = build(nodes, {"w": array(50, 40), "i": np.int64([1])}, x=["n", 40])
    (change,) = Binarize(levels="binary")(model, bench(model, *samples(2))).report.changes
    assert "; scales are those of the weights alone: " in change.action


def test_zeros_of_a_pruned_weight_stay(layers, layer, bench):
    pruned = PruneMagnitude(sparsity=0.5)(layer()).model
    result = Binarize(levels="binary")(pruned)
    np.testing.assert_array_equal(weight(result.model) == 0, weight(pruned) == 0)
    assert result.report.changes[0].action == "2 levels a channel, zeros kept"
    thin = PruneMagnitude(sparsity=0.5)(layers).model
    for levels in ("binary", "ternary"):
        fitted = Binarize(levels=levels)(thin, bench(thin, *samples(8))).model
        for before, after in zip(find_sites(thin), find_sites(fitted), strict=True):
            assert not after.array()[before.array() == 0].any()


@pytest.mark.parametrize("options", [{"levels": "binary"}, {"levels": "ternary"}])
def test_twice_is_the_same_as_once(layer, options):
    once = Binarize(**options)(layer()).model
    result = Binarize(**options)(once)
    np.testing.assert_array_equal(weight(result.model), weight(once))
    (skip,) = result.report.skips
    count = 2 if options["levels"] == "binary" else 3
    assert skip.reason == f"has no more than {count} distinct values a channel already"


def test_error_is_that_of_the_weight(layer):
    model = layer()
    result = Binarize(bits=2)(model)
    expected = np.linalg.norm(weight(model) - weight(result.model)) / np.linalg.norm(weight(model))
    assert result.report.changes[0].error == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_codes_other_floats(layer, dtype):
    found = weight(Binarize(levels="binary")(layer(dtype=dtype)).model)
    assert found.dtype == dtype
    assert {np.unique(column).size for column in found.T} == {2}


def test_promises_large_weights_instead_of_holding_them(layer, tmp_path):
    result = Binarize(levels="ternary")(layer((9000, 40)))
    assert isinstance(values_of(find_sites(result.model)[0].weight), Produced)
    result.model.save(tmp_path / "out.onnx")
    assert {np.unique(column).size for column in weight(Model.load(tmp_path / "out.onnx")).T} == {3}


@pytest.mark.parametrize(("per", "books"), [("tensor", 8), ("channel", 8 * 256)])
def test_encoded_it_takes_a_bit_a_weight(layer, tmp_path, per, books):
    model = Encode()(Binarize(levels="binary", per=per)(layer((256, 256))).model).model
    assert model.save(tmp_path / "out.onnx") < 256 * 256 / 8 + books + 1500


def test_does_not_touch_the_model_it_is_given(layers, bench):
    before = layers.to_proto().SerializeToString()
    Binarize(levels="binary")(layers, bench(layers, *samples(4)))
    assert layers.to_proto().SerializeToString() == before


def test_skips_what_saves_nothing(layer):
    (skip,) = Binarize(bits=5)(layer((16, 16))).report.skips
    assert skip.reason == "32 levels a channel save nothing: codes and levels take 2208 bytes, the weight 1024"


def test_skips_weights_that_are_not_finite(build):
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.full((20, 20), np.nan, "f4")}, x=(1, 20))
    (skip,) = Binarize(levels="binary")(model).report.skips
    assert "not finite" in skip.reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give exactly one of levels, bits; got none"),
        ({"levels": "binary", "bits": 2}, "give exactly one of levels, bits; got levels 'binary' and bits 2"),
        ({"levels": "quaternary"}, "levels must be binary or ternary, got 'quaternary'"),
        ({"bits": 0}, "bits must be a whole number of at least 1, got 0"),
        ({"bits": 6}, "bits must lie in 1 to 5, got 6"),
        ({"levels": "binary", "per": "row"}, "per must be tensor or channel, got 'row'"),
        ({"bits": 2, "symmetric": True}, "symmetric is for levels: ternary, the others are symmetric anyway"),
        ({"bits": 2, "refit": 1}, "refit must be true or false, got 1"),
        ({"bits": 2, "compensate": "yes"}, "compensate must be true or false, got 'yes'"),
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(ConfigError) as caught:
        Binarize(**options)
    assert str(caught.value) == f"binarize: {message}"


def test_three_negative_values_of_float16_are_told_to_be_three(build):
    """NumPy does not always sort them, so that one may be counted twice."""
    random = np.random.default_rng(0)
    few = -random.random(3).astype(np.float16)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(np.float16))
    model = build([node], {"w": few[random.integers(0, 3, 61 * 37)].reshape(61, 37)}, x=(1, 61), dtype=kind)
    (skip,) = Binarize(levels="ternary", per="tensor")(model).report.skips
    assert skip.reason == "has no more than 3 distinct values already"
