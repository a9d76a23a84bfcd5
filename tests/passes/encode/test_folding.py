import pytest

from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.encode.folding import undecoded_nodes
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.model import Model


@pytest.fixture
def encoded(tmp_path, make_model, make_weight):
    weights = {
        "codes": make_weight((128, 128), distinct=16),
        "mask": make_weight((128, 128), density=0.5, seed=1),
        "gaps": make_weight((128, 128), density=0.1, distinct=9, seed=2),
        "half": make_weight((128, 128), dtype="float16").astype("float32"),
    }
    result = Encode()(make_model(weights))
    assert len(result.report.changes) == 4
    result.model.save(tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_onnxruntime_leaves_no_decoding_node(encoded):
    assert undecoded_nodes(encoded) == []


def test_nodes_that_are_not_folded_are_found(encoded):
    left = undecoded_nodes(encoded, disabled_optimizers=("ConstantFolding",))
    assert any(each.endswith("→ codes") for each in left)
    assert any("_inlfunc_Mask_" in each for each in left)
    assert any("_inlfunc_Gaps_" in each for each in left)


def test_a_model_without_encoded_weights_has_none(tmp_path, make_model, make_weight):
    make_model({"w": make_weight((8, 8))}).save(tmp_path / "plain.onnx")
    assert undecoded_nodes(tmp_path / "plain.onnx") == []


def test_refuses_what_onnxruntime_does_not_load(encoded, tmp_path):
    model = Model.load(encoded)
    model.graph.nodes[-1].op = "NoSuchOperator"
    model.save(tmp_path / "broken.onnx")
    with pytest.raises(ModelError, match="does not load"):
        undecoded_nodes(tmp_path / "broken.onnx")
