"""Models in memory, as ONNX Runtime gets them."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxpress.calibration import loading
from onnxpress.calibration.loading import loaded
from onnxpress.calibration.session import Runner
from onnxpress.rewriter.model import Model

X = {"x": np.random.default_rng(5).standard_normal((3, 40)).astype(np.float32)}


@pytest.fixture
def external(save_model, tmp_path):
    """x [n, 40] @ w -> y, w of 6,400 bytes in a file of external data."""
    weight = np.random.default_rng(0).standard_normal((40, 40)).astype(np.float32)
    path = save_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 40]}, ["y"], weights={"w": weight})
    Model.load(path).save(tmp_path / "external.onnx", external_data=True)
    return tmp_path / "external.onnx"


def run(proto, folder):
    with Runner(proto.SerializeToString(), weights_folder=folder) as runner:
        return runner.run(X)["y"]


def test_external_data_stay_where_they_are(external):
    with loaded(Model.load(external)) as (proto, folder):
        assert folder == external.parent
        assert proto.ByteSize() < 1000
        np.testing.assert_array_equal(run(proto, folder), Runner(external).run(X)["y"])


def test_a_replaced_weight_goes_into_the_message(external):
    model = Model.load(external)
    (weight,) = model.constants()
    model.replace_weight(weight, 2 * model.array(weight))
    with loaded(model) as (proto, folder):
        assert proto.ByteSize() > 6400
        # twice the product in float32
        np.testing.assert_allclose(run(proto, folder), 2 * Runner(external).run(X)["y"], rtol=1e-6, atol=0)


def test_weights_too_large_for_the_message_go_to_a_file_for_a_while(external, monkeypatch):
    monkeypatch.setattr(loading, "INLINE", 100)
    model = Model.load(external)
    (weight,) = model.constants()
    model.replace_weight(weight, 2 * model.array(weight))
    with loaded(model) as (proto, folder):
        assert proto.ByteSize() < 1000
        assert folder != external.parent
        np.testing.assert_allclose(run(proto, folder), 2 * Runner(external).run(X)["y"], rtol=1e-6, atol=0)
    assert not folder.exists()


def test_a_data_file_that_was_replaced_is_not_read(external):
    expected = Runner(external).run(X)["y"]
    model = Model.load(external)
    (data,) = external.parent.glob("*.data")
    other = data.with_suffix(".new")
    other.write_bytes(bytes(data.stat().st_size))
    other.replace(data)
    with loaded(model) as (proto, folder):
        np.testing.assert_array_equal(run(proto, folder), expected)


def test_weights_at_odd_places_are_not_mapped(save_model):
    weight = np.random.default_rng(0).standard_normal((40, 40)).astype(np.float32)
    path = save_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 40]}, ["y"], weights={"w": weight})
    model = Model.load(path)
    (constant,) = model.constants()
    constant._values.offset += 1  # as if the file had one byte more in front
    path.write_bytes(path.read_bytes()[: constant._values.offset - 1] + b"\0" + weight.tobytes() + b"\0" * 99)
    with loaded(model) as (proto, _):
        assert isinstance(proto, onnx.ModelProto)
        assert not any(each.external_data for each in proto.graph.initializer)
