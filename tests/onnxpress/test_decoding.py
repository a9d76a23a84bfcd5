"""What was encoded comes out as it went in."""

import numpy as np
import pytest

from onnxpress.decoding import decode_file
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.share.kmeans import ShareKMeans
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model


def arrays(model):
    return {each.name: np.array(model.array(each)) for each in model.constants()}


def test_decodes_bit_for_bit(model, out, tmp_path):
    shared = Pipeline([ShareKMeans(bits=2)])(Model.load(model)).model
    encoded = tmp_path / "encoded.onnx"
    Pipeline([Encode()])(shared).model.save(encoded)
    count, nbytes = decode_file(encoded, out)
    assert (count, nbytes) == (3, out.stat().st_size)
    decoded, expected = arrays(Model.load(out)), arrays(shared)
    assert len(decoded) == len(expected)
    for array in expected.values():
        assert any(array.shape == other.shape and (array == other).all() for other in decoded.values())


def test_a_model_without_encoded_weights_is_copied(model, out):
    assert decode_file(model, out)[0] == 0


def test_never_overwrites_its_input(model):
    with pytest.raises(ConfigError, match="never overwritten"):
        decode_file(model, model)
