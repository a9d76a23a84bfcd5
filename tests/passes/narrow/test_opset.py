import numpy as np
import onnx
import pytest
from onnx import helper

from onnxpress.passes.narrow import opset
from onnxpress.passes.narrow.formats import BFLOAT16, FLOAT16
from onnxpress.passes.narrow.opset import raise_for
from onnxpress.passes.report import Report
from onnxpress.rewriter.errors import ModelError

CUDA = ("CUDAExecutionProvider",)


@pytest.fixture
def conv(build, random):
    weights = {"w": random.standard_normal((4, 4, 3, 3), np.float32)}
    return build([helper.make_node("Conv", ["x", "w"], ["y"])], weights, x=("n", 4, 8, 8), opset=11)


def test_float16_needs_no_newer_opset(conv):
    report = Report("test")
    raise_for(conv, FLOAT16, report, providers=CUDA)
    assert conv.opset == 11
    assert not report.changes


def test_stored_bfloat16_needs_13(conv):
    report = Report("test")
    raise_for(conv, BFLOAT16, report)
    assert conv.opset == 13
    assert [each.action for each in report.changes] == ["opset 11 became 13, the first with bfloat16"]


def test_layers_are_worth_a_newer_opset_where_the_provider_has_them(conv, monkeypatch):
    asked = []

    def runs(model, provider):
        proto = onnx.load_from_string(model)
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
        asked.append((proto.graph.node[0].op_type, proto.opset_import[0].version, provider))
        return True

    monkeypatch.setattr(opset, "runs", runs)
    report = Report("test")
    raise_for(conv, BFLOAT16, report, providers=CUDA)
    assert asked == [("Conv", 22, "CUDAExecutionProvider")]
    assert conv.opset == 22
    assert "opset 13 became 22" in report.changes[-1].action


def test_the_cpu_has_no_such_layers(conv):
    raise_for(conv, BFLOAT16, Report("test"), providers=("CPUExecutionProvider",))
    assert conv.opset == 13


def test_layers_stay_float32_where_the_opset_cannot_be_raised(conv, monkeypatch):
    def refuse(model, version):
        if version > opset.BASIC:
            raise ModelError("cannot raise opset 13 to 22")
        return raised(model, version)

    raised = opset.raise_opset
    monkeypatch.setattr(opset, "raise_opset", refuse)
    monkeypatch.setattr(opset, "runs", lambda model, provider: True)
    report = Report("test")
    raise_for(conv, BFLOAT16, report, providers=CUDA)
    assert conv.opset == 13
    assert report.skips[0].reason == "convolutions and recurrent layers stay float32: cannot raise opset 13 to 22"
