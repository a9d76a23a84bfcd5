import numpy as np
import onnx
import onnx.parser
import pytest

from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.opset import raise_opset


def test_raises_and_computes_the_same(parse, run) -> None:
    text = "g (float[2,3,4] x) => (float y) { a = Softmax<axis=1>(x) b = Unsqueeze<axes=[0]>(a) y = Mul(b, w) }"
    model = parse(text, opset=11, w=np.arange(4, dtype=np.float32))
    x = np.random.default_rng(1).standard_normal((2, 3, 4)).astype(np.float32)
    before = run(model, x=x)[0]
    assert raise_opset(model, 17)
    assert model.opset == 17
    np.testing.assert_allclose(run(model, x=x)[0], before, rtol=1e-6)


def test_never_lowers(parse) -> None:
    model = parse("g (float[2] x) => (float y) { y = Neg(x) }", opset=20)
    assert not raise_opset(model, 17)
    assert model.opset == 20


def test_keeps_decoding_functions_and_metadata(run) -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 13, "onnxpress": 1]>
    g (float[2] x) => (float[2] y) { w = onnxpress.Half(x) y = Add(x, w) }
    <domain: "onnxpress", opset_import: ["": 13]> Half (a) => (b) { b = Add(a, a) }""")
    for place in (proto, proto.graph, proto.graph.node[1]):
        place.metadata_props.add(key="k", value="v")
    proto.graph.quantization_annotation.add(tensor_name="y")
    model = Model.from_proto(proto)
    raise_opset(model, 17)
    after = model.to_proto()
    for place in (after, after.graph, after.graph.node[1]):
        assert [p.key for p in place.metadata_props] == ["k"]
    assert after.graph.quantization_annotation == proto.graph.quantization_annotation
    np.testing.assert_array_equal(run(model, x=np.ones(2, np.float32))[0], [3, 3])


def test_an_operator_without_adapter_is_a_clear_error(parse) -> None:
    model = parse("g (float[2] x) => (float y) { y = NoSuchThing(x) }", opset=11)
    with pytest.raises(ModelError, match="cannot raise opset 11 to 13"):
        raise_opset(model, 13)


def test_the_format_is_as_new_as_the_operators_need(parse) -> None:
    model = parse("g (float[2] x) => (float y) { y = Neg(x) }", opset=17)
    raise_opset(model, 25)
    assert model.header.ir_version == 13
