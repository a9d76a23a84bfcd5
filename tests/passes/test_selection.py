import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxpress.passes.prune.zeros.magnitude import PruneMagnitude
from onnxpress.passes.report import Report
from onnxpress.passes.selection import Layout, RefusalError, skipping
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites


def _model(nodes: list[onnx.NodeProto], **weights: np.ndarray) -> Model:
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xy"]
    graph = helper.make_graph(nodes, "test", ends[:1], ends[1:])
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return Model.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


@pytest.mark.parametrize(
    ("op", "attrs", "shape", "rows"),
    [
        ("MatMul", {}, (4, 6), (6, 4)),
        ("Gemm", {"transB": 1}, (4, 6), (4, 6)),
        ("Conv", {}, (4, 3, 2, 5), (4, 30)),
        ("ConvTranspose", {}, (4, 3, 2, 5), (3, 40)),
        ("MatMul", {}, (2, 4, 6), (12, 4)),
    ],
)
def test_layout_turns_a_weight_into_outputs_by_inputs_and_back(op, attrs, shape, rows):
    weight = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    (site,) = find_sites(_model([helper.make_node(op, ["x", "w"], ["y"], **attrs)], w=weight))
    matrix = Layout.of(site).to_rows(weight)
    assert matrix.shape == rows
    np.testing.assert_array_equal(Layout.of(site).from_rows(matrix), weight)


def test_layout_puts_the_weights_of_one_output_into_one_row():
    weight = np.arange(24, dtype=np.float32).reshape(2, 3, 4)  # ConvTranspose: in, out, kernel
    (site,) = find_sites(_model([helper.make_node("ConvTranspose", ["x", "w"], ["y"])], w=weight))
    np.testing.assert_array_equal(Layout.of(site).to_rows(weight)[1], weight[:, 1].reshape(-1))


def test_skips_what_the_recipe_excludes_and_what_is_small():
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["t"], name="first"),
        helper.make_node("MatMul", ["t", "b"], ["u"], name="second"),
        helper.make_node("MatMul", ["u", "c"], ["y"], name="empty"),
    ]
    rng = np.random.default_rng(0)
    model = _model(nodes, a=rng.random((8, 8)), b=rng.random((8, 2)), c=np.zeros((2, 0)))
    report = PruneMagnitude(sparsity=0.5, exclude=("first",), min_size=20)(model).report
    assert [(skip.site, skip.reason) for skip in report.skips] == [
        ("first", "excluded by the recipe"),
        ("second", "has 16 weights, fewer than min_size 20"),
        ("empty", "has no weights"),
    ]


def test_takes_globs_from_a_recipe_as_a_list():
    assert PruneMagnitude(sparsity=0.5, include=["a", "b"]).include == ("a", "b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": "fc*"}, "include must be a list of globs, got 'fc\\*'"),
        ({"exclude": (1,)}, "exclude must be a list of globs, got \\(1,\\)"),
        ({"min_size": -1}, "min_size must be a whole number of at least 0, got -1"),
        ({"min_size": True}, "min_size must be a whole number of at least 0, got True"),
    ],
)
def test_refuses_options_that_select_nothing_sensible(options, message):
    with pytest.raises(ConfigError, match=f"prune-magnitude: {message}"):
        PruneMagnitude(sparsity=0.5, **options)


def test_warns_of_globs_that_match_nothing():
    model = _model([helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], w=np.ones((20, 20), np.float32))
    report = PruneMagnitude(sparsity=0.5, include=("no such layer",))(model).report
    assert report.warnings == ["include and exclude leave none of 1 weights; see `onnxpress inspect`"]


def test_a_refusal_is_the_reason_of_a_skip_and_other_errors_are_none():
    report = Report("test")
    with skipping(report, "fc"):
        raise RefusalError("saves nothing")
    with skipping(report, "conv"):
        report.change("conv", "shared", bytes_before=1, bytes_after=1)
    assert [(skip.site, skip.reason) for skip in report.skips] == [("fc", "saves nothing")]
    with pytest.raises(ValueError, match="broken"), skipping(report, "fc"):
        raise ValueError("broken")
