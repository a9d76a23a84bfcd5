import numpy as np
import onnx
import pytest
from onnx import helper

from onnxpress.rewriter.couplings import find_couplings, remove_units
from onnxpress.rewriter.couplings import removal as module
from onnxpress.rewriter.couplings.removal import slice_values
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.weights import Dense, Inline, Produced, values_of


def f32(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def shapes(model: Model) -> dict[str, tuple[int, ...]]:
    return {constant.name: constant.shape for constant in model.constants()}


def test_takes_the_same_elements_from_every_constant(model: Model) -> None:
    before = {constant.name: model.array(constant).copy() for constant in model.constants()}
    remove_units(model, {find_couplings(model).by_name("w"): np.array([4, 0, 4])})
    left = [1, 2, 3, 5]
    after = {constant.name: model.array(constant) for constant in model.constants()}
    np.testing.assert_array_equal(after["w"], before["w"][:, left])
    np.testing.assert_array_equal(after["b"], before["b"][left])
    np.testing.assert_array_equal(after["last"], before["last"][left])


def test_leaves_a_clone_as_it_was(model: Model) -> None:
    clone = model.clone()
    remove_units(model, {find_couplings(model).by_name("w"): np.array([0])})
    assert shapes(clone)["w"] == (4, 6)
    assert shapes(model)["w"] == (4, 5)


def test_corrects_what_is_declared_of_inner_tensors_alone(model: Model) -> None:
    remove_units(model, {find_couplings(model).by_name("w"): np.array([0])})
    proto = model.to_proto()
    declared = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in proto.graph.value_info}
    assert declared == {"h": [2, 5], "r": [2, 5]}
    ends = [*proto.graph.input, *proto.graph.output]
    assert [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in ends] == [[2, 4], [2, 3]]


def test_a_declared_name_becomes_the_size_that_is_left(model: Model) -> None:
    hidden = model.graph.nodes[1].outputs[0]
    hidden.shape = [2, "width"]
    remove_units(model, {find_couplings(model).by_name("w"): np.array([0])})
    assert hidden.shape == [2, 5]


def test_forgets_what_was_declared_of_a_constant() -> None:
    text = (
        '<ir_version: 8, opset_import: ["": 17]> g (float[2,4] x) => (float[2,3] y) '
        "<float[4,6] w> { h = MatMul(x, w) y = MatMul(h, last) }"
    )
    proto = onnx.parser.parse_model(text)
    for name, array in (("w", f32(4, 6)), ("last", f32(6, 3))):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = Model.from_proto(proto)
    remove_units(model, {find_couplings(model).by_name("w"): np.array([0])})
    assert [value.name for value in model.to_proto().graph.value_info if value.name == "w"] == []


def test_several_groups_may_lie_on_one_axis(parse, remove_exactly) -> None:
    model = parse(
        "g (float[2,4] x) => (float[2,3] y) "
        "{ a = MatMul(x, u) b = MatMul(x, v) c = Concat<axis=1>(a, b) y = MatMul(c, last) }",
        u=f32(4, 3),
        v=f32(4, 5),
        last=f32(8, 3),
    )
    found = find_couplings(model)
    remove_exactly(model, {found.by_name("u"): np.array([0]), found.by_name("v"): np.array([1, 4])}, x=f32(2, 4))
    assert shapes(model) == {"u": (4, 2), "v": (4, 3), "last": (5, 3)}


def test_nothing_chosen_changes_nothing(model: Model) -> None:
    before = model.to_proto().SerializeToString()
    remove_units(model, {})
    remove_units(model, {find_couplings(model).by_name("w"): np.array([])})
    assert model.to_proto().SerializeToString() == before


@pytest.mark.parametrize(
    ("name", "units", "text"),
    [
        ("last", [0], "no unit of 'last' can go: 'y' is an output of the model"),
        ("w", [0, 1, 2, 3, 4, 5], "all 6 units of 'w' would go: keep at least one"),
        ("w", [6], r"'w' has 6 units, numbered from 0: \[6\] are not all of them"),
        ("w", [-1], "numbered from 0"),
        ("w", [True, False], "numbered from 0"),
        ("w", [0.5], "numbered from 0"),
    ],
)
def test_refuses_and_leaves_the_model(model: Model, name: str, units: list, text: str) -> None:
    before = model.to_proto().SerializeToString()
    with pytest.raises(ModelError, match=text):
        remove_units(model, {find_couplings(model).by_name(name): np.array(units)})
    assert model.to_proto().SerializeToString() == before


def test_refuses_groups_of_another_model(model: Model) -> None:
    group = find_couplings(model.clone()).by_name("w")
    with pytest.raises(ModelError, match="'w' does not fit the model any more: find its couplings again"):
        remove_units(model, {group: np.array([0])})


def test_refuses_groups_that_are_worn_out(model: Model) -> None:
    group = find_couplings(model).by_name("w")
    remove_units(model, {group: np.array([0])})
    with pytest.raises(ModelError, match="find its couplings again"):
        remove_units(model, {group: np.array([0])})


def test_large_weights_on_disk_are_sliced_when_they_are_read(tmp_path, monkeypatch, run) -> None:
    monkeypatch.setattr(module, "LAZY", 4000)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "last"], ["y"])]
    w, last = f32(40, 60), f32(60, 3)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, [2, 40])],
        [helper.make_tensor_value_info("y", 1, [2, 3])],
        [onnx.numpy_helper.from_array(w, "w"), onnx.numpy_helper.from_array(last, "last")],
    )
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "a.onnx")
    model = Model.load(tmp_path / "a.onnx")
    remove_units(model, {find_couplings(model).by_name("w"): np.arange(0, 60, 3)})
    kept = [index for index in range(60) if index % 3]
    held = {constant.name: values_of(constant) for constant in model.constants()}
    assert isinstance(held["w"], Produced)
    assert isinstance(held["last"], Dense)
    np.testing.assert_array_equal(held["w"].load(), w[:, kept])
    model.save(tmp_path / "b.onnx")
    x = f32(2, 40)
    # float32 sums of 40 terms
    np.testing.assert_allclose(
        run(Model.load(tmp_path / "b.onnx"), x=x)[0], x @ w[:, kept] @ last[kept], rtol=1e-4, atol=1e-4
    )


def test_an_array_in_memory_is_sliced_at_once(monkeypatch) -> None:
    monkeypatch.setattr(module, "LAZY", 1)
    assert isinstance(slice_values(Dense(f32(4, 6)), {1: np.array([0, 2])}), Dense)


def test_slices_packed_integers_and_text() -> None:
    int4 = helper.make_tensor("q", onnx.TensorProto.INT4, [4], [1, -2, 3, -4])
    sliced = slice_values(Inline(int4), {0: np.array([1, 3])})
    assert (sliced.element_type, sliced.load().astype(int).tolist()) == (onnx.TensorProto.INT4, [-2, -4])
    words = onnx.numpy_helper.from_array(np.array(["a", "b", "c"], object), "s")
    assert slice_values(Inline(words), {0: np.array([0, 2])}).shape == (2,)
