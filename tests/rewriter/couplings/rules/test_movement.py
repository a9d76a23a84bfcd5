"""The same elements through other axes."""

import numpy as np
import pytest


@pytest.mark.parametrize(
    "tail",
    [
        "f = Flatten (r)",
        "f = Reshape (r, shape)",
        "s = Shape (r) n = Gather (s, zero) rest = Constant <value = int64[1] {-1}> () "
        "t = Concat <axis = 0> (n, rest) f = Reshape (r, t)",
        "s = Shape (r) n = Slice (s, zero, one) rest = Constant <value = int64[1] {48}> () "
        "t = Concat <axis = 0> (n, rest) f = Reshape (r, t)",
    ],
)
def test_a_channel_takes_its_pixels_along_when_flattened(parse, thin, draw, tail):
    model = parse(
        "g (float[N, 3, 4, 2] x) => (float[N, 5] y) "
        f"{{ c = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu (c) {tail} y = MatMul (f, v) }}",
        w=draw(6, 3, 3, 3),
        v=draw(48, 5),
        shape=np.array([0, 48]),
        zero=np.array([0]),
        one=np.array([1]),
    )
    found = thin(model, x=draw(2, 3, 4, 2))
    free = next(group for group in found.values() if group.frozen is None)
    assert free.size == 6
    assert next(m for m in free.members if m.tensor.name == "v").indices[2].tolist() == list(range(16, 24))


def test_a_shuffle_loses_the_same_channel_of_every_group(parse, thin, draw):
    model = parse(
        """g (float[N, 3, 4, 4] x) => (float[N, 5, 4, 4] y) {
            c = Conv (x, w) s = Reshape (c, split) t = Transpose <perm = [0, 2, 1, 3, 4]> (s)
            m = Reshape (t, merge) y = Conv (m, v)
        }""",
        w=draw(8, 3, 1, 1),
        v=draw(5, 8, 1, 1),
        split=np.array([0, 2, 4, 4, 4]),
        merge=np.array([0, -1, 4, 4]),
    )
    found = thin(model, x=draw(1, 3, 4, 4))
    shuffled = next(group for group in found.values() if group.frozen is None)
    rows = {m.tensor.name: m.indices.tolist() for m in shuffled.members if m.role in ("in", "out")}
    assert rows == {"w": [[0, 4], [1, 5], [2, 6], [3, 7]], "v": [[0, 1], [2, 3], [4, 5], [6, 7]]}


def test_positions_joined_with_channels_keep_the_channels(parse, thin, draw):
    model = parse(
        """g (float[N, 6, 3] x) => (float[N, 2, 5] y) {
            h = MatMul (x, w) r = Reshape (h, shape) y = MatMul (r, v)
        }""",
        w=draw(3, 4),
        v=draw(12, 5),
        shape=np.array([-1, 2, 12]),
    )
    found = thin(model, x=draw(2, 6, 3))
    free = next(group for group in found.values() if group.frozen is None)
    assert next(m for m in free.members if m.tensor.name == "v").indices.tolist() == [
        [i, i + 4, i + 8] for i in range(4)
    ]


def test_regrouping_without_common_factors_freezes(parse, groups, draw):
    model = parse(
        "g (float[N, 3] x) => (float[N, 8, 7] y) "
        "{ h = MatMul (x, w) r = Reshape (h, a) s = Reshape (r, b) y = MatMul (s, v) }",
        w=draw(3, 24),
        v=draw(3, 7),
        a=np.array([0, 6, 4]),
        b=np.array([0, 8, 3]),
    )
    assert all(group.frozen for group in groups(model).values())


def test_channels_merged_with_a_size_that_is_not_fixed_are_frozen(parse, groups, draw):
    model = parse(
        "g (float[N, 3, W] x) => (float[M, 2] y) { c = Conv (x, w) r = Reshape (c, shape) y = MatMul (r, v) }",
        w=draw(6, 3, 1),
        v=draw(4, 2),
        shape=np.array([-1, 4]),
    )
    frozen = {
        g.frozen for g in groups(model).values() if any(m.tensor.name == "w" and m.role == "out" for m in g.members)
    }
    assert len(frozen) == 1
    assert "size is not fixed" in frozen.pop()


