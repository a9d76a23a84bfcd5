import numpy as np
import onnx
import pytest
from onnx import helper

from onnxpress.passes.factorize.svd import FactorizeSVD
from onnxpress.passes.pipeline import Pipeline
from onnxpress.rewriter.errors import ConfigError

FULL = FactorizeSVD(rank=10**6, always=True)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def check_same(run, model, result, x):
    assert len(result.model.graph.nodes) == 2
    # float32 sums of a few terms
    np.testing.assert_allclose(run(result.model, x)[0], run(model, x)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("x", [(5, 12), (2, 5, 12), (12,)])
def test_a_matmul_of_full_rank_is_reproduced(build, run, x):
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], {"w": normal(12, 9)}, x=x)
    check_same(run, model, Pipeline([FULL])(model), normal(*x, seed=1))


@pytest.mark.parametrize("x", [(12, 5), (2, 12, 5), (12,)])
def test_a_matmul_with_the_weight_on_the_left_is_reproduced(build, run, x):
    model = build([helper.make_node("MatMul", ["w", "x"], ["y"], name="fc")], {"w": normal(9, 12)}, x=x)
    check_same(run, model, Pipeline([FULL])(model), normal(*x, seed=1))


@pytest.mark.parametrize("bias", [None, (9,), (5, 9), (1,)])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("trans_a", [0, 1])
def test_a_gemm_of_full_rank_is_reproduced(build, run, trans_a, trans_b, bias):
    weights = {"w": normal(9, 12) if trans_b else normal(12, 9)}
    if bias:
        weights["c"] = normal(*bias, seed=2)
    attrs = {"transA": trans_a, "transB": trans_b, "alpha": 0.5, "beta": 2.0}
    shape = (12, 5) if trans_a else (5, 12)
    model = build([helper.make_node("Gemm", ["x", *weights], ["y"], name="fc", **attrs)], weights, x=shape)
    check_same(run, model, Pipeline([FULL])(model), normal(*shape, seed=1))


def test_an_old_gemm_is_split_unless_that_takes_one_without_bias(build, run):
    weights = {"w": normal(12, 9), "c": normal(9)}
    model = build([helper.make_node("Gemm", ["x", "w", "c"], ["y"])], weights, x=(5, 12), opset=9)
    check_same(run, model, FULL(model), normal(5, 12, seed=1))
    node = helper.make_node("Gemm", ["x", "w", "c"], ["y"], transA=1)
    (skip,) = FULL(build([node], weights, x=(12, 5), opset=9)).report.skips
    assert skip.reason == "needs a Gemm without bias, which opset 9 lacks: raise it to 11"


def test_names_start_with_those_of_the_original_and_the_output_stays(build):
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], {"w": normal(12, 9)}, x=(5, 12))
    result = FactorizeSVD(rank=2)(model).model
    assert [node.name for node in result.graph.nodes] == ["fc_narrow", "fc_wide"]
    assert [c.name for c in result.constants()] == ["w_narrow", "w_wide"]
    assert result.graph.nodes[1].outputs[0] is result.graph.outputs[0]
    assert result.outputs == ("y",)


def test_reports_rank_bytes_and_error(build):
    weight = normal(40, 30)
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], {"w": weight}, x=(5, 40))
    (change,) = FactorizeSVD(rank=6)(model).report.changes
    assert change.action == "rank 6 of 30, 35.0% of the parameters, 35.0% of the multiply-adds"
    assert (change.bytes_before, change.bytes_after) == (4800, 1680)
    values = np.linalg.svd(weight.astype(float), compute_uv=False)
    expected = np.sqrt((values[6:] ** 2).sum() / (values**2).sum())
    assert change.error == pytest.approx(expected, rel=1e-6)  # Eckart and Young; factors are rounded to float32


def test_does_not_touch_the_model_it_is_given(build):
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], {"w": normal(12, 9)}, x=(5, 12))
    before = model.to_proto().SerializeToString()
    FactorizeSVD(rank=2)(model)
    assert model.to_proto().SerializeToString() == before


def test_twice_finds_nothing_more_to_save(build):
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], {"w": normal(40, 40)}, x=(5, 40))
    factorize = FactorizeSVD(rank=8)
    once = factorize(model).model
    report = factorize(once).report
    assert report.changes == []
    assert [skip.reason for skip in report.skips] == [
        "rank 8 saves nothing: 8·(40+8) ≥ 40·8",
        "rank 8 saves nothing: 8·(8+40) ≥ 8·40",
    ]


def test_a_weight_shared_by_two_layers_is_split_once(build, run):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["t"], name="a"), helper.make_node("MatMul", ["t", "w"], ["y"])]
    model = build(nodes, {"w": normal(12, 12)}, x=(5, 12))
    result = Pipeline([FULL])(model)
    assert len(result.model.graph.nodes) == 4
    assert len(result.model.constants()) == 2
    x = normal(5, 12, seed=1)
    np.testing.assert_allclose(run(result.model, x)[0], run(model, x)[0], rtol=1e-4, atol=1e-3)  # sums of sums


