"""Heads: as exporters write attention out, and as one node."""

import numpy as np
import pytest


def heads_of(found):
    """The only group that may lose units, and where its units lie on each weight."""
    (group,) = [each for each in found.values() if each.frozen is None]
    return group, {m.tensor.name: m.indices.tolist() for m in group.members if m.role in ("in", "out")}


TOGETHER = [[0, 1, 6, 7, 12, 13], [2, 3, 8, 9, 14, 15], [4, 5, 10, 11, 16, 17]]
"""3 heads of 2 in queries, keys and values that lie behind one another."""


@pytest.mark.parametrize(
    "pick",
    [
        "q = Gather <axis = 0> (t, i0) k = Gather <axis = 0> (t, i1) v = Gather <axis = 0> (t, i2)",
        "q0, k0, v0 = Split <axis = 0> (t) q = Squeeze (q0, one) k = Squeeze (k0, one) v = Squeeze (v0, one)",
        "q0 = Slice (t, one, at1, one) q = Squeeze (q0, one) k0 = Slice (t, at1, at2, one) k = Squeeze (k0, one) "
        "v0 = Slice (t, at2, at3, one) v = Squeeze (v0, one)",
    ],
)
@pytest.mark.parametrize("shape", [[0, 0, 3, 3, 2], [0, -1, 3, 3, 2]])
def test_queries_keys_and_values_of_one_projection_lose_the_same_heads(parse, thin, draw, pick, shape):
    model = parse(
        f"""g (float[N, 5, 4] x) => (float[N, 5, 4] y) {{
            h = MatMul (x, w) b = Add (h, bias) r = Reshape (b, split) t = Transpose <perm = [2, 0, 3, 1, 4]> (r) {pick}
            s = Mul (q, scale) kt = Transpose <perm = [0, 1, 3, 2]> (k) a = MatMul (s, kt) p = Softmax <axis = -1> (a)
            o = MatMul (p, v) ot = Transpose <perm = [0, 2, 1, 3]> (o) m = Reshape (ot, merge) y = MatMul (m, u)
        }}""",
        w=draw(4, 18), bias=draw(18), u=draw(6, 4), split=np.array(shape), merge=np.array([0, 0, 6]),
        scale=np.array([0.7], np.float32), i0=np.array(0), i1=np.array(1), i2=np.array(2),
        one=np.array([0]), at1=np.array([1]), at2=np.array([2]), at3=np.array([3]),
    )  # fmt: skip
    group, rows = heads_of(thin(model, x=draw(2, 5, 4)))
    assert (group.kind, group.size) == ("heads", 3)
    assert rows == {"w": TOGETHER, "u": [[0, 1], [2, 3], [4, 5]]}


def test_heads_of_convolutional_attention_go_whole(parse, thin, draw):
    model = parse(
        """g (float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y) {
            c = Conv (x, w) r = Reshape (c, split) q, k, v = Split <axis = 2> (r, sizes)
            qt = Transpose <perm = [0, 1, 3, 2]> (q) a = MatMul (qt, k) p = Softmax <axis = -1> (a)
            pt = Transpose <perm = [0, 1, 3, 2]> (p) o = MatMul (v, pt) m = Reshape (o, merge) y = Conv (m, u)
        }""",
        w=draw(16, 3, 1, 1), u=draw(3, 8, 1, 1), split=np.array([-1, 2, 8, 16]), sizes=np.array([2, 2, 4]),
        merge=np.array([-1, 8, 4, 4]),
    )  # fmt: skip
    group, rows = heads_of(thin(model, x=draw(1, 3, 4, 4)))
    assert group.kind == "heads"
    assert rows["w"] == [list(range(8)), list(range(8, 16))]
    assert rows["u"] == [list(range(4)), list(range(4, 8))]


