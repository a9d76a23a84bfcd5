"""Cutting up, putting together, picking."""

import numpy as np
import pytest


def rows(group, *names):
    return [
        next(m for m in group.members if m.tensor.name == name and m.role == "in").indices.tolist() for name in names
    ]


@pytest.mark.parametrize(
    ("opset", "node"),
    [
        (11, "p, q = Split <axis = 1, split = [4, 2]> (c)"),
        (17, "p, q = Split <axis = 1> (c, sizes)"),
        (18, "p, q = Split <axis = -2> (c, sizes)"),
    ],
)
def test_parts_of_a_split_keep_their_own_channels(parse, thin, draw, opset, node):
    model = parse(
        f"g (float[N, 3, 4] x) => (float[N, 5, 4] y, float[N, 5, 4] z) {{ c = Conv (x, w) {node} "
        "y = Conv (p, v) z = Conv (q, u) }",
        opset=opset,
        w=draw(6, 3, 1),
        v=draw(5, 4, 1),
        u=draw(5, 2, 1),
        sizes=np.array([4, 2]),
    )
    free = [group for group in thin(model, x=draw(2, 3, 4)).values() if group.frozen is None]
    assert [group.size for group in free] == [4, 2]


@pytest.mark.parametrize(("opset", "attribute"), [(11, ""), (17, ""), (18, ", num_outputs = 2")])
def test_equal_parts_need_not_stay_equal(parse, thin, draw, opset, attribute):
    model = parse(
        f"g (float[N, 3, 4] x) => (float[N, 5, 4] y, float[N, 3, 4] z) {{ c = Conv (x, w) "
        f"p, q = Split <axis = 1{attribute}> (c) y = Conv (p, v) z = Add (q, x) }}",
        opset=opset,
        w=draw(6, 3, 1),
        v=draw(5, 3, 1),
    )
    found = thin(model, x=draw(2, 3, 4))
    assert [group.size for group in found.values() if group.frozen is None] == [3]


def test_halves_that_are_multiplied_go_together(parse, thin, draw):
    model = parse(
        "g (float[N, 4] x) => (float[N, 5] y) { h = MatMul (x, w) p, q = Split <axis = -1> (h) s = Sigmoid (q) "
        "m = Mul (p, s) y = MatMul (m, v) }",
        w=draw(4, 6),
        v=draw(3, 5),
    )
    gated = next(g for g in thin(model, x=draw(2, 4)).values() if g.frozen is None)
    assert gated.kind == "neurons"
    assert next(m for m in gated.members if m.tensor.name == "w").indices.tolist() == [[0, 3], [1, 4], [2, 5]]


def test_joined_parts_keep_their_offsets(parse, thin, draw):
    model = parse(
        "g (float[N, 3, 4] x) => (float[N, 5, 4] y) { c = Conv (x, w) d = Conv (x, u) "
        "j = Concat <axis = -2> (c, x, d) y = Conv (j, v) }",
        w=draw(2, 3, 1),
        u=draw(4, 3, 1),
        v=draw(5, 9, 1),
    )
    free = [group for group in thin(model, x=draw(2, 3, 4)).values() if group.frozen is None]
    assert [rows(group, "v") for group in free] == [[[[0], [1]]], [[[5], [6], [7], [8]]]]


@pytest.mark.parametrize(
    ("opset", "node"),
    [
        (9, "p = Slice <axes = [1], starts = [1], ends = [5]> (c)"),
        (17, "p = Slice (c, a, b, axes)"),
        (17, "p = Slice (c, a, far, axes, step)"),
    ],
)
def test_what_a_slice_leaves_out_may_go_too(parse, thin, draw, opset, node):
    model = parse(
        f"g (float[N, 3, 4] x) => (float[N, 7, 4] y, float[N, 7, 4] z) {{ c = Conv (x, w) {node} "
        "y = Conv (p, v) z = Conv (c, u) }",
        opset=opset,
        w=draw(6, 3, 1),
        v=draw(7, 5 if "far" in node else 4, 1),
        u=draw(7, 6, 1),
        a=np.array([-5]),
        b=np.array([5]),
        far=np.array([2**62]),
        axes=np.array([-2]),
        step=np.array([1]),
    )
    found = [g for g in thin(model, x=draw(2, 3, 4)).values() if g.frozen is None]
    # a unit that is like no other one has nothing to be left of
    assert [group.size for group in found] == ([5] if "far" in node else [2, 4])


@pytest.mark.parametrize(
    ("bounds", "step", "sizes"),
    [
        ((0, 6), 2, [3]),
        ((1, 6), 2, [3]),  # the first one picked is not the first of its neighbours
        ((1, 2**62), 3, [2]),
        ((-5, 5), 2, [2]),  # the last neighbours stand behind the end, and would leave none of their kind
        ((2, 4), 5, [5]),  # one is picked: no other must stand at a distance from it
    ],
)
def test_neighbours_go_together_where_every_nth_is_picked(parse, thin, draw, bounds, step, sizes):
    picked = len(range(6)[slice(*bounds, step)])
    model = parse(
        "g (float[N, 3, 4] x) => (float[N, 5, 4] y, float[N, 5, 4] z) "
        "{ c = Conv (x, w) p = Slice (c, a, b, axes, step) y = Conv (p, v) z = Conv (c, u) }",
        w=draw(6, 3, 1),
        v=draw(5, picked, 1),
        u=draw(5, 6, 1),
        a=np.array(bounds[:1]),
        b=np.array(bounds[1:]),
        axes=np.array([1]),
        step=np.array([step]),
    )
    free = [group for group in thin(model, x=draw(2, 3, 4)).values() if group.frozen is None]
    assert [group.size for group in free] == sizes


