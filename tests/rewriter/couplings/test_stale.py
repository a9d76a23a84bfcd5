"""Models that declare shapes which their tensors do not have: ONNX Runtime runs them, so each rule has to bear them."""

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnxpress.rewriter.couplings import find_couplings
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import infer_shapes


def f32(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def declare(model: Model, tensor: gs.Tensor, shape: list) -> None:
    """Say that a tensor has a shape; the message of the model must hold it."""
    tensor.shape, tensor.dtype = shape, tensor.dtype or infer_shapes(model).dtype(tensor)
    assert tensor.name in {value.name for value in model.to_proto().graph.value_info}


@pytest.mark.parametrize(
    ("body", "name", "shape", "reason"),
    [
        ("r = Concat <axis = 1> (h, h)", "r", ["N", 8], "Concat 'r' reaches beyond the 8 elements of axis 1 of 'r'"),
        ("a, r = Split <axis = 1> (h)", "h", ["N", 2], "MatMul 'h' pairs 6 with 2 elements, which it should not"),
        ("r = Gather <axis = 1> (h, picks)", "r", ["N", 9], "Gather 'r' pairs 2 with 9 elements, which it should not"),
        (
            "u = Unsqueeze (h, one) v = Relu (u) r = Squeeze (v, one)",
            "r",
            ["N", 1, 6],
            "Squeeze 'r': its result has another rank than it should",
        ),
        ("r = Transpose <perm = [0, 1]> (h)", "r", ["N", 1, 6], "its result has another rank than it should"),
        ("r = Slice (h, one, two, one)", "r", ["N", 1, 6], "its result has another rank than it should"),
        ("r = Relu (h)", "r", [], "should have equally many axes"),
    ],
)
def test_a_declaration_that_is_wrong_freezes(parse, run, body: str, name: str, shape: list, reason: str) -> None:
    model = parse(
        f"g (float[N, 4] x) => (float[N, 3] y) {{ h = MatMul (x, w) {body} s = ReduceMax (r) y = Add (s, z) }}",
        w=f32(4, 6),
        z=f32(1, 3),
        picks=np.array([1, 5]),
        one=np.array([1]),
        two=np.array([2]),
    )
    before = run(model, x=f32(1, 4))
    declare(model, model.graph.tensors()[name], shape)
    np.testing.assert_array_equal(run(model, x=f32(1, 4)), before)
    frozen = [group.frozen for group in find_couplings(model).groups]
    assert all(frozen)
    assert any(reason in each for each in frozen), frozen


@pytest.mark.parametrize("block", range(4))
def test_any_declaration_that_is_wrong_is_borne(random_graph, layers, block: int) -> None:
    for seed in range(10 * block, 10 * block + 10):
        g = random_graph(seed, opset=[13, 17, 18, 21][seed % 4], start=["image", "sequence", "ids"][seed % 3])
        for _ in range(8):
            step = layers[g.random.integers(len(layers))]
            try:
                step(g)
            except TypeError:  # no tensor of the rank that the step needs
                continue
        model = g.model()
        for tensor in [t for node in model.graph.nodes for t in node.outputs if t not in model.graph.outputs]:
            kept = tensor.shape, tensor.dtype
            right = list(g.shapes.get(tensor.name, ()))
            for wrong in ([], [1, *right], right[1:], [2 * size for size in right], [1] * len(right), [None] * 5):
                declare(model, tensor, wrong)
                find_couplings(model)
            tensor.shape, tensor.dtype = kept