def test_only_the_constant_of_a_joined_shape_changes(parse, thin, draw):
    model = parse(
        """g (float[N, T, 4] x) => (float[N, T, 5] y) {
            h = MatMul (x, w) s = Shape (h) n = Slice (s, zero, two) t = Concat <axis = 0> (n, heads)
            r = Reshape (h, t) a = Relu (r) t2 = Concat <axis = 0> (n, whole) f = Reshape (a, t2) y = MatMul (f, v)
        }""",
        w=draw(4, 12),
        v=draw(12, 5),
        heads=np.array([4, 3]),
        whole=np.array([12]),
        zero=np.array([0]),
        two=np.array([2]),
    )
    thin(model, x=draw(2, 3, 4))
    assert [node.op for node in model.graph.nodes].count("Where") == 0


def test_a_shape_that_two_nodes_share_is_changed_for_one(parse, thin, draw):
    model = parse(
        """g (float[N, 12] x) => (float[N, 5] y, float[N, 4, 3] z) {
            h = MatMul (x, w) s = Shape (x) n = Slice (s, zero, one) t = Concat <axis = 0> (n, rest)
            r = Reshape (h, t) a = Relu (r) f = Flatten (a) y = MatMul (f, v) z = Reshape (x, t)
        }""",
        w=draw(12, 12),
        v=draw(12, 5),
        rest=np.array([4, 3]),
        zero=np.array([0]),
        one=np.array([1]),
    )
    thin(model, x=draw(2, 12))
    assert [node.op for node in model.graph.nodes].count("Where") == 1


def test_a_size_read_off_the_axis_itself_follows(parse, thin, draw):
    model = parse(
        """g (float[N, 3, 4, 2] x) => (float[N, 8, 5] y) {
            c = Conv (x, w) s = Shape (c) n = Gather (s, zero) k = Gather (s, one)
            rest = Constant <value = int64[1] {-1}> () t = Concat <axis = 0> (n, k, rest)
            r = Reshape (c, t) p = Transpose <perm = [0, 2, 1]> (r) y = MatMul (p, v)
        }""",
        w=draw(6, 3, 1, 1),
        v=draw(6, 5),
        zero=np.array([0]),
        one=np.array([1]),
    )
    assert any(g.frozen is None and g.size == 6 for g in thin(model, x=draw(2, 3, 4, 2)).values())


def test_a_size_that_is_computed_with_freezes(parse, groups, draw):
    model = parse(
        """g (float[N, 3, 4] x) => (float[N, 5, 4] y) {
            c = Conv (x, w) s = Shape (c) k = Gather (s, one) half = Div (k, two) f = Cast <to = 1> (half)
            m = Mul (c, f) y = Conv (m, v)
        }""",
        w=draw(6, 3, 1),
        v=draw(5, 6, 1),
        one=np.array([1]),
        two=np.array([2]),
    )
    reasons = [
        g.frozen for g in groups(model).values() if any(m.tensor.name == "v" and m.role == "in" for m in g.members)
    ]
    assert reasons == ["Div 'half' computes with the size of axis 1 of 'c'"]


def test_the_number_of_axes_is_no_size(parse, thin, draw):
    model = parse(
        """g (float[N, 3, 4] x) => (float[N, 5, 4] y, int64 rank) {
            c = Conv (x, w) s = Shape (c) rank = Size (s) y = Conv (c, v)
        }""",
        w=draw(6, 3, 1),
        v=draw(5, 6, 1),
    )
    thin(model, x=draw(2, 3, 4))


@pytest.mark.parametrize("opset", [11, 17])
def test_axes_of_size_one_come_and_go(parse, thin, draw, opset):
    first, last = ("<axes = [2]> (c)", "<axes = [1]> (q)") if opset == 11 else ("(c, two)", "(q, one)")
    model = parse(
        f"""g (float[N, 3, 1, 4] x) => (float[N, 1, 5, 4] y) {{
            c = Conv (x, w) q = Squeeze {first} u = Unsqueeze {last} t = Transpose <perm = [0, 2, 1, 3]> (u)
            y0 = Conv (t, v) y = Transpose <perm = [0, 2, 1, 3]> (y0)
        }}""",
        opset=opset,
        w=draw(6, 3, 1, 1),
        v=draw(5, 6, 1, 1),
        one=np.array([1]),
        two=np.array([2]),
    )
    thin(model, x=draw(2, 3, 1, 4))


