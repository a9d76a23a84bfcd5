from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from onnxpress.passes.normalise import Normalise
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.model import Model

DECOMPOSED = """<ir_version: 8, opset_import: ["": 17]>
g (float[n,6,6,3] x) => (float[n,4] y) {
    c0 = Cast<to=1>(x)
    t0 = Transpose<perm=[0,3,1,2]>(c0)
    f0 = Conv<pads=[1,1,1,1]>(t0, w0)
    t1 = Transpose<perm=[0,2,3,1]>(f0)
    b0 = Add(t1, bias)  s0 = Sub(b0, mean)  m0 = Mul(s0, gamma)  a0 = Add(m0, beta)
    c1 = Cast<to=1>(a0)  r0 = Relu(c1)
    t2 = Transpose<perm=[0,3,1,2]>(r0)
    h = Cast<to=1>(w1)
    f1 = Conv(t2, h)
    t3 = Transpose<perm=[0,2,3,1]>(f1)
    n = Add(t3, r0)
    y = ReduceMean<axes=[1,2], keepdims=0>(n)
}"""


def outputs(model: Model, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.to_proto().SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.fixture
def export() -> Model:
    """A network as exporters write it: NHWC, BatchNormalization in parts, half a weight behind a Cast."""
    rng, proto = np.random.default_rng(0), onnx.parser.parse_model(DECOMPOSED)
    weights = {name: rng.standard_normal(4) for name in ("bias", "mean", "gamma", "beta")}
    weights |= {"w0": rng.standard_normal((4, 3, 3, 3)), "w1": rng.standard_normal((4, 4, 1, 1))}
    for name, array in weights.items():
        dtype = np.float16 if name == "w1" else np.float32
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(dtype), name))
    return Model.from_proto(proto)


def test_a_decomposed_network_becomes_its_layers(export: Model) -> None:
    x = np.random.default_rng(1).standard_normal((2, 6, 6, 3)).astype(np.float32)
    result = Normalise()(export)
    assert sorted(n.op for n in result.model.graph.nodes) == ["Add", "Conv", "Conv", "ReduceMean", "Relu", "Transpose"]
    np.testing.assert_allclose(outputs(result.model, x), outputs(export, x), rtol=1e-4, atol=1e-5)
    actions = " ".join(change.action for change in result.report.changes)
    assert "Add + Sub + Mul + Add folded into Conv" in actions
    assert "2 Cast nodes that did nothing removed" in actions


def test_is_idempotent(export: Model) -> None:
    once = Normalise()(export)
    twice = Normalise()(once.model)
    assert twice.model.to_proto() == once.model.to_proto()
    assert not twice.report.changes


def test_each_part_can_be_turned_off(export: Model) -> None:
    kept = Normalise(cancel_transposes=False, fold_affine=False)(export).model
    ops = [n.op for n in kept.graph.nodes]
    assert ops.count("Transpose") == 4
    assert "Sub" in ops


def test_inlines_functions_but_not_the_decoding_ones() -> None:
    text = """<ir_version: 8, opset_import: ["": 17, "f": 1, "press": 1]>
    g (float[2] x) => (float[2] y) { a = f.twice(x) y = press.Decode(a) }
    <domain: "f", opset_import: ["": 17]> twice (a) => (b) { b = Add(a, a) }
    <domain: "press", opset_import: ["": 17]> Decode (a) => (b) { b = Neg(a) }"""
    result = Normalise()(Model.from_proto(onnx.parser.parse_model(text)))
    assert [n.op for n in result.model.graph.nodes] == ["Add", "Decode"]
    assert [f.name for f in result.model.functions] == ["Decode"]


def test_says_when_weights_grow(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[1,64] x) => (float[1,64] y) { h = Cast<to=1>(w) y = MatMul(x, h) }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((64, 64), np.float16), "w"))
    report = Normalise()(Model.from_proto(proto)).report
    assert "take 16,384 bytes, 8,192 before" in report.warnings[0]


@pytest.mark.parametrize("node", ["Add(x)", "Conv()", "Shape()", "NoSuchOperator(x)"])
def test_refuses_nodes_that_the_opset_does_not_know(node: str) -> None:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (y) {{ y = {node} }}')
    with pytest.raises(ModelError, match="export the model again"):
        Normalise()(Model.from_proto(proto))
