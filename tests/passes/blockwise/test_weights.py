import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.blockwise import weights
from onnxpress.passes.blockwise.weights import QuantizeWeights
from onnxpress.passes.normalise import Normalise
from onnxpress.rewriter.errors import ConfigError, ModelError


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs)


def sqnr(reference, test):
    return 10 * np.log10(np.square(reference).sum() / np.square(reference - test).sum())


@pytest.fixture
def model(build, random):
    weights = {
        "w": random.standard_normal((16, 16, 3, 3), np.float32),
        "v": random.standard_normal((16, 64), np.float32),
        "t": random.standard_normal((4, 4), np.float32),
    }
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("GlobalMaxPool", ["c"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("MatMul", ["f", "v"], ["y"]),
    ]
    return build(nodes, {name: weights[name] for name in "wv"}, x=("n", 16, 8, 8))


@pytest.mark.parametrize("per_channel", [True, False])
def test_the_file_shrinks_and_the_float_model_runs(model, run, fused, random, per_channel):
    result, x = QuantizeWeights(per_channel=per_channel)(model), random.standard_normal((2, 16, 8, 8), np.float32)
    assert result.model.weight_bytes() < 0.3 * model.weight_bytes()
    assert fused(result.model) == fused(model)
    assert sqnr(run(model, x)[0], run(result.model, x)[0]) > 35


def test_normalising_again_keeps_the_codes(model):
    once = QuantizeWeights()(model).model
    assert Normalise()(once).model.weight_bytes() == once.weight_bytes()


def test_reports_bytes_and_error(model):
    change = QuantizeWeights()(model).report.changes[0]
    assert change.site == "Conv_c"
    assert change.action == "int8 in the file, float when it runs"
    assert (change.bytes_before, change.bytes_after) == (9216, 2304 + 64)
    assert 0 < change.error < 0.01


def test_skips_weights_that_are_no_numbers(build):
    weight = np.ones((32, 32), np.float32)
    weight[0, 0] = np.nan
    model = build([node("MatMul", ["x", "w"], ["y"])], {"w": weight}, x=("n", 32))
    assert "NaN or infinities" in QuantizeWeights()(model).report.skips[0].reason


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"per_channel": None}, "per_channel must be true or false"),
        ({"bits": 3}, "bits must be 8, 4 or 2, got 3"),
        ({"bits": True}, "bits must be 8, 4 or 2"),
        ({"bits": 4, "block": 24}, "block must be one of 0, 16, 32, 64, 128, 256, or left out, got 24"),
        ({"block": False}, "block must be one of"),
        ({"block": 0, "form": "run"}, "block must be at least 16 where the form is run"),
        ({"method": "best"}, "method must be rtn or hqq or gptq or awq"),
        ({"form": "fast"}, "form must be auto or run or load"),
        ({"symmetric": 1}, "symmetric must be true or false, or left out"),
        ({"bits": 4, "per_channel": False}, "per_channel must be true unless"),
    ],
)
def test_refuses_options_by_name(options, complaint):
    with pytest.raises(ConfigError, match=f"quantize-weights: {complaint}"):
        QuantizeWeights(**options)


class TestWhereTheOpsetCannotBeRaised:
    @pytest.fixture
    def stuck(self, model, monkeypatch):
        def refuse(model, version):
            if version > model.opset:
                raise ModelError(f"cannot raise opset {model.opset} to {version}: no adapter")
            return False

        monkeypatch.setattr(weights, "raise_opset", refuse)
        return model

    def test_weights_are_decoded_at_load_with_a_warning(self, stuck):
        result = QuantizeWeights(bits=4)(stuck)
        assert "cannot raise opset 17 to 21: no adapter: weights are decoded at load" in result.report.warnings[0]
        assert all("float when it runs" in each.action for each in result.report.changes)

    def test_asking_for_codes_that_run_is_an_error(self, stuck):
        with pytest.raises(ModelError, match="no adapter; set form load"):
            QuantizeWeights(bits=4, form="run")(stuck)


@pytest.mark.parametrize(("kind", "odd"), [(np.float16, 1.0), (np.float32, np.nan)])
def test_the_opset_stays_where_no_weight_changes(build, kind, odd):
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    weight = np.full((64, 64), odd, kind)
    model = build([node("MatMul", ["x", "w"], ["y"])], {"w": weight}, x=("n", 64), dtype=element, gives=element)
    result = QuantizeWeights(bits=4)(model)
    assert (result.report.changes, result.model.opset) == ([], model.opset)
    assert len(result.report.skips) == 1
