"""A model is told layer by layer."""

import numpy as np
import pytest

from onnxpress import Encode, Pipeline, ShareKMeans
from onnxpress.inspection import count_distinct, inspect
from onnxpress.models import zoo
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.model import Model


def test_tells_layers_as_passes_see_them(model):
    found = inspect(model)
    first, second = found.layers  # the second weight comes out of its Constant node
    assert (first.name, first.op, first.shape, first.weights, first.nbytes) == ("first", "Gemm", (64, 8), 512, 2048)
    assert (second.name, second.multiply_adds) == ("second", 640)
    assert first.multiply_adds == 512
    assert found.open_dims == ("n",)
    assert (found.nodes_before, sum(found.nodes.values())) == (4, 3)
    assert found.other_bytes == 64 * 4
    assert found.nbytes == model.stat().st_size


def test_says_what_each_family_could_do_or_why_not():
    layers = {each.name: each for each in inspect(zoo.path("lenet5")).layers}
    gemm = layers["/5/Gemm"].options
    assert gemm["factorize"].text == "rank ≤ 307"  # 307·(500+800) < 500·800 ≤ 308·(500+800)
    assert gemm["quantize"].text == "int8"
    assert not gemm["encode"].possible


def test_sees_zeros_and_shared_values(model, tmp_path):
    loaded = Model.load(model)
    weight = next(each for each in loaded.constants() if each.name == "w")
    loaded.replace_weight(weight, np.repeat(np.array([0, 1, 2, 3], np.float32), 128).reshape(64, 8))
    loaded.save(tmp_path / "shared.onnx")
    layer = inspect(tmp_path / "shared.onnx").layers[0]
    assert (layer.zeros, layer.distinct) == (0.25, 4)
    assert layer.options["encode"].text == "2-bit codes"
    assert not layer.options["share"].possible


def test_counts_encoded_weights(model, tmp_path):
    result = Pipeline([ShareKMeans(bits=2), Encode()])(Model.load(model))
    result.model.save(tmp_path / "encoded.onnx")
    assert inspect(tmp_path / "encoded.onnx").encoded == 3  # the zero bias too


def test_distinct_values_are_counted_up_to_a_limit():
    assert count_distinct(np.arange(256.0)) == 256
    assert count_distinct(np.arange(257.0)) is None
    assert count_distinct(np.arange(100_000.0)) is None


def test_refuses_what_is_no_model(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        inspect(tmp_path / "none.onnx")
