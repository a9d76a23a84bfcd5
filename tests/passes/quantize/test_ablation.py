import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.affine import INT8_SYMMETRIC, UINT8, affine_scale, dequantize, quantize
from onnxpress.passes.quantize.ablation import CodedWeight, Unit, ablate
from onnxpress.passes.quantize.placement import Wrapped
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.weights import Dense, read


@pytest.fixture
def model(build, random):
    weights = {name: random.standard_normal((8, 8), np.float32) for name in ("w", "v")}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "v"], ["c"]),
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    return build(nodes, weights, x=("n", 8))


@pytest.fixture
def coarse(model):
    """The first weight on codes of a coarse scale."""
    node = model.graph.nodes[0]
    scale = np.float32(0.5).reshape(())
    codes = quantize(read(node.inputs[1]), scale, grid=INT8_SYMMETRIC)
    return CodedWeight(node, 1, Dense(codes), scale, np.zeros((), np.int8), None)


def outputs(model, x, *, w=None, b=None, b_for_matmul=None):
    first = read(model.graph.nodes[0].inputs[1]) if w is None else w
    hidden = np.maximum(x @ first, 0)
    hidden = b(hidden) if b else hidden
    read_by_matmul = b_for_matmul(hidden) if b_for_matmul else hidden
    return hidden + read_by_matmul @ read(model.graph.nodes[2].inputs[1])


def noise(reference, y):
    return np.square(reference - y).sum() / np.square(reference).sum()


def rounding(grid):
    return lambda array: dequantize(quantize(array, *grid, grid=UINT8), *grid)


def test_measures_each_tensor_alone_and_all_together(model, coarse, bench, random):
    x = random.standard_normal((8, 8), np.float32)
    hidden = model.graph.nodes[1].outputs[0]
    grid = affine_scale(0, 2, UINT8)  # clips
    found = ablate(model, [Wrapped(hidden, None, 0)], {"b": grid}, [coarse], bench(model, x[:4], x[4:]))
    reference, w = outputs(model, x), dequantize(read_codes(coarse), coarse.scale)
    assert found.noise[Unit("w", "a", "weight")] == pytest.approx(noise(reference, outputs(model, x, w=w)), rel=1e-3)
    alone = noise(reference, outputs(model, x, b=rounding(grid)))
    assert found.noise[Unit("b", None, "activation")] == pytest.approx(alone, rel=1e-3)
    both = noise(reference, outputs(model, x, w=w, b=rounding(grid)))
    assert found.together == pytest.approx(both, rel=1e-3)


def read_codes(weight):
    return weight.codes.load()


def test_tries_each_reader_of_a_branch_apart(model, bench, random):
    x = random.standard_normal((8, 8), np.float32)
    hidden, product = model.graph.nodes[1].outputs[0], model.graph.nodes[2]
    grid = affine_scale(0, 2, UINT8)
    found = ablate(model, [Wrapped(hidden, ((product, 0),), 0)], {"b": grid}, [], bench(model, x))
    alone = noise(outputs(model, x), outputs(model, x, b_for_matmul=rounding(grid)))
    assert found.noise == {Unit("b", "c", "activation"): pytest.approx(alone, rel=1e-3)}


def test_ranks_the_worst_first(model, coarse, bench, random):
    x = random.standard_normal((8, 8), np.float32)
    hidden = model.graph.nodes[1].outputs[0]
    fine = affine_scale(0, float(outputs(model, x).max() + 50), UINT8)
    found = ablate(model, [Wrapped(hidden, None, 0)], {"b": fine}, [coarse], bench(model, x)).ranking()
    assert [unit.tensor for unit, _ in found] == ["w", "b"]
    assert found[0][1] < found[1][1]


def test_counts_what_a_layer_gives(model, coarse, bench, random):
    found = ablate(model, [], {}, [coarse], bench(model, random.standard_normal((4, 8), np.float32)))
    assert found.sizes == {"a": 32}


def test_one_large_batch_is_enough(model, coarse, bench, random):
    x = random.standard_normal((16, 8), np.float32)
    assert ablate(model, [], {}, [coarse], bench(model, x[:8], x[8:])) == ablate(
        model, [], {}, [coarse], bench(model, x[:8])
    )


def test_leaves_the_model_as_it_was(model, coarse, bench, random):
    before = model.to_proto().SerializeToString(deterministic=True)
    ablate(model, [], {}, [coarse], bench(model, random.standard_normal((4, 8), np.float32)))
    assert model.to_proto().SerializeToString(deterministic=True) == before


def test_needs_samples(model, coarse):
    with pytest.raises(FeedError, match="--data"):
        ablate(model, [], {}, [coarse], Workbench())
