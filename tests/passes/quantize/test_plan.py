import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.quantize.recurrent import key_of
from onnxpress.passes.quantize.static import QuantizeStatic
from onnxpress.passes.quantize.writing import write
from onnxpress.passes.report import Report


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attrs)


@pytest.fixture
def chain(build, bench, random):
    """x -> MatMul -> Softmax -> MatMul -> y, its plan, and samples."""
    weights = {"w": random.standard_normal((32, 32), np.float32), "v": random.standard_normal((32, 32), np.float32)}
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Softmax", ["a"], ["s"]), node("MatMul", ["s", "v"], ["y"])]
    model = build(nodes, weights, x=("n", 32))
    batch = random.standard_normal((16, 32), np.float32)
    return (
        model,
        QuantizeStatic(layer_sqnr=0, rounding="nearest").plan(model, Report("plan"), bench(model, batch)),
        batch,
    )


def test_one_plan_is_written_many_times(chain, run):
    model, plan, batch = chain
    written = []
    for floats in ((), ("a",), ("y",), ("a", "y"), ()):
        copy = model.clone()
        placement = write(copy, plan, Report("write"), floats=dict.fromkeys(floats, "it loses too much on codes"))
        assert [key_of(each) for each in placement.coded.values()] == [key for key in ("a", "y") if key not in floats]
        assert run(copy, batch)[0].shape == (16, 32)
        written.append(copy.to_proto().SerializeToString())
    assert written[0] == written[-1]
    assert len(set(written)) == 4


def test_layers_left_in_float_say_so(chain):
    model, plan, _ = chain
    report = Report("write")
    write(model.clone(), plan, report, floats={"a": "it loses too much on codes"})
    assert report.changes[0].action == "int8 in the file, float when it runs: it loses too much on codes"
    assert report.tensors["x"] == "float: MatMul computes in float: it loses too much on codes"


def test_says_of_every_float_tensor_why_it_carries_codes_or_not(chain):
    model, plan, _ = chain
    report = Report("write")
    write(model.clone(), plan, report)
    assert report.tensors == {
        "x": "codes: MatMul reads them",
        "a": "float: Softmax computes in float",
        "s": "codes: MatMul reads them",
        "y": "float: an output of the model",
    }


def test_says_why_tensors_between_layers_have_no_codes(build, bench, random):
    weights = {"w": random.standard_normal((16, 16, 3, 3), np.float32), "k": np.ones((16, 1, 1), np.float32)}
    nodes = [
        node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["r"]),
        node("Conv", ["r", "w"], ["b"], pads=[1, 1, 1, 1]),
        node("Mul", ["b", "k"], ["c"]),
        node("Abs", ["c"], ["d"]),
        node("MaxPool", ["d"], ["e"], kernel_shape=[2, 2]),
        node("Shape", ["e"], ["size"]),
        node("Reshape", ["e", "size"], ["y"]),
    ]
    model = build(nodes, weights, x=("n", 16, 4, 4))
    found = QuantizeStatic()(model, bench(model, random.standard_normal((2, 16, 4, 4), np.float32))).report.tensors
    assert found["a"] == "none: Relu behind it is part of its codes"
    assert found["r"] == "codes: Conv reads them"
    assert found["b"] == "codes: Conv gives them"
    assert found["d"] == "float: MaxPool follows only where codes come and are read"
    assert found["c"] == "float: Abs computes in float"
    assert "size" not in found


def test_says_which_tensors_held_infinities(build, bench, random):
    nodes = [node("Log", ["x"], ["l"]), node("MatMul", ["l", "w"], ["a"]), node("Max", ["a", "low"], ["y"])]
    weights = {"low": np.float32(-50), "w": random.uniform(0.5, 1, (32, 32)).astype(np.float32)}
    model = build(nodes, weights, x=("n", 32))
    report = QuantizeStatic()(model, bench(model, np.zeros((2, 32), np.float32))).report
    assert report.tensors["l"] == "float: held NaN or infinities"
