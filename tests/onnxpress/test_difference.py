"""Where two graphs differ."""

import onnx
import onnx.parser
import pytest

from onnxpress.difference import between, compare, steps
from onnxpress.passes.report import Report

HEAD = '<ir_version: 8, opset_import: ["": 17]>'
BEFORE = """g (float[3] x) => (float[3] y)
<float[12] w = {1,2,3,4,5,6,7,8,9,10,11,12}, int64[2] s = {3, 4}> {
    a = Relu(x) b = Neg(a) v = Reshape(w, s) i = Identity(b) c = Exp(i) d = Abs(c) e = Neg(d) y = Abs(e) }"""


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