@pytest.mark.parametrize("opset", [11, 17])
def test_an_axis_that_becomes_one_is_not_dropped_with_those_that_were(parse, remove_exactly, groups, draw, opset):
    model = parse(
        "g (float[2, 1, 4] x) => (float[2, 3] y) { h = MatMul (x, w) s = Squeeze (h) y = MatMul (s, v) }",
        opset=opset,
        w=draw(4, 3),
        v=draw(3, 3),
    )
    remove_exactly(model, {groups(model)["w"]: np.array([0, 1])}, x=draw(2, 1, 4))
    squeeze = model.graph.nodes[1]
    axes = squeeze.attrs["axes"] if opset == 11 else model.array(squeeze.inputs[1]).tolist()
    assert axes == [1]


def test_a_squeeze_that_drops_no_more_than_before_stays_without_axes(parse, remove_exactly, groups, draw):
    model = parse(
        "g (float[2, 1, 4] x) => (float[2, 3] y) { h = MatMul (x, w) s = Squeeze (h) y = MatMul (s, v) }",
        w=draw(4, 3),
        v=draw(3, 3),
    )
    remove_exactly(model, {groups(model)["w"]: np.array([0])}, x=draw(2, 1, 4))
    assert len(model.graph.nodes[1].inputs) == 1


def test_an_axis_that_must_be_one_stays(parse, groups, draw):
    model = parse(
        "g (float[N, 3, 4] x) => (float[N, 4] y) { c = Conv (x, w) y = Squeeze (c, one) }",
        w=draw(1, 3, 1),
        one=np.array([1]),
    )
    assert all(group.frozen for group in groups(model).values())


@pytest.mark.parametrize(
    ("make", "width"),
    [
        ("t = Identity (full)", 1),
        ("t = Identity (ones)", 6),
        ("s = Shape (h) n = Slice (s, zero, two) t = Concat <axis = 0> (n, six)", 1),
        ("s = Shape (h) n = Slice (s, zero, two) t = Concat <axis = 0> (n, six)", 6),
        ("t = Shape (h)", 1),
    ],
)
def test_an_expanded_axis_gets_what_is_left(parse, thin, draw, make, width):
    model = parse(
        "g (float[2, 3, 4] x) => (float[2, 3, 5] y) "
        f"{{ h = MatMul (x, w) {make} e = Expand (b, t) a = Add (h, e) y = MatMul (a, v) }}",
        w=draw(4, 6),
        v=draw(6, 5),
        b=draw(1, width),
        full=np.array([2, 3, 6]),
        ones=np.array([2, 1, 1]),
        zero=np.array([0]),
        two=np.array([2]),
        six=np.array([6]),
    )
    thin(model, x=draw(2, 3, 4))


def test_a_constant_made_of_a_shape_gets_what_is_left(parse, thin, draw):
    model = parse(
        """g (float[N, 4] x) => (float[N, 5] y) {
            h = MatMul (x, w) s = Shape (x) n = Slice (s, zero, one) t = Concat <axis = 0> (n, width)
            c = ConstantOfShape <value = float[1] {2.0}> (t) s2 = Shape (h) c2 = ConstantOfShape (s2)
            a = Add (h, c) a2 = Add (a, c2) y = MatMul (a2, v)
        }""",
        w=draw(4, 6),
        v=draw(6, 5),
        zero=np.array([0]),
        one=np.array([1]),
        width=np.array([6]),
    )
    thin(model, x=draw(2, 4))


def test_repeated_channels_go_with_all_their_repetitions(parse, thin, draw):
    model = parse(
        """g (float[N, 3, 4] x) => (float[N, 5, 8] y) {
            c = Conv (x, w) r = Tile (c, repeats) y = Conv (r, v)
        }""",
        w=draw(6, 3, 1),
        v=draw(5, 12, 1),
        repeats=np.array([1, 2, 2]),
    )
    found = thin(model, x=draw(2, 3, 4))
    free = next(group for group in found.values() if group.frozen is None)
    assert next(m for m in free.members if m.tensor.name == "v").indices[1].tolist() == [1, 7]


def test_one_channel_repeated_is_repeated_less_often(parse, thin, draw):
    model = parse(
        """g (float[N, 3, 4] x) => (float[N, 5, 4] y) {
            c = Conv (x, w) one = Conv (x, u) r = Tile (one, repeats) a = Add (c, r) y = Conv (a, v)
        }""",
        w=draw(6, 3, 1),
        u=draw(1, 3, 1),
        v=draw(5, 6, 1),
        repeats=np.array([1, 6, 1]),
    )
    thin(model, x=draw(2, 3, 4))
