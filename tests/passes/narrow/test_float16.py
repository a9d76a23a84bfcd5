import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper

from onnxpress.calibration.feeds import open_feed
from onnxpress.calibration.metrics import load_metric
from onnxpress.calibration.plugins import load_function
from onnxpress.calibration.session import Runner
from onnxpress.models import zoo
from onnxpress.passes.base import Workbench
from onnxpress.passes.encode.decode import decode
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.narrow.float16 import ConvertFloat16
from onnxpress.passes.normalise import Normalise
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.selection import LAZY
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.weights import Streamed, values_of

IDS = {"dtype": onnx.TensorProto.INT64, "gives": onnx.TensorProto.FLOAT}


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs)


def sqnr(reference, test):
    return 10 * np.log10(np.square(reference).sum() / max(np.square(reference - test).sum(), 1e-30))


def types(model):
    """The type of what each node of the main graph gives, by the operator and the name of its output."""
    inferred = onnx.shape_inference.infer_shapes(model.to_proto()).graph
    found = {v.name: v.type.tensor_type.elem_type for v in [*inferred.value_info, *inferred.output]}
    names = {value: name for name, value in onnx.TensorProto.DataType.items()}
    return {n.op_type: names[found[n.output[0]]] for n in inferred.node if n.output[0] in found}


def reasons(report):
    return " | ".join(f"{skip.site}: {skip.reason}" for skip in report.skips)


@pytest.mark.parametrize(("dtype", "least"), [("float16", 65), ("bfloat16", 45)])
def test_stored_weights_compute_in_float32(linear, run, fused, random, dtype, least):
    result, x = ConvertFloat16(dtype=dtype)(linear), random.standard_normal((16, 32), np.float32)
    assert fused(result.model) == fused(linear)
    assert result.model.weight_bytes() == linear.weight_bytes() // 2 + 48 * 2
    y = run(linear, x)[0]
    given = run(result.model, x)[0]
    assert given.dtype == np.float32
    assert sqnr(y, given) > least


@pytest.mark.parametrize("opset", [9, 13, 17, 21])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("form", ["store", "compute"])
def test_runs_at_any_opset(build, run, random, opset, dtype, form):
    weights = {"w": random.standard_normal((32, 48), np.float32)}
    model = build([node("MatMul", ["x", "w"], ["y"])], weights, x=("n", 32), opset=opset)
    result = ConvertFloat16(dtype=dtype, form=form)(model).model
    assert result.opset == (max(opset, 13) if dtype == "bfloat16" else opset)
    x = random.standard_normal((4, 32), np.float32)
    assert sqnr(run(model, x)[0], run(result, x)[0]) > 40


def test_stored_weights_can_be_decoded(linear, run, random):
    small, x = ConvertFloat16()(linear).model, random.standard_normal((16, 32), np.float32)
    dense = decode(small).model
    assert not dense.functions
    assert np.array_equal(run(small, x)[0], run(dense, x)[0])


def test_tables_stay_narrow_in_memory(build, run, fused, random):
    weights = {"w": random.standard_normal((100, 16), np.float32)}
    model = build([node("Gather", ["w", "x"], ["y"])], weights, x=("n", 5), **IDS)
    result, x = ConvertFloat16()(model).model, random.integers(0, 100, (3, 5))
    assert fused(result) == {"Gather": 1, "Cast": 1}
    assert np.array_equal(run(result, x)[0], weights["w"][x].astype(np.float16).astype(np.float32))


def test_a_table_that_a_product_reads_too_is_stored_once(build, run, random):
    weights = {"w": random.standard_normal((100, 16), np.float32)}
    nodes = [
        node("Gather", ["w", "x"], ["g"]),
        node("Transpose", ["w"], ["t"], perm=[1, 0]),
        node("MatMul", ["g", "t"], ["y"]),
    ]
    model = build(nodes, weights, x=("n", 5), **IDS)
    result, x = ConvertFloat16()(model).model, random.integers(0, 100, (3, 5))
    assert result.weight_bytes() == 100 * 16 * 2
    assert sqnr(run(model, x)[0], run(result, x)[0]) > 60


def test_large_weights_are_promised_piece_by_piece(build, random):
    weights = {"w": random.standard_normal((600, 600), np.float32)}
    model = build([node("MatMul", ["x", "w"], ["y"])], weights, x=("n", 600))
    assert model.weight_bytes() > LAZY
    for form in ("store", "compute"):
        result = ConvertFloat16(form=form)(model).model
        values = [values_of(each) for each in result.constants() if values_of(each).nbytes > 1000]
        assert [type(each) for each in values] == [Streamed]
        assert np.array_equal(values[0].load(), weights["w"].astype(np.float16))


