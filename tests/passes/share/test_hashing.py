import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.share.hashing import ShareHash
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites
from onnxpress.rewriter.weights import Produced, values_of


@pytest.fixture
def layer(build):
    """Builds a model of one layer."""

    def build_layer(shape=(40, 30)):
        weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        return build([helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")], {"w": weight}, x=(1, shape[0]))

    return build_layer


def weight(model: Model) -> np.ndarray:
    return find_sites(model)[0].array()


@pytest.mark.parametrize(("options", "count"), [({"buckets": 20}, 20), ({"ratio": 0.05}, 60)])
def test_leaves_one_value_a_bucket_its_mean(layer, options, count):
    model = layer()
    result = ShareHash(**options)(model)
    before, after = weight(model).astype(float), weight(result.model)
    values, buckets = np.unique(after, return_inverse=True)
    assert values.size == count
    means = np.bincount(buckets.reshape(-1), before.reshape(-1)) / np.bincount(buckets.reshape(-1))
    np.testing.assert_allclose(values, means, rtol=1e-5, atol=1e-6)  # float32
    (change,) = result.report.changes
    assert change.action == f"{count} buckets by hash, {32 * count / 1200:.2f} bits a weight beside codes"
    assert change.error == pytest.approx(np.linalg.norm(before - after) / np.linalg.norm(before), rel=1e-9)


def test_the_seed_tells_who_shares(layer):
    model, share = layer(), ShareHash(buckets=20)
    first, same, other = (weight(share(model, Workbench(seed=seed)).model) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def test_promises_large_weights_instead_of_holding_them(layer, tmp_path):
    result = ShareHash(buckets=16)(layer((2048, 160)))
    assert isinstance(values_of(find_sites(result.model)[0].weight), Produced)
    result.model.save(tmp_path / "out.onnx")
    assert np.unique(weight(Model.load(tmp_path / "out.onnx"))).size == 16


def test_twice_is_the_same_as_once(layer):
    share = ShareHash(buckets=20)
    result = share(share(layer((256, 8))).model)  # float64 means of equal float32 values are exact
    assert result.report.skips[0].reason == "its weights are alike in each of 20 buckets already"


def test_skips_what_saves_nothing(layer):
    (skip,) = ShareHash(buckets=900)(layer()).report.skips
    assert skip.reason == "900 buckets save nothing: 10-bit codes and 900 values take 5100 bytes, the weight 4800"


def test_skips_weights_that_are_not_finite(build):
    broken = np.full((20, 20), np.inf, np.float32)
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": broken}, x=(1, 20))
    (skip,) = ShareHash(buckets=3)(model).report.skips
    assert skip.reason == "cannot share values that are not finite"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give exactly one of buckets, ratio; got none"),
        ({"buckets": 4, "ratio": 0.5}, "give exactly one of buckets, ratio; got buckets 4 and ratio 0.5"),
        ({"buckets": 1}, "buckets must be a whole number of at least 2, got 1"),
        ({"buckets": 2**32}, "buckets must be below 2^32, which is what the hash tells apart, got 4294967296"),
        ({"ratio": 1.0}, "ratio must lie in (0, 1), got 1.0"),
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(ConfigError) as caught:
        ShareHash(**options)
    assert str(caught.value) == f"share-hash: {message}"
