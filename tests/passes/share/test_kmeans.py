import numpy as np
import onnx
import pytest
from onnx import helper

from onnxpress.passes.prune.zeros.magnitude import PruneMagnitude
from onnxpress.passes.share.kmeans import ShareKMeans
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites
from onnxpress.rewriter.weights import Produced, values_of


@pytest.fixture
def layer(build):
    """Builds a model of one layer."""

    def build_layer(shape=(40, 30), op="MatMul", dtype=np.float32):
        weight = np.random.default_rng(0).standard_normal(shape).astype(dtype)
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        node = helper.make_node(op, ["x", "w"], ["y"], name="layer")
        return build([node], {"w": weight}, x=(1, shape[op == "Conv"], *shape[2:]), dtype=kind)

    return build_layer


def weight(model: Model) -> np.ndarray:
    return find_sites(model)[0].array()


@pytest.mark.parametrize(("options", "count"), [({"bits": 3}, 8), ({"clusters": 13}, 13), ({"bits": 1}, 2)])
def test_leaves_few_distinct_values(layer, options, count):
    result = ShareKMeans(**options)(layer())
    assert np.unique(weight(result.model)).size == count
    assert result.report.changes[0].action == f"{count} clusters"


def test_each_channel_gets_its_own_values(layer):
    model = layer((12, 8, 5, 5), "Conv")
    shared = weight(ShareKMeans(bits=3, per="channel")(model).model)
    assert {np.unique(row).size for row in shared} == {8}
    assert np.unique(shared).size > 50


def test_channels_of_a_matmul_are_its_columns(layer):
    shared = weight(ShareKMeans(bits=2, per="channel")(layer((200, 12))).model)
    assert {np.unique(column).size for column in shared.T} == {4}


def test_channels_lose_less_than_the_tensor(layer):
    errors = [ShareKMeans(bits=2, per=per)(layer((200, 12))).report.changes[0].error for per in ("channel", "tensor")]
    assert errors[0] < errors[1]


def test_error_is_that_of_the_weight(layer):
    model = layer()
    result = ShareKMeans(bits=4)(model)
    before, after = weight(model).astype(float), weight(result.model).astype(float)
    expected = np.linalg.norm(before - after) / np.linalg.norm(before)
    assert result.report.changes[0].error == pytest.approx(expected, rel=1e-9)
    assert expected < 0.12  # 16 levels of a normal distribution: sqrt(0.0095) by Max (1960)


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_zeros_of_a_pruned_weight_stay_and_take_one_cluster(layer, per):
    pruned = PruneMagnitude(sparsity=0.6)(layer((200, 12))).model
    result = ShareKMeans(bits=1, per=per)(pruned)  # two clusters would like to lie left and right of zero
    shared = weight(result.model)
    assert not shared[weight(pruned) == 0].any()
    assert max(np.unique(column).size for column in shared.T) == 2
    assert result.report.changes[0].action.endswith(", 60.0% zeros kept")


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_twice_is_the_same_as_once(layer, per):
    share = ShareKMeans(bits=3, per=per)
    once = share(layer((200, 12))).model
    result = share(once)
    np.testing.assert_array_equal(weight(result.model), weight(once))
    (skip,) = result.report.skips
    assert skip.reason == f"has no more than 8 distinct values{' a channel' if per == 'channel' else ''} already"


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_shares_other_floats(layer, dtype):
    shared = weight(ShareKMeans(bits=3)(layer(dtype=dtype)).model)
    assert shared.dtype == dtype
    assert np.unique(shared).size == 8


def test_skips_what_saves_nothing(layer):
    (skip,) = ShareKMeans(bits=6, per="channel")(layer((16, 16))).report.skips
    assert skip.reason == (
        "64 clusters a channel save nothing: 6-bit codes and 1024 values take 4288 bytes, the weight 1024"
    )


def test_skips_weights_that_are_not_finite(build):
    broken = np.full((20, 20), np.inf, np.float32)
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": broken}, x=(1, 20))
    (skip,) = ShareKMeans(bits=3)(model).report.skips
    assert skip.reason == "cannot cluster values that are not finite"


def test_does_not_touch_the_model_it_is_given(layer):
    model = layer()
    before = model.to_proto().SerializeToString()
    ShareKMeans(bits=2)(model)
    assert model.to_proto().SerializeToString() == before


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_promises_large_weights_instead_of_holding_them(layer, per, tmp_path):
    model = layer((9000, 40))
    result = ShareKMeans(bits=2, per=per)(model)
    assert isinstance(values_of(find_sites(result.model)[0].weight), Produced)
    result.model.save(tmp_path / "out.onnx")
    shared = weight(Model.load(tmp_path / "out.onnx"))
    assert max(np.unique(column).size for column in shared.T) == 4
    error = np.linalg.norm(shared - weight(model)) / np.linalg.norm(weight(model))
    assert result.report.changes[0].error == pytest.approx(error, rel=1e-4)


def test_a_shared_weight_is_one_site(build):
    array = np.random.default_rng(0).standard_normal((20, 20)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["t"], name="a"), helper.make_node("MatMul", ["t", "w"], ["y"])]
    result = ShareKMeans(bits=3)(build(nodes, {"w": array}, x=(1, 20)))
    assert [change.site for change in result.report.changes] == ["a"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give exactly one of bits, clusters, error; got none"),
        ({"bits": 4, "clusters": 16}, "give exactly one of bits, clusters, error; got bits 4 and clusters 16"),
        ({"bits": 0}, "bits must be a whole number of at least 1, got 0"),
        ({"bits": 9}, "bits must lie in 1 to 8, got 9"),
        ({"bits": 2.0}, "bits must be a whole number of at least 1, got 2.0"),
        ({"clusters": 1}, "clusters must be a whole number of at least 2, got 1"),
        ({"clusters": 70000}, "clusters must lie in 2 to 65536, got 70000"),
        ({"bits": 4, "per": "row"}, "per must be tensor or channel, got 'row'"),
        ({"bits": 4, "start": "best"}, "start must be optimal or exact or linear or density or random, got 'best'"),
        ({"bits": 4, "seed": -1}, "seed must be a whole number of at least 0, got -1"),
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(ConfigError) as caught:
        ShareKMeans(**options)
    assert str(caught.value) == f"share-kmeans: {message}"


def test_takes_the_fewest_bits_that_keep_to_an_error(layer):
    model = layer((200, 100))
    report = ShareKMeans(error=0.06)(model).report
    fewer = ShareKMeans(clusters=int(report.changes[0].action.split()[0]) // 2)(model).report
    assert report.changes[0].error <= 0.06 < fewer.changes[0].error


def test_leaves_a_weight_that_needs_too_many_bits(layer):
    report = ShareKMeans(error=1e-6)(layer((200, 100))).report
    assert "needs more than 8 bits" in report.skips[0].reason


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_starts_as_the_paper_does_where_asked_to(layer, per):
    model = layer((200, 40))
    best, *others = (
        ShareKMeans(bits=4, per=per, start=start)(model).report.changes[0].error
        for start in ("optimal", "linear", "density", "random")
    )
    assert all(best < other < 2 * best for other in others)
    seeds = [weight(ShareKMeans(bits=4, per=per, start="random", seed=seed)(model).model) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(seeds[0], seeds[1])
    assert not np.array_equal(seeds[0], seeds[2])
