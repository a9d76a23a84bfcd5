import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.factorize.groups import FactorizeGroups
from onnxpress.passes.pipeline import Pipeline


def blocks(groups: int, out: int, channels: int, sides: tuple[int, ...]) -> np.ndarray:
    """A kernel of several groups whose channels are out of order."""
    rng = np.random.default_rng(0)
    kernel = np.zeros((out, channels, *sides))
    for group in range(groups):
        rows, columns = (slice(group * size // groups, (group + 1) * size // groups) for size in (out, channels))
        kernel[rows, columns] = rng.standard_normal((out // groups, channels // groups, *sides))
    return kernel[rng.permutation(out)][:, rng.permutation(channels)].astype(np.float32)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("sides", [(3,), (1, 1), (2, 3), (2, 1, 2)])
def test_groups_that_are_there_are_found(op, sides, build, run):
    kernel = blocks(4, 12, 8, sides)
    weight = kernel if op == "Conv" else kernel.swapaxes(0, 1)
    weights = {"w": np.ascontiguousarray(weight), "b": np.arange(12, dtype=np.float32)}
    node = helper.make_node(op, ["x", "w", "b"], ["y"], name="conv", strides=[2] * len(sides))
    model = build([node], weights, x=("n", 8, *[5] * len(sides)))
    result = Pipeline([FactorizeGroups(rank=2)])(model)
    (change,) = result.reports[-1].changes
    assert change.action.startswith("rank 2 of 8, 25.0% of the parameters")
    assert [each.op for each in result.model.graph.nodes] == ["Gather", op, "Gather"]
    assert result.model.graph.nodes[1].attrs["group"] == 4
    x = np.random.default_rng(1).standard_normal((2, 8, *[5] * len(sides))).astype(np.float32)
    np.testing.assert_allclose(run(result.model, x)[0], run(model, x)[0], rtol=1e-4, atol=1e-4)  # float32 sums


def test_channels_in_order_need_no_gather(build):
    kernel = np.zeros((4, 4, 3), np.float32)
    kernel[:2, :2] = kernel[2:, 2:] = 1
    model = build([helper.make_node("Conv", ["x", "w"], ["y"], name="conv")], {"w": kernel}, x=("n", 4, 9))
    assert [each.op for each in FactorizeGroups(rank=2)(model).model.graph.nodes] == ["Conv"]


def test_energy_finds_the_groups(build):
    weights = {"w": blocks(4, 12, 8, (3, 3))}
    model = build([helper.make_node("Conv", ["x", "w"], ["y"], name="conv")], weights, x=("n", 8, 9, 9))
    (change,) = FactorizeGroups(energy=0.999)(model).report.changes
    assert change.action.startswith("rank 2 of 8, ")


def test_skips_matrices(build):
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.ones((8, 8), np.float32)}, x=("n", 8))
    (skip,) = FactorizeGroups(rank=2)(model).report.skips
    assert skip.reason == "is a weight of MatMul; only Conv and ConvTranspose have groups"
