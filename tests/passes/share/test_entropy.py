import numpy as np
import onnx
import pytest
from onnx import helper

from onnxpress.passes.prune.zeros.magnitude import PruneMagnitude
from onnxpress.passes.share.entropy import ShareEntropy
from onnxpress.passes.share.kmeans import ShareKMeans
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites
from onnxpress.rewriter.weights import Produced, values_of


@pytest.fixture
def layer(build):
    """Builds a model of one layer."""

    def build_layer(shape=(100, 60), dtype=np.float32, weight=None):
        values = np.random.default_rng(0).standard_normal(shape) if weight is None else weight
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        node = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")
        return build([node], {"w": values.astype(dtype)}, x=(1, values.shape[0]), dtype=kind)

    return build_layer


def weight(model: Model) -> np.ndarray:
    return find_sites(model)[0].array()


def bits_of(array) -> float:
    share = np.unique(array.astype(np.float64), return_counts=True)[1] / array.size
    return float(-(share * np.log2(share)).sum())


@pytest.mark.parametrize("bits", [1.5, 3, 4])
def test_leaves_values_of_so_many_bits(layer, bits):
    result = ShareEntropy(bits=bits)(layer())
    shared = weight(result.model)
    assert bits - 0.05 < bits_of(shared) <= bits
    assert result.report.changes[0].action == f"{np.unique(shared).size} values, {bits_of(shared):.2f} bits a weight"


def test_loses_less_than_k_means_of_equal_entropy(layer):
    model = layer()
    peer = ShareKMeans(bits=4)(model)
    (change,) = ShareEntropy(bits=bits_of(weight(peer.model)))(model).report.changes
    assert change.error < 0.95 * peer.report.changes[0].error


def test_keeps_to_an_error_with_fewer_bits_than_k_means(layer):
    model = layer()
    result = ShareEntropy(error=0.1)(model)
    before, after = weight(model).astype(float), weight(result.model).astype(float)
    error = np.linalg.norm(before - after) / np.linalg.norm(before)
    assert 0.095 < error <= 0.1
    assert result.report.changes[0].error == pytest.approx(error, rel=1e-6)
    assert bits_of(weight(result.model)) < bits_of(weight(ShareKMeans(error=0.1)(model).model))


def test_a_higher_price_leaves_fewer_bits(layer):
    bits = [bits_of(weight(ShareEntropy(price=price)(layer()).model)) for price in (0.001, 0.01, 0.1)]
    assert bits == sorted(bits, reverse=True)
    assert bits[1] == pytest.approx(3.8, abs=0.1)  # as the option's description has it
    assert bits[2] == pytest.approx(2.2, abs=0.1)


def test_zeros_of_a_pruned_weight_stay(layer):
    pruned = PruneMagnitude(sparsity=0.6)(layer()).model
    result = ShareEntropy(bits=2)(pruned)
    assert not weight(result.model)[weight(pruned) == 0].any()
    assert result.report.changes[0].action.endswith(", 60.0% zeros kept")


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_shares_other_floats(layer, dtype):
    shared = weight(ShareEntropy(bits=3)(layer(dtype=dtype)).model)
    assert shared.dtype == dtype
    assert bits_of(shared) <= 3


def test_promises_large_weights_instead_of_holding_them(layer, tmp_path):
    model = layer((9000, 40))
    result = ShareEntropy(bits=2)(model)
    assert isinstance(values_of(find_sites(result.model)[0].weight), Produced)
    result.model.save(tmp_path / "out.onnx")
    assert bits_of(weight(Model.load(tmp_path / "out.onnx"))) <= 2


def test_onnx_runtime_runs_the_result(layer, run):
    result = ShareEntropy(bits=3)(layer()).model
    x = np.random.default_rng(1).standard_normal((1, 100)).astype(np.float32)
    np.testing.assert_allclose(run(result, x)[0], x @ weight(result), rtol=1e-5, atol=1e-4)  # float32 sums


def test_does_not_touch_the_model_it_is_given(layer):
    model = layer()
    before = model.to_proto().SerializeToString()
    ShareEntropy(bits=2)(model)
    assert model.to_proto().SerializeToString() == before


@pytest.mark.parametrize(
    ("options", "values", "reason"),
    [
        ({"bits": 3}, np.full((20, 20), np.inf), "cannot quantize values that are not finite"),
        (
            {"error": 1e-6},
            np.random.default_rng(0).standard_normal((90, 90)),
            "needs more than 256 values: their error",
        ),
        ({"bits": 8}, np.random.default_rng(0).standard_normal((16, 16)), "values save nothing: codes of"),
        ({"bits": 2}, np.tile([1.0, 2.0], (20, 10)), "has 2 distinct values of 1.00 bits already"),
        ({"bits": 2}, np.zeros((20, 20)), "has 1 distinct values of 0.00 bits already"),
    ],
)
def test_says_why_it_leaves_a_weight(layer, options, values, reason):
    result = ShareEntropy(**options)(layer(weight=values))
    (skip,) = result.report.skips
    assert reason in skip.reason
    np.testing.assert_array_equal(weight(result.model), values.astype(np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give exactly one of bits, price, error; got none"),
        ({"bits": 4, "error": 0.1}, "give exactly one of bits, price, error; got bits 4 and error 0.1"),
        ({"bits": 0}, "bits must lie in (0, 8], got 0"),
        ({"bits": 8.5}, "bits must lie in (0, 8], got 8.5"),
        ({"bits": True}, "bits must lie in (0, 8], got True"),
        ({"price": 0.0}, "price must lie in (0, 1], got 0.0"),
        ({"error": 1.0}, "error must lie in (0, 1), got 1.0"),
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(ConfigError) as caught:
        ShareEntropy(**options)
    assert str(caught.value) == f"share-entropy: {message}"