@pytest.mark.parametrize("target", [[2, 2, 3, 5, 2], [1, 1, 3, 1, 1]])
def test_a_key_that_queries_share_goes_with_all_of_them(parse, thin, draw, target):
    model = parse(
        """g (float[2, 5, 4] x) => (float[2, 5, 4] y) {
            q = MatMul (x, wq) q1 = Reshape (q, many) q2 = Transpose <perm = [0, 2, 1, 3]> (q1)
            k = MatMul (x, wk) k1 = Reshape (k, few) k2 = Transpose <perm = [0, 2, 1, 3]> (k1)
            k3 = Unsqueeze (k2, two) k4 = Expand (k3, target) k5 = Reshape (k4, whole)
            v = MatMul (x, wv) v1 = Reshape (v, few) v2 = Transpose <perm = [0, 2, 1, 3]> (v1)
            v3 = Unsqueeze (v2, two) v4 = Expand (v3, target) v5 = Reshape (v4, whole)
            kt = Transpose <perm = [0, 1, 3, 2]> (k5) a = MatMul (q2, kt) p = Softmax <axis = -1> (a)
            o = MatMul (p, v5) ot = Transpose <perm = [0, 2, 1, 3]> (o) m = Reshape (ot, merge) y = MatMul (m, u)
        }""",
        wq=draw(4, 12), wk=draw(4, 4), wv=draw(4, 4), u=draw(12, 4), many=np.array([0, 0, 6, 2]),
        few=np.array([0, 0, 2, 2]), two=np.array([2]), target=np.array(target), whole=np.array([0, 6, 5, 2]),
        merge=np.array([0, 0, 12]),
    )  # fmt: skip
    group, rows = heads_of(thin(model, x=draw(2, 5, 4)))
    assert group.size == 2
    assert rows["wk"] == [[0, 1], [2, 3]]
    assert rows["wq"] == rows["u"] == [list(range(6)), list(range(6, 12))]


PROJECTED = "q = MatMul (x, wq) k = MatMul (x, wk) v = MatMul (x, wv)"


