"""Shapes that inference leaves open; what ONNX Runtime gives is the judge."""

import numpy as np
import pytest

from onnxpress.rewriter.completion import complete
from onnxpress.rewriter.shapes import Shapes, infer_shapes

SIZES = {"zero": [0], "one": [1], "two": [2], "rest": [-1], "six": [6], "pair": [3, 2]}


def completed(model, shapes=None):
    found = complete(model, infer_shapes(model) if shapes is None else shapes)
    return {t.name: found.shape(t) for node in model.graph.nodes for t in node.outputs}


def of_inputs(model) -> Shapes:
    """As though inference had said nothing."""
    return Shapes({id(t): (t, np.dtype(np.float32), tuple(t.shape)) for t in model.graph.inputs})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("t = Concat <axis = 0> (n, rest) y = Reshape (x, t)", ("N", None)),
        ("t = Concat <axis = 0> (n, pair, rest) y = Reshape (x, t)", ("N", 3, 2, None)),
        ("t = Concat <axis = 0> (n, six) y = Expand (b, t)", ("N", 6)),
        ("t = Concat <axis = 0> (n, six) y = ConstantOfShape (t)", ("N", 6)),
        ("y = Slice (x, zero, n, two)", ("N", 6, None)),
    ],
)
def test_computed_sizes_are_traced_back(parse, text, expected):
    model = parse(
        f"g (float[N, 6, W] x) => (float y) {{ s = Shape (x) n = Gather (s, zero) {text} }}",
        b=np.ones((1, 1), np.float32),
        **{name: np.array(values) for name, values in SIZES.items()},
    )
    found = completed(model, of_inputs(model))["y"]
    assert len(found) == len(expected)
    assert all(a == b for a, b in zip(found, expected, strict=True) if isinstance(b, int))


def test_what_is_left_follows_where_the_other_sizes_cancel(parse):
    model = parse(
        """g (float[N, 6, 4] x) => (float y) {
            s = Shape (x) n = Gather (s, zero) t = Concat <axis = 0> (n, rest) y = Reshape (x, t)
        }""",
        zero=np.array([0]),
        rest=np.array([-1]),
    )
    assert completed(model, of_inputs(model))["y"] == ("N", 24)


@pytest.mark.parametrize(("text", "first"), [("u = Reshape (x, sizes)", None), ("u = Relu (x)", "N")])
def test_a_size_that_is_copied_is_no_zero(parse, text, first):
    """Where the rank of what it is copied from is unknown, the size is."""
    model = parse(
        f"g (float[N, 6] x, int64[R] sizes) => (float[A, B] y) {{ {text} y = Reshape (u, t) }}", t=np.array([0, 6])
    )
    model.graph.outputs[0].shape = None
    assert completed(model, of_inputs(model))["y"] == (first, 6)


@pytest.mark.parametrize("overridden", [False, True])
def test_numbers_that_a_caller_may_override_say_nothing(parse, overridden):
    model = parse("g (float[2, 6] x) => (float[A, B] y) { y = Reshape (x, t) }", t=np.array([3, 4]))
    if overridden:
        model.graph.inputs.append(model.constants()[0])
    model.graph.outputs[0].shape = None
    shapes = Shapes(of_inputs(model).known, infer_shapes(model).defaults)
    assert completed(model, shapes)["y"] == ((None, None) if overridden else (3, 4))


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("second", [0, 1])
def test_fused_products_are_as_large_as_they_run(parse, run, first, second):
    model = parse(
        f"""g (float[2, 3, 4] x) => (float[A, B, C] y) {{
            y = com.microsoft.FusedMatMul <transA = {first}, transB = {second}> (x, w)
        }}""",
        w=np.ones([(4, 5), (5, 4), (3, 5), (5, 3)][2 * first + second], np.float32),
    )
    model.import_domain("com.microsoft", 1)
    shape = run(model, x=np.ones((2, 3, 4), np.float32))[0].shape
    assert completed(model, of_inputs(model))["y"] == shape


@pytest.mark.parametrize(
    "node",
    [
        "BiasGelu (x, b)",
        "FastGelu (x)",
        "SkipLayerNormalization (x, x, b)",
        'FusedGemm <activation = "Relu"> (f, v)',
        "Attention <num_heads = 2> (x, w, wide)",
        "Attention <num_heads = 2, qkv_hidden_sizes = [4, 4, 4]> (x, w, wide)",
        "MultiHeadAttention <num_heads = 2> (x, x, x)",
        "MultiHeadAttention <num_heads = 2> (x, k, k)",
    ],
)
def test_other_fused_operators_are_as_large_as_they_run(parse, run, node):
    model = parse(
        f"g (float[2, 3, 4] x, float[3, 4] f) => (float y, float z) {{ z = Relu (f) y = com.microsoft.{node} }}",
        b=np.ones(4, np.float32),
        v=np.ones((4, 5), np.float32),
        w=np.ones((4, 12), np.float32),
        wide=np.ones(12, np.float32),
        k=np.ones((2, 2, 3, 2), np.float32),
    )
    model.import_domain("com.microsoft", 1)
    for tensor in model.graph.outputs:
        tensor.shape = None
    shape = run(model, x=np.ones((2, 3, 4), np.float32), f=np.ones((3, 4), np.float32))[0].shape
    assert completed(model, of_inputs(model))["y"] == shape


def test_fused_convolutions_are_as_large_as_they_run(parse, run):
    model = parse(
        """g (float[2, 3, 4, 4] x) => (float[A, B, C, D] y) {
            z = Conv (x, w) y = com.microsoft.FusedConv <activation = "Relu", kernel_shape = [3, 3]> (x, w, b, z)
        }""",
        w=np.ones((5, 3, 3, 3), np.float32),
        b=np.ones(5, np.float32),
    )
    model.import_domain("com.microsoft", 1)
    shape = run(model, x=np.ones((2, 3, 4, 4), np.float32))[0].shape
    assert completed(model, of_inputs(model))["y"] == shape == (2, 5, 2, 2)


@pytest.mark.parametrize("opset", [18, 21])
def test_groups_are_normalised_in_place(parse, opset):
    model = parse(
        "g (float[N, 6, W] x) => (float y) { y = GroupNormalization <num_groups = 3> (x, w, w) }",
        opset=opset,
        ir=10,
        w=np.ones(3 if opset == 18 else 6, np.float32),
    )
    model.graph.outputs[0].shape = None
    assert completed(model, of_inputs(model))["y"] == ("N", 6, "W")


def test_what_was_known_only_gets_more_exact(parse):
    model = parse("g (float[2, 3] x) => (float[2, K] y) { y = Relu (x) }")
    before = infer_shapes(model)
    kept = dict(before.known)
    after = complete(model, before)
    assert before.known == kept
    assert after.shape(model.graph.nodes[0].outputs[0])[0] == 2


@pytest.mark.parametrize("packed", [True, False])
def test_grouped_attention_gives_heads_of_keys(parse, packed):
    ends = "float[N, 5, 64] q" if packed else "float[N, 5, 32] q, float[N, 5, 16] k, float[N, 5, 16] v"
    model = parse(
        f"""g ({ends}) => (float[A, B, C] y) {{
            o, pk, pv = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2>
                ({"q, , ," if packed else "q, k, v,"} , , last, total)
            y = Relu (o)
        }}""",
        last=np.array([[4]], np.int32),
        total=np.array(5, np.int32),
    )
    found = completed(model)
    assert found["o"] == ("N", 5, 32)
    assert found["pk"] == found["pv"] == ("N", 2, None, 8)
