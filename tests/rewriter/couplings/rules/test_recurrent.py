"""Hidden units over gates, directions and states."""

import numpy as np
import pytest

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_hidden_units_go_in_all_gates_and_directions(parse, thin, draw, op, direction):
    many = 2 if direction == "bidirectional" else 1
    states = "h0, c0, peep" if op == "LSTM" else "h0"
    outputs = "s, h, c" if op == "LSTM" else "s, h"
    model = parse(
        f"""g (float[5, N, 3] x) => (float[5, N, 2] y, float[{many}, N, 7] z) {{
            {outputs} = {op} <hidden_size = 6, direction = "{direction}"> (x, w, r, b, , {states})
            t = Transpose <perm = [0, 2, 1, 3]> (s) f = Reshape (t, shape) y = MatMul (f, v) z = MatMul (h, u)
        }}""",
        w=draw(many, GATES[op] * 6, 3),
        r=draw(many, GATES[op] * 6, 6),
        b=draw(many, GATES[op] * 12),
        h0=draw(many, 2, 6),
        c0=draw(many, 2, 6),
        peep=draw(many, 18),
        v=draw(many * 6, 2),
        u=draw(6, 7),
        shape=np.array([0, 0, -1]),
    )
    found = thin(model, x=draw(5, 2, 3))
    hidden = next(g for g in found.values() if g.frozen is None)
    assert (hidden.kind, hidden.size) == ("hidden", 6)
    assert next(m for m in hidden.members if m.tensor.name == "w").indices[1].tolist() == list(
        range(1, GATES[op] * 6, 6)
    )
    assert model.graph.nodes[0].attrs["hidden_size"] == 3
    frozen = {g.frozen for g in found.values()}
    assert any(reason and "keeps its directions" in reason for reason in frozen)


def test_features_it_reads_may_go(parse, thin, draw):
    model = parse(
        """g (float[5, N, 3] x) => (float[5, 1, N, 4] s) {
            f = MatMul (x, u) a = Relu (f) s = LSTM <hidden_size = 4> (a, w, r)
        }""",
        u=draw(3, 6),
        w=draw(1, 16, 6),
        r=draw(1, 16, 4),
    )
    assert [g.size for g in thin(model, x=draw(5, 2, 3)).values() if g.frozen is None] == [6]


@pytest.mark.parametrize(
    "make",
    [
        "h0 = ConstantOfShape <value = float[1] {0.5}> (t)",
        "c = Constant <value = float[1] {0.5}> () h0 = Expand (c, t)",
    ],
)
def test_states_made_of_a_shape_get_shorter(parse, thin, draw, make):
    model = parse(
        f"""g (float[5, N, 3] x) => (float[5, 1, N, 2] y) {{
            s = Shape (x) n = Gather (s, one) t = Concat <axis = 0> (one, n, four) {make}
            o = GRU <hidden_size = 4> (x, w, r, , , h0) y = MatMul (o, v)
        }}""",
        w=draw(1, 12, 3),
        r=draw(1, 12, 4),
        v=draw(4, 2),
        one=np.array([1]),
        four=np.array([4]),
    )
    thin(model, x=draw(5, 2, 3))


def test_states_that_the_caller_gives_freeze(parse, groups, draw):
    model = parse(
        "g (float[5, 2, 3] x, float[1, 2, 4] h0) => (float[5, 1, 2, 2] y) "
        "{ o = RNN <hidden_size = 4> (x, w, r, , , h0) y = MatMul (o, v) }",
        w=draw(1, 4, 3),
        r=draw(1, 4, 4),
        v=draw(4, 2),
    )
    assert "'h0' is an input of the model" in {g.frozen for g in groups(model).values()}


def test_quantized_cells_freeze(parse, groups, draw, rng):
    model = parse(
        """g (float[5, 2, 3] x) => (float[5, 1, 2, 2] y) {
            a = MatMul (x, u)
            o = com.microsoft.DynamicQuantizeLSTM <hidden_size = 4> (a, w, r, , , , , , ws, wz, rs, rz)
            y = MatMul (o, v)
        }""",
        u=draw(3, 6),
        v=draw(4, 2),
        w=np.zeros((1, 6, 16), np.int8),
        r=np.zeros((1, 4, 16), np.int8),
        ws=draw(1),
        wz=np.zeros(1, np.int8),
        rs=draw(1),
        rz=np.zeros(1, np.int8),
    )
    model.import_domain("com.microsoft", 1)
    frozen = [g.frozen for g in groups(model).values()]
    assert all(frozen)
    assert any("prune the float model" in reason for reason in frozen)