@pytest.mark.parametrize("form", ["store", "compute"])
def test_weights_beyond_the_range_stay_float32(linear, run, random, form):
    linear.replace_weight(next(c for c in linear.constants() if c.name == "w"), 1e5 * np.ones((32, 48), np.float32))
    result, x = ConvertFloat16(form=form)(linear), random.standard_normal((16, 32), np.float32)
    assert "1536 of its 1536 weights exceed 65504, the largest is 1e+05" in reasons(result.report)
    assert next(values_of(c) for c in result.model.constants() if c.name == "w").dtype == np.float32
    assert sqnr(run(linear, x)[0], run(result.model, x)[0]) > 50
    assert "exceed" not in reasons(ConvertFloat16(form=form, dtype="bfloat16")(linear).report)


def test_weights_beyond_the_range_are_cut_off_on_request(build, run):
    weights = {"w": np.full((16, 16), 7e4, np.float32)}
    model = build([node("MatMul", ["x", "w"], ["y"])], weights, x=("n", 16))
    result = ConvertFloat16(clip=True)(model)
    assert any("256 weights cut off" in each.action for each in result.report.changes)
    assert run(result.model, np.eye(16, dtype=np.float32))[0].max() == 65504


@pytest.mark.parametrize("form", ["store", "compute"])
def test_weights_that_lose_digits_stay_float32(linear, form):
    small = np.random.default_rng(0).standard_normal((32, 48)).astype(np.float32) * 1e-6
    linear.replace_weight(next(c for c in linear.constants() if c.name == "w"), small)
    assert "1536 of its 1536 weights are below 6.1e-05" in reasons(ConvertFloat16(form=form)(linear).report)


def test_computes_in_16_bits_between_float32_borders(linear, run, bench, random):
    x = random.standard_normal((16, 32), np.float32)
    result = ConvertFloat16(form="compute")(linear, bench(linear, x))
    assert types(result.model) == {"Cast": "FLOAT", "MatMul": "FLOAT16", "Add": "FLOAT16", "Relu": "FLOAT16"}
    given = run(result.model, x)[0]
    assert given.dtype == np.float32
    assert sqnr(run(linear, x)[0], given) > 60
    assert any("4 of 4 nodes compute in 16 bits, 2 Casts" in each.action for each in result.report.changes)
    assert "casts back and forth" in result.report.warnings[0]


def test_borders_become_16_bits_on_request(linear, bench, run, random):
    x = random.standard_normal((16, 32), np.float32)
    model = ConvertFloat16(keep_io=False)(linear, bench(linear, x)).model
    assert model.inputs[0].dtype == np.float16
    given = run(model, x.astype(np.float16))[0]
    assert given.dtype == np.float16
    assert sqnr(run(linear, x)[0], given.astype(np.float32)) > 55
    assert [each.op for each in model.graph.nodes] == ["MatMul", "Add", "Relu", "MatMul"]


def test_scales_of_codes_are_not_stored_in_16_bits(build, random):
    weights = {"w": random.integers(-127, 127, (64, 64), np.int8), "s": np.full(64, 0.01, np.float32)}
    nodes = [node("DequantizeLinear", ["w", "s"], ["v"], axis=1), node("MatMul", ["x", "v"], ["y"])]
    report = ConvertFloat16()(build(nodes, weights, x=(4, 64))).report
    assert reasons(report) == "s: holds the scales of codes, which stay float32"


@pytest.mark.parametrize("form", ["store", "compute"])
def test_encoded_weights_stay_encoded(linear, run, random, form):
    linear.replace_weight(next(c for c in linear.constants() if c.name == "w"), np.ones((32, 48), np.float32))
    encoded, x = Encode()(linear).model, random.standard_normal((16, 32), np.float32)
    result = ConvertFloat16(form=form)(encoded).model
    assert result.weight_bytes() < 0.6 * encoded.weight_bytes()
    assert sqnr(run(linear, x)[0], run(result, x)[0]) > 55


@pytest.mark.parametrize("form", ["store", "compute"])
def test_sites_can_be_chosen(linear, form):
    result = ConvertFloat16(form=form, exclude=("w", "Add"))(linear)
    assert "excluded by the recipe" in reasons(result.report)
    assert next(values_of(c) for c in result.model.constants() if c.name == "w").dtype == np.float32
    assert result.model.weight_bytes() < linear.weight_bytes()


def test_warns_where_no_site_is_chosen(linear):
    assert "leave none of the weights" in ConvertFloat16(include=("nothing",))(linear).report.warnings[0]


