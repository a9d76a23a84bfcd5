"""Where two graphs differ."""

import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper

from onnxpress.difference import between, compare
from onnxpress.passes.report import Report
from onnxpress.passes.strip import Strip
from onnxpress.rewriter.model import Model
from onnxpress.steps import steps

HEAD = '<ir_version: 8, opset_import: ["": 17]>'
BEFORE = """g (float[3] x) => (float[3] y)
<float[12] w = {1,2,3,4,5,6,7,8,9,10,11,12}, int64[2] s = {3, 4}> {
    a = Relu(x) b = Neg(a) v = Reshape(w, s) i = Identity(b) c = Exp(i) d = Abs(c) e = Neg(d) y = Abs(e) }"""
CHAIN = "a = Relu(x) c = Neg(a) d = Exp(c) e = Abs(d) f = Cos(e) y = Sin(f)"
HEADS = """q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) t = Transpose(k)
    s = MatMul(q, t) p = Softmax <axis = -1> (s) y = MatMul(p, v)"""
SQUARES = "<" + ", ".join(f"float[3,3] w{k} = {{{','.join('123456789')}}}" for k in "qkv") + ">"
BRANCH = """a = Relu(x) b = Neg(a) c = Not(n)
    y = If (c) <then_branch = t () => (float[3,3] p) { i = Neg(b) p = Abs(i) },
                else_branch = e () => (float[3,3] q) { q = Exp(b) }>"""


def written(folder, name, text):
    path = folder / f"{name}.onnx"
    onnx.save(onnx.parser.parse_model(f"{HEAD} {text}"), path)
    return path


@pytest.fixture
def compared(tmp_path):
    def compared(first, second, **options):
        return compare(written(tmp_path, "before", first), written(tmp_path, "after", second), **options)

    return compared


def ops(graph, numbers):
    return [graph[k].op for k in numbers]


def told(found):
    return [(ops(found.before, each.before), ops(found.after, each.after)) for each in found.places]


def test_equal_graphs_do_not_differ(compared):
    found = compared(BEFORE, BEFORE)
    assert (found.places, found.kinds) == ((), ())
    assert len(found.before) == 7  # the Reshape makes a weight


def test_cuts_at_tensors_that_both_have(compared):
    found = compared(BEFORE, BEFORE.replace("i = Identity(b) c = Exp(i)", "c = Exp(b)"))
    assert told(found) == [(["Identity", "Exp"], ["Exp"])]


def test_nodes_put_in_between_belong_to_their_place(compared):
    found = compared(BEFORE, BEFORE.replace("e = Neg(d)", "q = Floor(d) r = Ceil(q) e = Neg(r)"))
    assert told(found) == [(["Neg"], ["Floor", "Ceil", "Neg"])]


def test_the_same_change_at_several_places_is_one_kind(compared):
    changed = BEFORE.replace("b = Neg(a)", "b = Sin(a)").replace("e = Neg(d)", "e = Sin(d)")
    found = compared(BEFORE, changed.replace("d = Abs(c)", "d = Cos(c)"))
    assert [len(each) for each in found.kinds] == [2, 1]


def test_new_names_alone_are_no_change_but_a_place(compared):
    found = compared(BEFORE, BEFORE.replace("d = Abs(c) e = Neg(d)", "d2 = Abs(c) e = Neg(d2)"))
    assert told(found) == [(["Abs", "Neg"], ["Abs", "Neg"])]


def test_nodes_whose_weights_changed_are_named_by_the_caller(compared):
    with_weight = BEFORE.replace("e = Neg(d)", "e = Mul(d, v)")
    found = compared(with_weight, with_weight, sites={"e"})
    assert told(found) == [(["Mul"], ["Mul"])]


def test_what_reports_call_changed_has_changed(tmp_path):
    path = written(tmp_path, "same", BEFORE.replace("e = Neg(d)", "e = Mul(d, v)"))
    report = Report("halve")
    report.change("e", "halved")
    assert told(between(path, path, [report])) == [(["Mul"], ["Mul"])]
    assert told(between(path, path, [])) == []


def test_small_values_are_compared(compared):
    text = "g (float[3] x) => (float[3] y) <float c = {1}> { y = Mul(x, c) }"
    assert told(compared(text, text.replace("{1}", "{2}"))) == [(["Mul"], ["Mul"])]


def test_texts_are_compared(compared):
    text = 'g (string[3] x) => (bool[3] y) <string[1] c = {"some words"}> { y = Equal(x, c) }'
    assert told(compared(text, text)) == []
    assert told(compared(text, text.replace("some", "more"))) == [(["Equal"], ["Equal"])]


def test_numbers_in_attributes_of_constants_are_compared(compared):
    text = "g (float[3] x) => (float[3] y) { c = Constant <value_float = 1.0> () y = Mul(x, c) }"
    assert told(compared(text, text)) == []
    assert told(compared(text, text.replace("1.0", "2.0"))) == [(["Mul"], ["Mul"])]