def test_interleaved_halves_go_in_pairs(parse, thin, draw):
    model = parse(
        "g (float[N, 4] x) => (float[N, 5] y) { h = MatMul (x, w) p = Slice (h, zero, far, one, two) "
        "q = Slice (h, one, far, one, two) n = Neg (q) j = Concat <axis = 1> (n, p) y = MatMul (j, v) }",
        w=draw(4, 8),
        v=draw(8, 5),
        zero=np.array([0]),
        one=np.array([1]),
        two=np.array([2]),
        far=np.array([2**62]),
    )
    pairs = next(g for g in thin(model, x=draw(2, 4)).values() if g.frozen is None)
    assert rows(pairs, "v") == [[[0, 4], [1, 5], [2, 6], [3, 7]]]


def test_backwards_is_said_to_freeze(parse, groups, draw):
    model = parse(
        "g (float[N, 3, 4] x) => (float[N, 5, 4] y) "
        "{ c = Conv (x, w) p = Slice (c, a, b, axes, step) y = Conv (p, v) }",
        w=draw(6, 3, 1),
        v=draw(5, 6, 1),
        a=np.array([-1]),
        b=np.array([-7]),
        axes=np.array([1]),
        step=np.array([-1]),
    )
    found = groups(model)
    assert found["w"].frozen == found["p:1"].frozen == "Slice 'p' goes through it backwards"


def test_bounds_that_are_computed_freeze_only_the_axis_they_cut(parse, groups, draw):
    model = parse(
        "g (float[N, 3, 4] x, int64[1] end) => (float[N, 5, M] y) "
        "{ c = Conv (x, w) p = Slice (c, a, end, axes) y = Conv (p, v) }",
        w=draw(6, 3, 1),
        v=draw(5, 6, 1),
        a=np.array([0]),
        axes=np.array([2]),
    )
    assert [group.size for group in groups(model).values() if group.frozen is None] == [6]


def test_constant_rows_are_counted_anew(parse, thin, draw):
    model = parse(
        "g (float[N, 3, 4] x) => (float[N, 5, 4] y) "
        "{ c = Conv (x, w) p = Gather <axis = 1> (c, picks) y = Conv (p, v) }",
        w=draw(6, 3, 1),
        v=draw(5, 4, 1),
        picks=np.array([5, 0, -2, 3]),
    )
    found = [g for g in thin(model, x=draw(2, 3, 4)).values() if g.frozen is None]
    assert rows(max(found, key=lambda g: len(g.members)), "v") == [[[1], [3], [2], [0]]]


def test_a_row_that_is_picked_alone_stays(parse, thin, draw):
    model = parse(
        "g (float[N, 3, 4] x) => (float[N, 4] y, float[N, 5, 4] z) "
        "{ c = Conv (x, w) y = Gather <axis = 1> (c, pick) z = Conv (c, v) }",
        w=draw(6, 3, 1),
        v=draw(5, 6, 1),
        pick=np.array(-2),
    )
    found = thin(model, x=draw(2, 3, 4))
    assert [g.size for g in found.values() if g.frozen is None] == [5]
    assert "Gather '' picks one from axis 1 of 'c'" in {
        g.frozen and g.frozen.replace("'y'", "''") for g in found.values()
    }


def test_features_of_an_embedding_go_but_not_its_rows(parse, thin, draw):
    model = parse(
        "g (int64[N, 4] ids) => (float[N, 4, 5] y) "
        "{ e = Gather (table, ids) p = Add (e, positions) y = MatMul (p, v) }",
        table=draw(9, 6),
        positions=draw(4, 6),
        v=draw(6, 5),
    )
    found = thin(model, ids=np.array([[0, 8, 3, 2]]))
    assert [g.size for g in found.values() if g.frozen is None] == [6]
    assert "Gather 'e' picks from axis 0 of 'table' by number" in {g.frozen for g in found.values()}


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ("p = GatherElements <axis = 1> (c, where)", "by number"),
        ("p = ScatterElements <axis = 1> (c, where, values)", "by number"),
        ("i = NonZero (c) f = Cast <to = 1> (i) one = ReduceSum (f) p = Mul (c, one)", "depends on values"),
        ("n = Size (c) f = Cast <to = 1> (n) p = Div (c, f)", "counts elements"),
    ],
)
def test_what_picks_by_number_or_value_freezes(parse, groups, draw, node, reason):
    model = parse(
        f"g (float[1, 3, 4] x) => (float[1, 5, 4] y) {{ c = Conv (x, w) {node} y = Conv (p, v) }}",
        w=draw(4, 3, 1),
        v=draw(5, 4, 1),
        where=np.zeros((1, 4, 4), np.int64),
        values=draw(1, 4, 4),
    )
    frozen = next(
        g.frozen for g in groups(model).values() if any(m.tensor.name == "w" and m.role == "out" for m in g.members)
    )
    assert reason in frozen
