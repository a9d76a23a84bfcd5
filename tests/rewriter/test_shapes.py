import numpy as np

from onnxpress.rewriter.shapes import infer_shapes


def test_knows_what_can_be_known(parse) -> None:
    model = parse(
        "g (float[n,4] x) => (y) { a = MatMul(x, w) y = Transpose<perm=[1,0]>(a) }", w=np.ones((4, 300), np.float32)
    )
    shapes = infer_shapes(model)
    a, y = (node.outputs[0] for node in model.graph.nodes)
    assert (shapes.shape(a), shapes.shape(y)) == (("n", 300), (300, "n"))
    assert shapes.static(a) is None
    assert shapes.dtype(a) == np.float32


def test_reaches_into_branches(parse) -> None:
    model = parse(
        "g (float[3,4] x, bool c) => (y) { y = If (c) "
        "<then_branch = t () => (b) { b = Neg(x) }, else_branch = e () => (d) { d = Abs(x) }> }"
    )
    shapes = infer_shapes(model)
    inner = model.graph.nodes[0].attrs["then_branch"].nodes[0].outputs[0]
    assert shapes.static(inner) == (3, 4)


def test_never_fails(parse, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = parse("g (float[3,4] x) => (y) { a = MatMul(x, w) y = Odd(a) }", w=np.ones((7, 7), np.float32))
    shapes = infer_shapes(model)
    assert shapes.shape(model.graph.nodes[1].outputs[0]) is None
    assert not list(tmp_path.iterdir())  # nor does it leave anything behind


def test_does_not_believe_equal_parts_of_a_computed_split(parse) -> None:
    model = parse("g (float[2,8] x, int64[2] s) => (a, b) { a, b = Split<axis=1>(x, s) }")
    assert infer_shapes(model).static(model.graph.nodes[0].outputs[0]) is None


def test_an_unnamed_size_is_unknown(parse) -> None:
    model = parse("g (float[3,4] x) => (y) { y = Neg(x) }")
    for value in ("?", ""):
        proto = model.to_proto()
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = value
        assert type(model).from_proto(proto).inputs[0].shape == (None, 4)
