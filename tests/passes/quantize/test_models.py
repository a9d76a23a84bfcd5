"""Models of the zoo, quantized, at their own tasks."""

from pathlib import Path

import pytest

from onnxpress.calibration.metrics import load_metric
from onnxpress.calibration.plugins import load_function
from onnxpress.calibration.session import Runner
from onnxpress.models import zoo
from onnxpress.passes.base import Workbench
from onnxpress.passes.blockwise.weights import QuantizeWeights
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.quantize.dynamic import QuantizeDynamic
from onnxpress.passes.quantize.static import QuantizeStatic
from onnxpress.rewriter.model import Model


def quantized(name, each, folder: Path):
    """File size, score of float, and score of the model with 8 bits."""
    recipe, target = zoo.recipe(name), folder / "small.onnx"
    feed, calibration = load_function(recipe.feed)(), load_function(recipe.calibration)()
    model = Model.load(zoo.path(name))
    size = Pipeline([each])(model, Workbench(feed=calibration)).model.save(target)
    metric = load_metric(recipe.metric)
    return size, *(metric(Runner(path), feed) for path in (zoo.path(name), target))


@pytest.mark.parametrize("each", [QuantizeStatic(), QuantizeDynamic(), QuantizeWeights()], ids=lambda each: each.name)
@pytest.mark.parametrize("name", ["lenet5", "lenet300"])
def test_digits_are_read_as_well_as_in_float(name, each, tmp_path):
    size, before, after = quantized(name, each, tmp_path)
    assert size < 0.27 * zoo.path(name).stat().st_size
    assert after > before - 0.001


def test_characters_are_guessed_as_well_as_in_float(tmp_path):
    size, before, after = quantized("textgen", QuantizeDynamic(), tmp_path)
    assert size < 0.27 * zoo.path("textgen").stat().st_size
    assert after > before - 0.01


@pytest.mark.network
def test_lines_are_read_as_well_as_in_float(tmp_path):
    size, before, after = quantized("ppocr-rec", QuantizeStatic(), tmp_path)
    assert size < 3_200_000
    assert after > before - 0.02


@pytest.mark.network
@pytest.mark.parametrize("each", [QuantizeStatic(), QuantizeDynamic()], ids=lambda each: each.name)
def test_sentences_are_told_apart_as_well_as_in_float(each, tmp_path):
    size, before, after = quantized("minilm", each, tmp_path)
    assert size < 23_700_000
    assert after > before - 0.01