def test_splits_layers_in_branches(build, run):
    y = helper.make_tensor_value_info("t", 1, None)
    branches = [
        helper.make_graph(
            [helper.make_node("MatMul", ["x", f"w{i}"], ["t"], name="fc")],
            "branch",
            [],
            [y],
            [onnx.numpy_helper.from_array(normal(12, 12, seed=i), f"w{i}")],
        )
        for i in range(2)
    ]
    chosen = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Less", ["m", "most"], ["which"]),
    ]
    node = helper.make_node("If", ["which"], ["y"], then_branch=branches[0], else_branch=branches[1])
    model = build([*chosen, node], {"most": np.array(1e9, np.float32)}, x=(5, 12))
    result = Pipeline([FULL])(model)
    assert len(result.reports[-1].changes) == 2
    x = normal(5, 12, seed=1)
    np.testing.assert_allclose(run(result.model, x)[0], run(model, x)[0], rtol=1e-4, atol=1e-4)  # sums of 12


def refusal(model, **options) -> str:
    report = FactorizeSVD(**options or {"rank": 2})(model).report
    assert report.changes == []
    (skip,) = report.skips
    return skip.reason


def test_skips_what_saves_nothing_with_the_figures(build):
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": normal(1024, 768)}, x=(5, 1024))
    assert refusal(model, rank=512) == "rank 512 saves nothing: 512·(1024+768) ≥ 1024·768"


def test_skips_embeddings(build):
    node = helper.make_node("Gather", ["w", "ids"], ["y"])
    reason = refusal(build([node], {"w": normal(40, 30), "ids": np.array([1])}, x=(1,)))
    assert reason == "is an embedding: a look-up needs no multiply-adds, its factors would"


def test_skips_a_weight_that_is_read_in_two_ways(build):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"], name="a"),
        helper.make_node("Gemm", ["t", "w"], ["y"], name="b", transB=1),
    ]
    reason = refusal(build(nodes, {"w": normal(40, 40)}, x=(5, 40)))
    assert reason == "is shared by MatMul 'a' and Gemm 'b', which read it in different ways"


def test_skips_batches_of_matrices(build):
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": normal(3, 40, 40)}, x=(3, 5, 40))
    assert refusal(model) == "holds 3 independent matrices"


def test_skips_the_left_operand_of_a_gemm(build):
    model = build([helper.make_node("Gemm", ["w", "x"], ["y"])], {"w": normal(40, 40)}, x=(40, 5))
    assert refusal(model) == "is the left operand of a Gemm; only the right one is split"


def test_skips_weights_of_other_operators(build):
    node = helper.make_node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft")
    reason = refusal(build([node], {"w": normal(40, 40)}, x=(5, 40)))
    known = "Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU, RNN, Gather"
    assert reason == f"is a weight of FusedMatMul; only those of {known} are split"


def test_leaves_convolutions_alone_if_asked(build):
    model = build([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": normal(8, 8, 3, 3)}, x=(1, 8, 9, 9))
    assert refusal(model, rank=2, conv="none") == "is a Conv, which conv 'none' leaves alone"


def test_half_precision_is_kept_and_its_rounding_reported(build):
    weight = normal(40, 30).astype(np.float16)
    kind = onnx.TensorProto.FLOAT16
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, x=(5, 40), dtype=kind)
    result = FULL(model)
    assert {c.dtype for c in result.model.constants()} == {np.dtype(np.float16)}
    assert 1e-5 < result.report.changes[0].error < 1e-3


def test_refuses_an_unknown_form_of_convolution():
    with pytest.raises(ConfigError, match="factorize-svd: conv must be spatial or channel or none, got 'tucker'"):
        FactorizeSVD(rank=2, conv="tucker")


def test_a_lone_matrix_in_a_batch_keeps_its_axis(build, run):
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], {"w": normal(1, 12, 9)}, x=(5, 12))
    result = Pipeline([FULL])(model)
    x = normal(5, 12, seed=1)
    assert run(result.model, x)[0].shape == (1, 5, 9)
    check_same(run, model, result, x)


def test_depthwise_convolutions_are_split_filter_by_filter(build, run):
    columns, rows = normal(8, 1, 3, 1), normal(8, 1, 1, 3, seed=2)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", group=8, pads=[1, 1, 1, 1])
    model = build([node], {"w": columns * rows}, x=(1, 8, 9, 9))
    result = FactorizeSVD(rank=1)(model)
    assert [each.attrs["group"] for each in result.model.graph.nodes] == [8, 8]
    check_same(run, model, result, normal(1, 8, 9, 9, seed=1))


def test_a_stated_output_shape_is_kept_where_one_link_covers_the_kernel(build, run):
    node = helper.make_node(
        "ConvTranspose", ["x", "w"], ["y"], name="up", strides=[2, 2], output_shape=[10, 9], auto_pad="SAME_UPPER"
    )
    model = build([node], {"w": normal(6, 5, 3, 3)}, x=(1, 6, 5, 5))
    check_same(run, model, FactorizeSVD(rank=99, always=True, conv="channel")(model), normal(1, 6, 5, 5, seed=1))
    (skip,) = FactorizeSVD(rank=99, always=True)(model).report.skips
    assert skip.reason == "states its output_shape, which no part of a chain can: give pads instead"
