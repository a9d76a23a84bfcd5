import numpy as np
import pytest

from onnxpress.rewriter.couplings import Group, find_couplings
from onnxpress.rewriter.model import Model


def f32(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def free(model: Model) -> list[Group]:
    return [group for group in find_couplings(model).groups if group.frozen is None]


def roles(group: Group) -> list[tuple[str, int, str]]:
    return [(m.tensor.name, m.axis, m.role) for m in group.members if m.role != "activation"]


def test_members_tell_what_the_axis_means_to_the_weight(parse) -> None:
    model = parse(
        "g (float[1,3,4,4] x) => (float[1,2,4,4] y) { h = Conv(x, w, b) r = PRelu(h, s) y = Conv(r, last) }",
        w=f32(6, 3, 1, 1),
        b=f32(6),
        s=f32(6, 1, 1),
        last=f32(2, 6, 1, 1),
    )
    (group,) = free(model)
    assert (group.name, group.kind, group.size) == ("w", "channels", 6)
    assert roles(group) == [("w", 0, "out"), ("b", 0, "parameter"), ("s", 0, "parameter"), ("last", 1, "in")]
    assert [m.indices.tolist() for m in group.members] == [[[u] for u in range(6)]] * len(group.members)
    assert {m.indices.dtype for m in group.members} == {np.dtype(np.int64)}
    assert {m.size for m in group.members} == {6}


def test_a_residual_stream_is_one_group(parse) -> None:
    model = parse(
        "g (float[2,4] x) => (float[2,3] y) { a = MatMul(x, w) f = MatMul(a, up) r = Relu(f) d = MatMul(r, down) "
        "s = Add(a, d) y = MatMul(s, last) }",
        w=f32(4, 6),
        up=f32(6, 9),
        down=f32(9, 6),
        last=f32(6, 3),
    )
    stream, inner = free(model)
    assert roles(stream) == [("w", 1, "out"), ("up", 0, "in"), ("down", 1, "out"), ("last", 0, "in")]
    assert roles(inner) == [("up", 1, "out"), ("down", 0, "in")]
    assert (stream.kind, inner.kind) == ("neurons", "neurons")


def test_units_that_touch_other_axes_are_groups_of_their_own(parse, remove_exactly) -> None:
    model = parse(
        "g (float[2,4] x) => (float[2,3] y) { h = MatMul(x, w) p, q = Split<axis=1>(h, sizes) "
        "u = MatMul(p, first) v = MatMul(q, second) y = Add(u, v) }",
        w=f32(4, 7),
        sizes=np.array([3, 4]),
        first=f32(3, 3),
        second=f32(4, 3),
    )
    left, right = free(model)
    assert (left.name, left.size, right.name, right.size) == ("w", 3, "w_1", 4)
    assert right.members[0].indices.reshape(-1).tolist() == [3, 4, 5, 6]
    remove_exactly(model, {left: np.array([2]), right: np.array([0, 1, 2])}, x=f32(2, 4))


def test_a_channel_that_is_flattened_takes_all_its_pixels_along(parse, thin_sizes) -> None:
    model = parse(
        "g (float[1,3,2,2] x) => (float[1,5] y) { h = Conv(x, w) f = Flatten(h) y = Gemm(f, last) }",
        w=f32(6, 3, 1, 1),
        last=f32(24, 5),
    )
    (group,) = free(model)
    member = next(m for m in group.members if m.role == "in")
    assert member.indices.tolist() == np.arange(24).reshape(6, 4).tolist()
    assert thin_sizes(model, x=f32(1, 3, 2, 2)) == {"w": 6}


@pytest.mark.parametrize(("halves", "kind"), [("a, b = Split<axis=-1>(h, sizes) r = Mul(a, b)", "neurons")])
def test_the_two_halves_of_a_gated_unit_are_one_neuron(parse, halves: str, kind: str) -> None:
    model = parse(
        f"g (float[2,4] x) => (float[2,3] y) {{ h = MatMul(x, w) {halves} y = MatMul(r, last) }}",
        w=f32(4, 12),
        sizes=np.array([6, 6]),
        last=f32(6, 3),
    )
    (group,) = free(model)
    assert (group.kind, group.size, group.members[0].indices.tolist()[1]) == (kind, 6, [1, 7])


def test_neighbouring_features_that_go_together_are_heads(parse) -> None:
    model = parse(
        "g (float[2,5,4] x) => (float[2,5,3] y) { h = MatMul(x, w) r = Reshape(h, split) s = Softmax<axis=3>(r) "
        "f = Reshape(s, join) y = MatMul(f, last) }",
        w=f32(4, 12),
        split=np.array([0, 0, 3, 4]),
        join=np.array([0, 0, 12]),
        last=f32(12, 3),
    )
    (group,) = free(model)
    assert (group.kind, group.size) == ("heads", 3)


def test_tells_where_two_activations_are_summed_over_the_units(parse, thin_sizes) -> None:
    model = parse(
        "g (float[2,5,4] x) => (float[2,5,3] y) { q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) "
        "t = Transpose<perm=[0,2,1]>(k) s = MatMul(q, t) p = Softmax<axis=2>(s) c = MatMul(p, v) y = MatMul(c, last) }",
        wq=f32(4, 6),
        wk=f32(4, 6),
        wv=f32(4, 6),
        last=f32(6, 3),
    )
    assert {group.name: group.multiplied for group in free(model)} == {"wq": True, "wv": False}
    assert thin_sizes(model, x=f32(2, 5, 4)) == {"wq": 6, "wv": 6}


def test_a_shared_weight_is_one_member(parse, thin_sizes) -> None:
    model = parse(
        "g (float[2,4] x) => (float[2,3] y) "
        "{ a = MatMul(x, w) r = Relu(a) b = MatMul(r, mid) s = Relu(b) c = MatMul(s, mid) y = MatMul(c, last) }",
        w=f32(4, 6),
        mid=f32(6, 6),
        last=f32(6, 3),
    )
    (group,) = free(model)
    assert roles(group) == [("w", 1, "out"), ("mid", 0, "in"), ("mid", 1, "out"), ("last", 0, "in")]
    assert thin_sizes(model, x=f32(2, 4)) == {"w": 6}


def test_an_embedding_loses_features_but_no_rows(parse, thin_sizes) -> None:
    model = parse(
        "g (int64[2,5] x) => (float[2,5,3] y) { h = Gather(w, x) y = MatMul(h, last) }", w=f32(9, 6), last=f32(6, 3)
    )
    groups = find_couplings(model).groups
    assert [(g.name, g.size, g.frozen is None) for g in groups] == [
        ("last", 3, False),
        ("w:0", 9, False),
        ("w", 6, True),
    ]
    assert thin_sizes(model, x=np.arange(10).reshape(2, 5) % 9) == {"w": 6}


def test_a_table_read_both_ways_keeps_its_rows_where_they_come_out(parse, thin_sizes) -> None:
    model = parse(
        "g (int64[2,5] x) => (float[2,5,9] y) "
        "{ h = Gather(w, x) r = Relu(h) t = Transpose<perm=[1,0]>(w) y = MatMul(r, t) }",
        w=f32(9, 6),
    )
    assert thin_sizes(model, x=np.arange(10).reshape(2, 5) % 9) == {"w": 6}


def test_a_single_unit_stays(parse) -> None:
    model = parse(
        "g (float[2,4] x) => (float[2,3] y) { h = MatMul(x, w) y = MatMul(h, last) }", w=f32(4, 1), last=f32(1, 3)
    )
    assert find_couplings(model).by_name("w").frozen == "it is a single unit: nothing would be left"


def test_some_frozen_elements_leave_the_others_free(parse, thin_sizes) -> None:
    model = parse(
        "g (float[2,4] x) => (float[2,3] y, float[2,2] z) "
        "{ h = MatMul(x, w) z, q = Split<axis=1>(h, sizes) y = MatMul(h, last) }",
        w=f32(4, 7),
        sizes=np.array([2, 5]),
        last=f32(7, 3),
    )
    sizes = {(g.size, g.frozen) for g in find_couplings(model).groups if g.name.startswith("w")}
    assert sizes == {(2, "'z' is an output of the model"), (5, None)}
    thin_sizes(model, x=f32(2, 4))


def test_an_element_that_is_picked_by_number_stays_alone(parse, thin_sizes) -> None:
    model = parse(
        "g (float[2,4] x) => (float[2,3] y, float[2] z) "
        "{ h = MatMul(x, w) z = Gather<axis=1>(h, two) y = MatMul(h, last) }",
        w=f32(4, 7),
        two=np.array(2),
        last=f32(7, 3),
    )
    one, others = [group for group in find_couplings(model).groups if group.name.startswith("w")][::-1]
    assert (one.members[0].indices.tolist(), others.size) == ([[2]], 6)
    assert ("picks one" in str(one.frozen), others.frozen) == (True, None)
    thin_sizes(model, x=f32(2, 4))


def test_units_that_are_repeated_are_not_like_those_that_are_not(parse, thin_sizes) -> None:
    model = parse(
        "g (float[2,4] x) => (float[2,3] y) { h = MatMul(x, w) r = Gather<axis=1>(h, rows) y = MatMul(r, last) }",
        w=f32(4, 6),
        rows=np.array([0, 3, 0, 1, 3, 2]),
        last=f32(6, 3),
    )
    # the columns 4 and 5 are read by nobody
    touched = sorted(
        member.indices.tolist() for g in free(model) for member in g.members if member.tensor.name == "last"
    )
    assert touched == [[[0, 2], [1, 4]], [[3], [5]]]
    assert sorted(thin_sizes(model, x=f32(2, 4)).values()) == [2, 2, 2]


def test_elements_that_are_put_around_others_leave_those_free(parse, thin_sizes) -> None:
    model = parse(
        "g (float[2,4] x) => (float[2,3] y) { h = MatMul(x, w) r = Pad(h, widths) y = MatMul(r, last) }",
        w=f32(4, 6),
        widths=np.array([0, 1, 0, 2]),
        last=f32(9, 3),
    )
    assert thin_sizes(model, x=f32(2, 4)) == {"w": 6}
    assert next(t.shape for t in model.constants() if t.name == "last") == (6, 3)


def test_names_come_from_nodes_that_have_one(parse) -> None:
    model = parse(
        "g (float[2,4] x) => (float[2,3] y) { h = MatMul(x, w) y = MatMul(h, last) }", w=f32(4, 6), last=f32(6, 3)
    )
    model.graph.nodes[0].name = "encoder/up"
    assert [group.name for group in free(model)] == ["encoder/up"]


def test_two_weights_in_turns_share_their_dimensions_through_all_layers(parse) -> None:
    count = 100
    body = " ".join(f"h{i + 1} = MatMul(h{i}, w{i % 2})" for i in range(count))
    model = parse(f"g (float[2,6] h0) => (float[2,6] h{count}) {{ {body} }}", w0=f32(6, 8), w1=f32(8, 6))
    (group,) = free(model)
    assert (group.size, roles(group)) == (8, [("w0", 1, "out"), ("w1", 0, "in")])
    assert len(group.members) == 2 + count // 2


def test_weights_of_no_layer_are_told_of(parse) -> None:
    """Those that are summed over by all their axes; the heads and their features lie on axes of no site."""
    model = parse(
        'g (float[2,6,16] x) => (float[2,6,16] y) { h = Einsum<equation="btd,dhe->bhte">(x, w) '
        'o = Einsum<equation="bhte,hed->btd">(h, v) y = MatMul(o, last) }',
        w=f32(16, 4, 8),
        v=f32(4, 8, 16),
        last=f32(16, 16),
    )
    found = {group.name: group for group in find_couplings(model).groups}
    reason = "no layer that passes know makes or reads them: 'w' is a constant of Einsum 'h'"
    assert (found["w:1"].size, found["w:1"].frozen) == (4, reason)
    assert (found["w:2"].size, found["w:2"].frozen) == (8, reason)
    assert roles(found["w:1"]) == [("w", 1, "parameter"), ("v", 0, "parameter")]
    assert roles(next(group for group in found.values() if group.frozen is None)) == [
        ("v", 2, "parameter"),
        ("last", 0, "in"),
    ]


@pytest.mark.parametrize(("table", "told"), [(f32(8, 8), True), (f32(7, 8), False), (f32(64), False)])
def test_tables_that_are_in_no_group_are_told_of(parse, table: np.ndarray, told: bool) -> None:
    model = parse(
        "g (float[2,4] x) => (float[2,3] y, float[R] z) "
        "{ y = MatMul(x, w) s = Softmax(t) z = ReduceSum<keepdims=0>(s) }",
        w=f32(4, 3),
        t=table,
    )
    frozen = [g.frozen for g in find_couplings(model).groups if any(m.tensor.name == "t" for m in g.members)]
    assert bool(frozen) == told
    assert None not in frozen


def test_what_sites_have_in_their_groups_is_not_told_of_twice(parse) -> None:
    model = parse(
        "g (float[1,8,4] x) => (float[1,8,2] y) { h = MatMul(x, w) t = Add(h, places) y = MatMul(t, last) }",
        w=f32(4, 16),
        places=f32(8, 16),
        last=f32(16, 2),
    )
    assert [g.name for g in find_couplings(model).groups if any(m.tensor.name == "places" for m in g.members)] == ["w"]