@pytest.mark.parametrize("keys", [4, 2])
@pytest.mark.parametrize("opset", [23, 24])
def test_heads_of_the_standard_operator_go(parse, thin, draw, keys, opset):
    model = parse(
        f"""g (float[N, 5, 4] x) => (float[N, 5, 4] y) {{
            {PROJECTED} o = Attention <q_num_heads = 4, kv_num_heads = {keys}> (q, k, v, mask) y = MatMul (o, u)
        }}""",
        opset=opset, ir=10, wq=draw(4, 8), wk=draw(4, 2 * keys), wv=draw(4, 3 * keys), u=draw(12, 4), mask=draw(5, 5),
    )  # fmt: skip
    group, rows = heads_of(thin(model, x=draw(2, 5, 4)))
    assert (group.kind, group.size) == ("heads", keys)
    assert [len(rows[name][0]) for name in ("wq", "wk", "wv", "u")] == [8 // keys, 2, 3, 12 // keys]
    attrs = next(node.attrs for node in model.graph.nodes if node.op == "Attention")
    assert attrs["q_num_heads"] * keys == attrs["kv_num_heads"] * 4


def test_heads_on_an_axis_of_their_own_go_with_their_mask(parse, thin, draw):
    model = parse(
        """g (float[N, 5, 4] x) => (float[N, 5, 4] y) {
            q = MatMul (x, w) r = Reshape (q, split) t = Transpose <perm = [0, 2, 1, 3]> (r)
            o = Attention (t, t, t, mask) ot = Transpose <perm = [0, 2, 1, 3]> (o) m = Reshape (ot, merge)
            y = MatMul (m, u)
        }""",
        opset=23, ir=10, w=draw(4, 8), u=draw(8, 4), mask=draw(1, 4, 5, 5), split=np.array([0, 0, 4, 2]),
        merge=np.array([0, 0, -1]),
    )  # fmt: skip
    group, _ = heads_of(thin(model, x=draw(2, 5, 4)))
    assert next(m for m in group.members if m.tensor.name == "mask").axis == 1


@pytest.mark.parametrize("shape", [(4, 5, 5), (1, 4, 5, 5), (1, 1, 5, 5), (5, 5)])
def test_masks_of_each_head_go_with_it(parse, thin, draw, shape):
    model = parse(
        f"""g (float[N, 5, 4] x) => (float[N, 5, 4] y) {{
            {PROJECTED} o = Attention <q_num_heads = 4, kv_num_heads = 4> (q, k, v, mask) y = MatMul (o, u)
        }}""",
        opset=23, ir=10, wq=draw(4, 8), wk=draw(4, 8), wv=draw(4, 8), u=draw(8, 4), mask=draw(*shape),
    )  # fmt: skip
    thin(model, x=draw(2, 5, 4))


def test_a_mask_that_may_count_heads_freezes(parse, groups, draw):
    model = parse(
        f"""g (float[2, 5, 4] x, float[H, 5, 5] mask) => (float[2, 5, 4] y) {{
            {PROJECTED} o = Attention <q_num_heads = 4, kv_num_heads = 4> (q, k, v, mask) y = MatMul (o, u)
        }}""",
        opset=23, ir=10, wq=draw(4, 8), wk=draw(4, 8), wv=draw(4, 8), u=draw(8, 4),
    )  # fmt: skip
    frozen = [group.frozen for group in groups(model).values()]
    assert all(frozen)
    assert any("not fixed whether 'mask' has as many heads" in reason for reason in frozen)


def test_biases_and_sinks_of_each_head_go_with_it(microsoft, thin, draw):
    model = microsoft(
        """g (float[1, 5, 4] x) => (float[1, 5, 4] y) {
            p = MatMul (x, w) o, pk, pv = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2>
                (p, , , none, none, last, total, , , , bias, sink) y = MatMul (o, u)
        }""",
        w=draw(4, 64), u=draw(32, 4), none=np.zeros((1, 2, 0, 8), np.float32), bias=draw(1, 4, 5, 5), sink=draw(4),
        last=np.array([[4]], np.int32), total=np.array(5, np.int32),
    )  # fmt: skip
    group, _ = heads_of(thin(model, x=draw(1, 5, 4)))
    assert {"bias", "sink"} <= {member.tensor.name for member in group.members}


def test_a_head_is_turned_by_itself(parse, thin, draw):
    model = parse(
        """g (float[N, 5, 4] x) => (float[N, 5, 4] y) {
            h = MatMul (x, w) t = RotaryEmbedding <num_heads = 3> (h, c, s, at) y = MatMul (t, u)
        }""",
        opset=23, ir=10, w=draw(4, 12), u=draw(12, 4), c=draw(9, 2), s=draw(9, 2), at=np.arange(10).reshape(2, 5) % 9,
    )  # fmt: skip
    group, _ = heads_of(thin(model, x=draw(2, 5, 4)))
    assert group.size == 3


@pytest.mark.parametrize("sizes", ["", ", qkv_hidden_sizes = [6, 6, 6]"])
def test_heads_of_the_fused_operator_go(microsoft, thin, draw, sizes):
    model = microsoft(
        f"""g (float[N, 5, 4] x) => (float[N, 5, 4] y) {{
            h = MatMul (x, v) o = com.microsoft.Attention <num_heads = 3{sizes}> (h, w, b) y = MatMul (o, u)
        }}""",
        v=draw(4, 8), w=draw(8, 18), b=draw(18), u=draw(6, 4),
    )  # fmt: skip
    found = thin(model, x=draw(2, 5, 4))
    free = {group.kind: group for group in found.values() if group.frozen is None}
    assert next(m for m in free["heads"].members if m.tensor.name == "w").indices.tolist() == TOGETHER
    assert free["neurons"].size == 8
    attrs = next(node.attrs for node in model.graph.nodes if node.op == "Attention")
    assert attrs["num_heads"] == 1
    assert attrs.get("qkv_hidden_sizes", [2, 2, 2]) == [2, 2, 2]


APART = """k3 = Reshape (k, split) k4 = Transpose <perm = [0, 2, 1, 3]> (k3)
    v3 = Reshape (v, split) v4 = Transpose <perm = [0, 2, 1, 3]> (v3)"""
"""Keys and values with heads on an axis of their own."""


@pytest.mark.parametrize("bias", ["", "b"])
@pytest.mark.parametrize(("apart", "ends"), [("", "q, k, v"), (APART, "q, k4, v4")])
def test_heads_of_multi_head_attention_go(microsoft, thin, draw, apart, ends, bias):
    model = microsoft(
        f"""g (float[N, 5, 4] x) => (float[N, 5, 4] y) {{
            {PROJECTED} {apart}
            o = com.microsoft.MultiHeadAttention <num_heads = 3> ({ends}, {bias}, , mask) y = MatMul (o, u)
        }}""",
        wq=draw(4, 6), wk=draw(4, 6), wv=draw(4, 6), b=draw(18), u=draw(6, 4), mask=draw(1, 3, 5, 5),
        split=np.array([0, 0, 3, 2]),
    )  # fmt: skip
    group, rows = heads_of(thin(model, x=draw(2, 5, 4)))
    assert group.size == 3
    assert rows["wq"] == rows["wk"] == rows["wv"] == rows["u"] == [[0, 1], [2, 3], [4, 5]]
    found = [member.indices.tolist() for member in group.members if member.tensor.name == "b"]
    assert found == ([TOGETHER] if bias else [])


@pytest.mark.parametrize(
    "shape", ["float[1, 3, T, D] k, float[1, 3, T, D] v", "float[1, 2, T, 2] k, float[1, 2, T, 2] v"]
)
def test_a_bias_of_heads_that_cannot_be_counted_freezes(microsoft, groups, draw, shape):
    model = microsoft(
        f"""g (float[1, 5, 4] x, {shape}) => (float[1, 5, 4] y) {{
            q = MatMul (x, w) o = com.microsoft.MultiHeadAttention <num_heads = 3> (q, k, v, b) y = MatMul (o, u)
        }}""",
        w=draw(4, 6), b=draw(18), u=draw(6, 4),
    )  # fmt: skip
    model.graph.nodes[1].outputs[0].shape = [1, 5, 6]
    assert any("its heads cannot be counted" in (group.frozen or "") for group in groups(model).values())


@pytest.mark.parametrize("pasts", ["none, none", ", "])
@pytest.mark.parametrize("packed", [False, True])
def test_heads_of_grouped_attention_go(microsoft, thin, draw, packed, pasts):
    make = "p = MatMul (x, w) q, k, v = Split <axis = 2> (p, sizes)"
    model = microsoft(
        f"""g (float[1, 5, 4] x) => (float[1, 5, 4] y) {{
            {"p = MatMul (x, w)" if packed else make}
            o, pk, pv = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2>
                ({"p, , ," if packed else "q, k, v,"} {pasts}, last, total) y = MatMul (o, u)
        }}""",
        w=draw(4, 64), u=draw(32, 4), sizes=np.array([32, 16, 16]), none=np.zeros((1, 2, 0, 8), np.float32),
        last=np.array([[4]], np.int32), total=np.array(5, np.int32),
    )  # fmt: skip
    group, rows = heads_of(thin(model, x=draw(1, 5, 4)))
    assert group.size == 2
    assert rows["w"][1] == [*range(16, 32), *range(40, 48), *range(56, 64)]


def test_presents_of_unknown_shape_that_nobody_reads_freeze_nothing(microsoft, thin, draw):
    model = microsoft(
        """g (float[1, 5, 4] x) => (float[1, 5, 4] y) {
            q = MatMul (x, w) k = MatMul (x, v) o, pk, pv = com.microsoft.MultiHeadAttention <num_heads = 3> (q, k, k)
            y = MatMul (o, u)
        }""",
        w=draw(4, 12), v=draw(4, 12), u=draw(12, 4),
    )  # fmt: skip
    group, _ = heads_of(thin(model, x=draw(1, 5, 4)))
    assert group.size == 3


def test_presents_of_unknown_shape_that_somebody_gets_freeze(microsoft, groups, draw):
    model = microsoft(
        """g (float[1, 5, 4] x) => (float[1, 5, 4] y, float pk) {
            q = MatMul (x, w) k = MatMul (x, v) o, pk, pv = com.microsoft.MultiHeadAttention <num_heads = 3> (q, k, k)
            y = MatMul (o, u)
        }""",
        w=draw(4, 12), v=draw(4, 12), u=draw(12, 4),
    )  # fmt: skip
    model.graph.outputs[1].shape = None
    assert all(group.frozen for group in groups(model).values())


def test_packed_projections_without_columns_of_their_own_freeze(microsoft, groups, draw):
    model = microsoft(
        """g (float[1, 5, 4] x) => (float[1, 5, 4] y) {
            h = MatMul (x, w) p = Reshape (h, split) o = com.microsoft.MultiHeadAttention <num_heads = 3> (p)
            y = MatMul (o, u)
        }""",
        w=draw(4, 18), u=draw(6, 4), split=np.array([1, 5, 3, 3, 2]),
    )  # fmt: skip
    frozen = [group.frozen for group in groups(model).values()]
    assert all(frozen)
    assert any("packed into one tensor" in reason for reason in frozen)


def test_heads_that_cannot_be_counted_freeze(parse, groups, draw):
    model = parse(
        "g (float[N, 5, 4] x) => (float[N, 5, 4] y) "
        "{ h = MatMul (x, w) t = RotaryEmbedding (h, c, s, at) y = MatMul (t, u) }",
        opset=23, ir=10, w=draw(4, 12), u=draw(12, 4), c=draw(9, 2), s=draw(9, 2), at=np.zeros((2, 5), np.int64),
    )  # fmt: skip
    assert any("cannot be counted" in (group.frozen or "") for group in groups(model).values())