def test_how_a_weight_is_made_is_compared(compared):
    text = BEFORE.replace("Reshape(w, s)", "Transpose <perm = [0]> (w)").replace("e = Neg(d)", "e = Mul(d, v)")
    assert told(compared(text, text)) == []
    assert told(compared(text, text.replace("Transpose <perm = [0]>", "Abs"))) == [(["Mul"], ["Mul"])]
    assert told(compared(text, text.replace("perm = [0]", "perm = [-1]"))) == [(["Mul"], ["Mul"])]


def test_sparse_weights_are_weights():
    graph = onnx.parser.parse_model(f"{HEAD} g (float[3] x) => (float[4] y) {{ y = MatMul(x, w) }}").graph
    values, places = (
        helper.make_tensor(name, kind, [1], [5]) for name, kind in (("w", TensorProto.FLOAT), ("p", TensorProto.INT64))
    )
    graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [3, 4]))
    (step,) = steps(graph)
    assert (step.reads, step.weights) == (("x",), ("float 3×4, sparse",))


def test_attributes_are_compared(compared):
    text = "g (float[3] x) => (float[3] y) { y = Elu <alpha = 1.0> (x) }"
    assert told(compared(text, text.replace("1.0", "2.0"))) == [(["Elu"], ["Elu"])]


def test_tells_what_weights_are_made_of():
    text = BEFORE.replace("e = Neg(d)", "e = Mul(d, v)")
    found = steps(onnx.parser.parse_model(f"{HEAD} {text}").graph)
    assert next(each for each in found if each.op == "Mul").weights == ("float 12, Reshape",)


def test_branches_read_from_around_them():
    text = """g (bool c, float[3] x) => (float[3] y) { a = Relu(x)
        y = If (c) <then_branch = t () => (float[3] p) { p = Neg(a) },
                    else_branch = e () => (float[3] q) { r = Neg(a) q = Abs(r) }> }"""
    found = steps(onnx.parser.parse_model(f"{HEAD} {text}").graph)
    assert found[1].reads == ("c", "a")


@pytest.fixture
def stripped(tmp_path):
    """Compares a graph with what another one is once its names are short; says which operators stand at each place."""

    def compared(before, after=None, weights="", more=""):
        paths = [tmp_path / name for name in ("before.onnx", "long.onnx")]
        for path, body in zip(paths, (before, after or before), strict=True):
            text = f"{HEAD} g (float[3,3] x{more}) => (float[3,3] y) {weights} {{ {body} }}"
            onnx.save(onnx.parser.parse_model(text), path)
        result = Strip()(Model.load(paths[1]))
        result.model.save(tmp_path / "short.onnx")
        found = between(paths[0], tmp_path / "short.onnx", [result.report])
        return [tuple([graph[k].op for k in side] for graph, side in sides(found, each)) for each in found.places]

    return compared


def sides(found, place):
    return (found.before, place.before), (found.after, place.after)


@pytest.mark.parametrize(
    ("body", "others"), [(CHAIN, {}), (HEADS, {"weights": SQUARES}), (BRANCH, {"more": ", bool n"})]
)
def test_short_names_alone_are_no_change(stripped, body, others):
    assert stripped(body, **others) == []


def test_changes_are_found_behind_short_names(stripped):
    assert stripped(CHAIN, CHAIN.replace("e = Abs(d)", "g = Floor(d) e = Ceil(g)")) == [(["Abs"], ["Floor", "Ceil"])]
    assert stripped(CHAIN, CHAIN.replace("c = Neg(a) d = Exp(c)", "d = Exp(a)")) == [(["Neg", "Exp"], ["Exp"])]


def test_nodes_that_read_the_same_are_told_apart_behind_short_names(stripped):
    assert stripped(HEADS, HEADS.replace("t = Transpose(k)", "u = Abs(k) t = Transpose(u)"), weights=SQUARES) == [
        (["Transpose"], ["Abs", "Transpose"])
    ]


def test_attributes_that_state_a_default_are_no_change(stripped):
    body = "a = Elu <alpha = 1.0> (x) y = Elu <alpha = 2.0> (a)"
    assert stripped(body) == []
    assert stripped(body, body.replace("2.0", "3.0")) == [(["Elu"], ["Elu"])]


def test_names_that_changed_twice_are_followed(tmp_path):
    path, short = written(tmp_path, "before", f"g (float[3] x) => (float[3] y) {{ {CHAIN} }}"), tmp_path / "short.onnx"
    first = Strip()(Model.load(path))
    first.model.save(short)
    again = Report("again", renamed={"first": "a"})
    model = onnx.load(short)
    for node in model.graph.node:
        for side in (node.input, node.output):
            side[:] = ["first" if each == "a" else each for each in side]
    onnx.save(model, short)
    found = between(path, short, [first.report, again])
    assert found.places == ()
    assert [each.name for each in found.after] == [each.name for each in found.before]
    assert between(path, short, [first.report]).places