def test_bfloat16_on_the_cpu_is_what_it_has_kernels_for(linear, run, bench, random):
    x = random.standard_normal((16, 32), np.float32)
    result = ConvertFloat16(form="compute", dtype="bfloat16")(linear, bench(linear, x))
    assert "the execution provider runs no MatMul in bfloat16" in reasons(result.report)
    assert "no node can compute in 16 bits here" in " ".join(result.report.warnings)
    dtypes = {values_of(each).dtype for each in result.model.constants() if values_of(each).nbytes > 1000}
    assert dtypes == {np.dtype(ml_dtypes.bfloat16)}
    assert sqnr(run(linear, x)[0], run(result.model, x)[0]) > 45


def test_tells_how_close_the_outputs_are(linear, bench, random):
    report = ConvertFloat16()(linear, bench(linear, random.standard_normal((16, 32), np.float32))).report
    assert "form store: CPUExecutionProvider computes in float32" in report.changes[0].action
    assert "dB signal to noise or better, the least in 'y'" in report.changes[-1].action
    assert not report.warnings


def test_warns_of_outputs_that_are_not_close(build, bench):
    weights = {"a": np.ones((64, 1), np.float32), "b": np.full((64, 1), -1, np.float32)}
    nodes = [node("MatMul", ["x", "a"], ["p"]), node("MatMul", ["x", "b"], ["q"]), node("Add", ["p", "q"], ["y"])]
    weights["b"][:32] -= np.float32(1e-3) / 3  # the difference of two large sums
    model = build(nodes, weights, x=("n", 64))
    report = ConvertFloat16(dtype="bfloat16")(model, bench(model, np.ones((2, 64), np.float32))).report
    assert any("output 'y' has" in each and "less than 30" in each for each in report.warnings)


def test_goes_through_a_pipeline_twice(linear, bench, random):
    first = Pipeline([ConvertFloat16()])(linear).model
    second = Pipeline([ConvertFloat16()])(first).model
    assert second.weight_bytes() == first.weight_bytes()
    assert Normalise()(ConvertFloat16(form="compute")(linear).model).model.outputs == ("y",)


def test_gives_the_same_bytes_every_time(linear):
    for form in ("store", "compute"):
        first, second = (ConvertFloat16(form=form)(linear).model.to_proto().SerializeToString() for _ in range(2))
        assert first == second


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "float8"},
        {"form": "both"},
        {"keep_io": "yes"},
        {"clip": 1},
        {"headroom": 0.5},
        {"keep_io": False, "form": "store"},
        {"keep_io": False, "dtype": "bfloat16"},
    ],
    ids=str,
)
def test_refuses_options_by_name(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        ConvertFloat16(**options)


@pytest.mark.parametrize("form", ["store", "compute"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_digits_are_read_as_well_as_in_float32(tmp_path, form, dtype):
    recipe = zoo.recipe("lenet5")
    feed, calibration = (load_function(each)() for each in (recipe.feed, recipe.calibration))
    model = Model.load(zoo.path("lenet5"))
    small = Pipeline([ConvertFloat16(form=form, dtype=dtype)])(model, Workbench(feed=calibration.take(1))).model
    assert small.save(tmp_path / "small.onnx") < 0.51 * zoo.path("lenet5").stat().st_size
    metric = load_metric(recipe.metric)
    before, after = (metric(Runner(path), feed) for path in (zoo.path("lenet5"), tmp_path / "small.onnx"))
    assert after == pytest.approx(before, abs=0.001)  # of the share of digits


@pytest.mark.network
@pytest.mark.parametrize(("name", "least"), [("minilm", 50), ("silero-vad", 40), ("open-nsfw", 60), ("ppocr-cls", 50)])
def test_models_of_the_zoo_compute_in_16_bits(name, least):
    feed = load_function(zoo.recipe(name).calibration)().take(2)
    report = ConvertFloat16(form="compute")(Normalise()(Model.load(zoo.path(name))).model, Workbench(feed=feed)).report
    told = report.changes[-1].action
    assert float(told.split("outputs at ")[1].split(" dB")[0]) > least


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_computes_in_16_bits_on_cuda(linear, random, dtype):
    x = random.standard_normal((16, 32), np.float32)
    feed = open_feed([{"x": x}], inputs=linear.inputs)
    result = ConvertFloat16(dtype=dtype)(linear, Workbench(feed=feed, providers=("cuda", "cpu")))
    assert "form compute: CUDAExecutionProvider computes in" in result.report.changes[0].action
    assert types(result.model)["MatMul"] in ("FLOAT16", "BFLOAT16")
