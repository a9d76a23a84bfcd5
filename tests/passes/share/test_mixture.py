import numpy as np
import onnx
import pytest
from onnx import helper

from onnxpress.passes.prune.zeros.magnitude import PruneMagnitude
from onnxpress.passes.share.mixture import ShareMixture
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites
from onnxpress.rewriter.weights import Produced, values_of


@pytest.fixture
def layer(build):
    """Builds a model of one layer, of normal weights or of the given ones."""

    def build_layer(shape=(40, 30), array=None):
        weight = np.random.default_rng(0).standard_normal(shape) if array is None else array
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(np.float32))
        node = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")
        return build([node], {"w": weight.astype(np.float32)}, x=(1, weight.shape[0]), dtype=kind)

    return build_layer


def weight(model: Model) -> np.ndarray:
    return find_sites(model)[0].array()


def test_leaves_few_values_zero_among_them(layer):
    model = layer((100, 60))
    result = ShareMixture(components=8)(model)
    shared = weight(result.model)
    assert np.unique(shared).size == 8
    assert (shared == 0).any()
    (change,) = result.report.changes
    assert change.action == f"8 components, {np.mean(shared == 0):.1%} zeros"
    assert change.error == pytest.approx(
        np.linalg.norm(shared - weight(model)) / np.linalg.norm(weight(model)), rel=1e-5
    )


def test_more_components_lose_less(layer):
    errors = [ShareMixture(components=each)(layer((100, 60))).report.changes[0].error for each in (4, 16, 64)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_zeros_of_a_pruned_weight_stay(layer):
    pruned = PruneMagnitude(sparsity=0.6)(layer((100, 60))).model
    shared = weight(ShareMixture(components=8)(pruned).model)
    assert not shared[weight(pruned) == 0].any()
    assert np.unique(shared).size <= 8


def test_components_that_overlap_are_taken_together(layer):
    draw = np.random.default_rng(0)
    array = draw.choice([-1.0, 0.0, 2.0], (60, 60)) + 0.02 * draw.standard_normal((60, 60))
    result = ShareMixture(components=12, overlap=0.3)(layer(array=array))
    np.testing.assert_allclose(np.unique(weight(result.model)), [-1, 0, 2], atol=0.01)
    assert result.report.changes[0].action.startswith("3 components of 12, ")


def test_the_same_seed_gives_the_same_values(layer):
    first, second = (weight(ShareMixture()(layer((300, 200))).model) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_promises_large_weights_instead_of_holding_them(layer, tmp_path):
    model = layer((2048, 160))
    result = ShareMixture(components=8)(model)
    assert isinstance(values_of(find_sites(result.model)[0].weight), Produced)
    result.model.save(tmp_path / "out.onnx")
    shared = weight(Model.load(tmp_path / "out.onnx"))
    assert np.unique(shared).size == 8
    error = np.linalg.norm(shared - weight(model)) / np.linalg.norm(weight(model))
    assert result.report.changes[0].error == pytest.approx(error, rel=1e-4)


def test_twice_is_the_same_as_once(layer):
    share = ShareMixture(components=8)
    once = share(layer()).model
    result = share(once)
    np.testing.assert_array_equal(weight(result.model), weight(once))
    assert result.report.skips[0].reason == "has no more than 8 distinct values already"


def test_refuses_to_leave_nothing_but_zero(layer):
    (skip,) = ShareMixture(components=8, overlap=0.01)(layer()).report.skips
    assert skip.reason == ("all 8 components overlap by more than 0.01, so only zero would be left; raise overlap")


def test_skips_what_saves_nothing(layer):
    (skip,) = ShareMixture(components=256)(layer((20, 15))).report.skips
    assert skip.reason == ("256 components save nothing: 8-bit codes and 256 values take 1324 bytes, the weight 1200")


def test_skips_weights_that_are_too_few(layer):
    array = np.zeros((20, 20))
    array[0, :5] = range(1, 6)
    (skip,) = ShareMixture(components=4)(layer(array=array)).report.skips
    assert skip.reason == "5 weights that are not zero are too few for 4 components"


def test_skips_weights_that_are_not_finite(layer):
    broken = np.random.default_rng(0).standard_normal((20, 20))
    broken[2, 3] = np.nan
    (skip,) = ShareMixture(components=4)(layer(array=broken)).report.skips
    assert skip.reason == "cannot fit values that are not finite"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"components": 1}, "components must be a whole number of at least 2, got 1"),
        ({"components": 257}, "components must lie in 2 to 256, got 257"),
        ({"overlap": 0}, "overlap must lie in (0, 1], got 0"),
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(ConfigError) as caught:
        ShareMixture(**options)
    assert str(caught.value) == f"share-mixture: {message}"
