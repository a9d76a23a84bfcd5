import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper

from onnxpress.options import read_pass
from onnxpress.passes.base import Workbench
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.prune.zeros.magnitude import PruneMagnitude
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites
from onnxpress.rewriter.weights import Streamed, values_of


@pytest.fixture
def mlp(build):
    """Two MatMuls whose weights differ in scale by ten."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["t"], name="small"),
        helper.make_node("MatMul", ["t", "b"], ["y"], name="large"),
    ]
    weights = {
        "a": rng.standard_normal((20, 30)).astype(np.float32),
        "b": 10 * rng.standard_normal((30, 40)).astype(np.float32),
    }
    return build(nodes, weights, x=("n", 20))


def weights(model: Model) -> dict[str, np.ndarray]:
    return {site.name: site.array() for site in find_sites(model)}


def zeros(model: Model) -> dict[str, int]:
    return {name: int(np.count_nonzero(array == 0)) for name, array in weights(model).items()}


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
def test_global_sparsity_is_exact(mlp, sparsity):
    found = zeros(PruneMagnitude(sparsity=sparsity)(mlp).model)
    assert sum(found.values()) == round(sparsity * 1800)
    assert found["small"] / 600 > found["large"] / 1200


def test_global_sparsity_is_exact_with_ties_over_several_sites(build):
    nodes = [helper.make_node("MatMul", ["x", "a"], ["t"]), helper.make_node("MatMul", ["t", "b"], ["y"])]
    model = build(nodes, {"a": np.ones((30, 30), np.float32), "b": -np.ones((30, 30), np.float32)}, x=(1, 30))
    found = zeros(PruneMagnitude(sparsity=0.6)(model).model)
    assert sorted(found.values()) == [180, 900]


def test_each_tensor_gets_its_own_sparsity(mlp):
    assert zeros(PruneMagnitude(sparsity=0.25, scope="tensor")(mlp).model) == {"small": 150, "large": 300}


def test_kept_weights_are_the_largest_and_unchanged(mlp):
    before, after = weights(mlp), weights(PruneMagnitude(sparsity=0.5, scope="tensor")(mlp).model)
    for name, array in after.items():
        kept = array != 0
        np.testing.assert_array_equal(array[kept], before[name][kept])
        assert np.abs(before[name][~kept]).max() <= np.abs(before[name][kept]).min()


def test_does_not_touch_the_model_it_is_given(mlp):
    before = mlp.to_proto().SerializeToString()
    PruneMagnitude(sparsity=0.9)(mlp)
    assert mlp.to_proto().SerializeToString() == before


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "4x1", "rows", "columns"])
def test_twice_is_the_same_as_once(mlp, pattern):
    again = PruneMagnitude(sparsity=0.5, pattern=pattern)
    once = again(mlp).model
    result = again(once)
    assert result.model.to_proto() == once.to_proto()
    assert [skip.reason.split(":")[0] for skip in result.report.skips] == ["nothing to zero"] * 2
    assert result.report.changes == []


def test_zeroes_n_of_m_along_the_reduction_axis_of_a_matmul(mlp):
    for array in weights(PruneMagnitude(pattern="2:4")(mlp).model).values():
        full = array[: array.shape[0] // 4 * 4].reshape(-1, 4, array.shape[1])
        assert ((full != 0).sum(axis=1) == 2).all()


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_zeroes_n_of_m_along_inputs_and_kernel_of_a_convolution(build, op):
    weight = np.random.default_rng(0).standard_normal((8, 8, 3, 3)).astype(np.float32)
    model = build([helper.make_node(op, ["x", "w"], ["y"])], {"w": weight}, x=(1, 8, 9, 9))
    pruned = weights(PruneMagnitude(pattern="1:4")(model).model)[find_sites(model)[0].name]
    rows = pruned if op == "Conv" else pruned.transpose(1, 0, 2, 3)
    assert ((rows.reshape(8, 18, 4) != 0).sum(axis=2) == 1).all()


def test_zeroes_whole_blocks_of_outputs_and_inputs(mlp):
    large = weights(PruneMagnitude(sparsity=0.5, pattern="4x2", scope="tensor")(mlp).model)["large"]
    blocks = large.T.reshape(10, 4, 15, 2)
    counts = (blocks != 0).sum(axis=(1, 3))
    assert np.count_nonzero(counts == 0) == 75
    assert np.count_nonzero(counts == 8) == 75


def test_global_blocks_go_in_the_asked_number(build):
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("MatMul", ["x", "a"], ["t"]), helper.make_node("MatMul", ["t", "b"], ["y"])]
    arrays = {name: rng.standard_normal((32, 32)).astype(np.float32) for name in "ab"}
    found = zeros(PruneMagnitude(sparsity=0.25, pattern="4x1")(build(nodes, arrays, x=(1, 32))).model)
    assert sum(found.values()) == 512


@pytest.mark.parametrize(("pattern", "axis"), [("rows", 0), ("columns", 1), ("inputs", 1)])
def test_zeroes_whole_rows_and_columns(mlp, pattern, axis):
    large = weights(PruneMagnitude(sparsity=0.5, pattern=pattern, scope="tensor")(mlp).model)["large"].T
    counts = np.count_nonzero(large, axis=1 - axis)
    assert sorted(set(counts.tolist())) == [0, large.shape[1 - axis]]
    assert np.count_nonzero(counts == 0) == large.shape[axis] // 2


def test_zeroes_positions_or_whole_channels_of_a_grouped_convolution(build):
    weight = np.random.default_rng(0).standard_normal((8, 4, 3, 3)).astype(np.float32)
    model = build([helper.make_node("Conv", ["x", "w"], ["y"], group=2, name="c")], {"w": weight}, x=(1, 8, 9, 9))
    columns = weights(PruneMagnitude(sparsity=0.5, pattern="columns")(model).model)["c"].reshape(2, 4, 36) != 0
    assert (columns.all(axis=1) | ~columns.any(axis=1)).all()
    assert np.count_nonzero(columns.any(axis=1)) == 36
    inputs = weights(PruneMagnitude(sparsity=0.5, pattern="inputs")(model).model)["c"].reshape(2, 4, 4, 9) != 0
    assert np.count_nonzero(inputs.all(axis=(1, 3))) == 4
    assert np.count_nonzero(inputs.any(axis=(1, 3))) == 4


def test_global_rows_of_different_lengths_hold_the_asked_fraction_of_weights(build):
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("MatMul", ["x", "a"], ["t"]), helper.make_node("MatMul", ["t", "b"], ["y"])]
    arrays = {
        "a": rng.standard_normal((10, 40)).astype(np.float32),
        "b": rng.standard_normal((40, 40)).astype(np.float32),
    }
    found = zeros(PruneMagnitude(sparsity=0.5, pattern="rows")(build(nodes, arrays, x=(1, 10))).model)
    assert abs(sum(found.values()) - 1000) <= 20  # half the longest row


def test_each_target_gets_its_own_sparsity_and_the_first_that_matches_holds(mlp):
    pruning = PruneMagnitude(sparsity=0.1, targets={"small": 0.5, "Mat*": 0.25, "large": 0.75})
    assert zeros(pruning(mlp).model) == {"small": 300, "large": 300}
    assert zeros(PruneMagnitude(sparsity=0.1, targets={"large": 0.75})(mlp).model) == {"small": 60, "large": 900}


def test_sites_of_one_target_share_a_threshold(mlp):
    together = zeros(PruneMagnitude(targets={"MatMul": 0.5})(mlp).model)
    assert together == zeros(PruneMagnitude(sparsity=0.5)(mlp).model)
    each = zeros(PruneMagnitude(targets={"MatMul": 0.5}, scope="tensor")(mlp).model)
    assert each == {"small": 300, "large": 600}


def test_leaves_sites_without_a_target_alone(mlp):
    result = PruneMagnitude(targets={"large": 0.5, "small": 0.0, "Conv": 0.5})(mlp)
    assert zeros(result.model) == {"small": 0, "large": 600}
    assert [(skip.site, skip.reason) for skip in result.report.skips] == [("small", "target 'small' asks for no zeros")]
    assert result.report.warnings == []
    (skip,) = PruneMagnitude(targets={"large": 0.5})(mlp).report.skips
    assert (skip.site, skip.reason) == ("small", "no target matches it, and there is no sparsity for the rest")


def test_warns_of_a_target_that_matches_nothing(mlp):
    (warning,) = PruneMagnitude(targets={"*conv1*": 0.5}, sparsity=0.1)(mlp).report.warnings
    assert warning.startswith("targets: '*conv1*' matches none of the weights left")


def test_a_recipe_gives_targets(mlp):
    pruning = read_pass({"prune-magnitude": {"targets": {"large": 0.5}}}, "r.yaml: passes.0")
    assert zeros(pruning(mlp).model) == {"small": 0, "large": 600}


def test_a_shared_weight_is_pruned_once(build):
    weight = np.random.default_rng(0).standard_normal((20, 20)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["t"], name="a"), helper.make_node("MatMul", ["t", "w"], ["y"])]
    result = PruneMagnitude(sparsity=0.5)(build(nodes, {"w": weight}, x=(1, 20)))
    assert [change.site for change in result.report.changes] == ["a"]
    assert zeros(result.model) == {"a": 200}


def test_leaves_embeddings_also_where_they_are_tied(build):
    table = np.random.default_rng(0).standard_normal((20, 16)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["t"], name="embed"),
        helper.make_node("Transpose", ["t"], ["u"]),
        helper.make_node("MatMul", ["table", "u"], ["y"]),
    ]
    model = build(nodes, {"table": table, "ids": np.array([1, 2])}, x=(1,))
    (skip,) = PruneMagnitude(sparsity=0.5)(model).report.skips
    assert skip.site == "embed"
    assert "set embeddings" in skip.reason
    assert zeros(PruneMagnitude(sparsity=0.5, embeddings=True)(model).model) == {"embed": 160}
    (skip,) = PruneMagnitude(pattern="2:4", embeddings=True)(model).report.skips
    assert "N:M has no axis" in skip.reason


def test_reports_error_bytes_and_zeros_before(build):
    weight = np.array([[0.0, 3.0], [1.0, 4.0]], np.float32)
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], {"w": weight}, x=(1, 2))
    (change,) = PruneMagnitude(sparsity=0.5, min_size=1)(model).report.changes
    assert (change.site, change.action) == ("fc", "50.0% zeros, 25.0% before")
    assert (change.bytes_before, change.bytes_after) == (16, 16)
    assert change.error == pytest.approx(np.sqrt(1 / 26), rel=1e-12)


def test_warns_of_a_layer_that_went_altogether(mlp):
    assert PruneMagnitude(sparsity=0.3)(mlp).report.warnings == []
    (warning,) = PruneMagnitude(sparsity=0.6)(mlp).report.warnings
    assert warning.startswith("small: all weights went")


@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_skips_weights_that_are_no_numbers(build, scope):
    weight = np.full((20, 20), np.nan, np.float32)
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, x=(1, 20))
    (skip,) = PruneMagnitude(sparsity=0.5, scope=scope)(model).report.skips
    assert skip.reason == "cannot zero 200 weights: fewer than that are numbers"


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_prunes_other_floats(build, dtype):
    weight = np.random.default_rng(0).standard_normal((20, 20)).astype(dtype)
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, x=(1, 20), dtype=kind)
    pruned = weights(PruneMagnitude(sparsity=0.5, scope="tensor")(model).model).popitem()[1]
    assert pruned.dtype == dtype
    assert np.count_nonzero(pruned == 0) == 200


def test_promises_large_weights_instead_of_holding_them(build, tmp_path):
    weight = np.random.default_rng(0).standard_normal((600, 600)).astype(np.float32)
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], {"w": weight}, x=(1, 600))
    pruned = PruneMagnitude(sparsity=0.75)(model).model
    assert isinstance(values_of(find_sites(pruned)[0].weight), Streamed)
    pruned.save(tmp_path / "out.onnx")
    assert zeros(Model.load(tmp_path / "out.onnx")) == {"fc": 270000}


def test_prunes_weights_in_branches(build, run):
    weight = np.random.default_rng(0).standard_normal((20, 20)).astype(np.float32)
    y = helper.make_tensor_value_info("t", 1, None)
    branches = [
        helper.make_graph(
            [helper.make_node("MatMul", ["x", f"w{i}"], ["t"], name=f"fc{i}")],
            "branch",
            [],
            [y],
            [onnx.numpy_helper.from_array(weight + i, f"w{i}")],
        )
        for i in range(2)
    ]
    node = helper.make_node("If", ["which"], ["y"], then_branch=branches[0], else_branch=branches[1])
    chosen = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Less", ["m", "most"], ["which"]),
    ]
    model = build([*chosen, node], {"most": np.array(1e9, np.float32)}, x=(1, 20))
    pruned = PruneMagnitude(sparsity=0.5, scope="tensor")(model).model
    assert zeros(pruned) == {"fc0": 200, "fc1": 200}
    x = np.ones((1, 20), np.float32)
    np.testing.assert_allclose(run(pruned, x)[0], x @ weights(pruned)["fc0"], rtol=1e-5, atol=1e-5)  # float32 sums


def test_runs_in_a_pipeline(mlp, run):
    result = Pipeline([PruneMagnitude(sparsity=0.5)])(mlp, Workbench(seed=3))
    x = np.random.default_rng(1).standard_normal((3, 20)).astype(np.float32)
    found = weights(result.model)
    expected = x @ found["small"] @ found["large"]
    np.testing.assert_allclose(run(result.model, x)[0], expected, rtol=1e-4, atol=1e-4)  # float32 sums of 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "sparsity must lie in [0, 1), got None"),
        ({"sparsity": 1.0}, "sparsity must lie in [0, 1), got 1.0"),
        ({"sparsity": -0.1}, "sparsity must lie in [0, 1), got -0.1"),
        ({"sparsity": "half"}, "sparsity must lie in [0, 1), got 'half'"),
        ({"sparsity": True}, "sparsity must lie in [0, 1), got True"),
        ({"sparsity": float("nan")}, "sparsity must lie in [0, 1), got nan"),
        (
            {"targets": {"Gemm": 1.0}},
            "targets must map globs over site, weight or operator names to sparsities in [0, 1)",
        ),
        ({"targets": {3: 0.5}}, "targets must map globs"),
        ({"targets": ["Gemm"]}, "targets must map globs"),
        ({"targets": {"Gemm": True}}, "got {'Gemm': True}"),
        ({"targets": {"Gemm": 0.5}, "sparsity": 1.0}, "sparsity must lie in [0, 1), got 1.0"),
        ({"targets": {"Gemm": 0.5}, "pattern": "2:4"}, "targets must be left out, for pattern 2:4 means 0.5"),
        ({"sparsity": 0.5, "scope": "layer"}, "scope must be global or tensor, got 'layer'"),
        ({"sparsity": 0.5, "pattern": "4:2"}, "got '4:2'"),
        ({"sparsity": 0.5, "pattern": 4}, "got 4"),
        ({"sparsity": 0.9, "pattern": "2:4"}, "sparsity must be left out, for pattern 2:4 means 0.5, got 0.9"),
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(ConfigError) as caught:
        PruneMagnitude(**options)
    assert message in str(caught.value)
