"""Operators of com.microsoft."""

import numpy as np
import pytest


@pytest.mark.parametrize(
    "node",
    [
        "Gelu (h)", "QuickGelu (h)", "FastGelu (h)", "FastGelu (h, b)", "BiasGelu (h, b)",
    ],
)  # fmt: skip
def test_neurons_before_an_activation_go(microsoft, thin, draw, node):
    model = microsoft(
        f"g (float[N, 4] x) => (float[N, 5] y) {{ h = MatMul (x, w) a = com.microsoft.{node} y = MatMul (a, v) }}",
        w=draw(4, 6), b=draw(6), v=draw(6, 5),
    )  # fmt: skip
    assert [g.size for g in thin(model, x=draw(2, 4)).values() if g.frozen is None] == [6]


def test_channels_of_a_fused_convolution_go_with_what_it_adds(microsoft, thin, draw):
    model = microsoft(
        """g (float[N, 3, 4, 4] x) => (float[N, 5, 4, 4] y) {
            a = Conv (x, w) b = com.microsoft.FusedConv <activation = "Relu"> (x, u, bias, a) y = Conv (b, v)
        }""",
        w=draw(6, 3, 1, 1), u=draw(6, 3, 1, 1), bias=draw(6), v=draw(5, 6, 1, 1),
    )  # fmt: skip
    (group,) = [g for g in thin(model, x=draw(2, 3, 4, 4)).values() if g.frozen is None]
    assert {m.tensor.name for m in group.members if m.role == "out"} == {"w", "u"}


def test_fused_groups_get_fewer(microsoft, thin, draw):
    model = microsoft(
        """g (float[N, 3, 4, 4] x) => (float[N, 5, 4, 4] y) {
            a = Conv (x, w) b = com.microsoft.FusedConv <activation = "Relu", group = 6> (a, u) y = Conv (b, v)
        }""",
        w=draw(6, 3, 1, 1), u=draw(6, 1, 1, 1), v=draw(5, 6, 1, 1),
    )  # fmt: skip
    thin(model, x=draw(2, 3, 4, 4))
    assert next(node for node in model.graph.nodes if node.op == "FusedConv").attrs["group"] == 3


def test_neurons_of_a_fused_gemm_go(microsoft, thin, draw):
    model = microsoft(
        """g (float[N, 4] x) => (float[N, 5] y) {
            h = com.microsoft.FusedGemm <activation = "Relu", transB = 1> (x, w, b) y = MatMul (h, v)
        }""",
        w=draw(6, 4), b=draw(6), v=draw(6, 5),
    )  # fmt: skip
    thin(model, x=draw(2, 4))


@pytest.mark.parametrize(("left", "right"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_what_a_fused_product_sums_over_goes(microsoft, thin, draw, left, right):
    turn = "t = Transpose <perm = [0, 2, 1]> (h)" if left else "t = Identity (h)"
    model = microsoft(
        f"""g (float[2, 3, 4] x) => (float[2, 3, 5] y) {{
            h = MatMul (x, w) {turn}
            y = com.microsoft.FusedMatMul <transA = {left}, transB = {right}, alpha = 0.5> (t, v)
        }}""",
        w=draw(4, 6), v=draw(*((5, 6) if right else (6, 5))),
    )  # fmt: skip
    assert [g.size for g in thin(model, x=draw(2, 3, 4)).values() if g.frozen is None] == [6]


def test_a_product_that_moves_the_batch_freezes(microsoft, groups, draw):
    model = microsoft(
        """g (float[2, 3, 4] x) => (float[3, 2, 5] y) {
            h = MatMul (x, w) y = com.microsoft.FusedMatMul <transBatchA = 1> (h, v)
        }""",
        w=draw(4, 6), v=draw(3, 6, 5),
    )  # fmt: skip
    assert any("moves axes of the batch" in (g.frozen or "") for g in groups(model).values())


@pytest.mark.parametrize(
    "node",
    ["SkipLayerNormalization (a, x, scale, shift, bias)", "SkipSimplifiedLayerNormalization (a, x, scale, bias)"],
)
def test_normalised_features_stay_and_the_neurons_behind_go(microsoft, thin, draw, node):
    model = microsoft(
        f"""g (float[N, 5, 4] x) => (float[N, 5, 4] y, float[N, 5, 4] total) {{
            f = MatMul (x, w) r = Relu (f) a = MatMul (r, v) n, mean, deviation, total = com.microsoft.{node}
            y = Identity (n)
        }}""",
        w=draw(4, 6), v=draw(6, 4), scale=draw(4), shift=draw(4), bias=draw(4),
    )  # fmt: skip
    model.graph.nodes[3].outputs[1].name = model.graph.nodes[3].outputs[2].name = ""
    found = thin(model, x=draw(2, 5, 4))
    assert [g.size for g in found.values() if g.frozen is None] == [6]


def test_a_normalised_axis_says_so(microsoft, groups, draw):
    model = microsoft(
        """g (float[N, 5, 4] x) => (float[N, 5, 3] y) {
            a = MatMul (x, w) b = MatMul (x, u) n = com.microsoft.SkipLayerNormalization (a, b, scale) y = MatMul (n, v)
        }""",
        w=draw(4, 6), u=draw(4, 6), v=draw(6, 3), scale=draw(6),
    )  # fmt: skip
    assert any("mean and variance would change" in (g.frozen or "") for g in groups(model).values())


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ("com.microsoft.MatMulNBits <K = 16, N = 16, bits = 4, block_size = 16> (h, codes, scales)", "quantized"),
        ("com.microsoft.Unheard (h)", "no rule"),
    ],
)
def test_operators_that_cannot_lose_units_say_why(microsoft, groups, draw, node, reason):
    model = microsoft(
        f"g (float[N, 4] x) => (float[N, 5] y) {{ h = MatMul (x, w) q = {node} y = MatMul (q, v) }}",
        w=draw(4, 16), v=draw(16, 5), codes=np.zeros((16, 1, 8), np.uint8), scales=draw(16),
    )  # fmt: skip
    makers = [g for g in groups(model).values() if any(m.tensor.name == "w" and m.role == "out" for m in g.members)]
    assert reason in makers[0].frozen


def test_tables_that_are_looked_up_and_normalised_freeze(microsoft, groups, draw):
    model = microsoft(
        """g (int32[N, 5] ids) => (float[N, 5, 3] y) {
            e, mask = com.microsoft.EmbedLayerNormalization (ids, ids, words, places, kinds, scale, shift)
            y = MatMul (e, v)
        }""",
        words=draw(9, 4), places=draw(5, 4), kinds=draw(9, 4), scale=draw(4), shift=draw(4), v=draw(4, 3),
    )  # fmt: skip
    frozen = [g.frozen for g in groups(model).values()]
    assert all(frozen)
