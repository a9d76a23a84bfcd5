"""A model of two layers, and the checks that all structures pass."""

from collections.abc import Callable

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.encode.decode import decode
from onnxpress.passes.structure.products import replace
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites

ROWS = 96


@pytest.fixture(scope="session")
def layers(build) -> Callable[..., Model]:
    """Builds x·W, Relu, Gemm with a bias."""

    def build_layers(*, inputs=48, hidden=64, outputs=40, opset=17) -> Model:
        random = np.random.default_rng(0)
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Gemm", ["r", "v", "b"], ["y"], name="second", transB=1),
        ]
        sizes = {"w": (inputs, hidden), "v": (outputs, hidden), "b": (outputs,)}
        weights = {name: random.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
        return build(nodes, weights, x=("n", inputs), opset=opset)

    return build_layers


@pytest.fixture(scope="session")
def batches() -> Callable[[int], list[np.ndarray]]:
    """Samples of correlated inputs."""

    def draw(inputs: int) -> list[np.ndarray]:
        random = np.random.default_rng(1)
        mixing = random.standard_normal((inputs // 4, inputs)).astype(np.float32)
        return [random.standard_normal((ROWS, inputs // 4)).astype(np.float32) @ mixing + 1 for _ in range(4)]

    return draw


@pytest.fixture(scope="session")
def check_decoded(run) -> Callable[..., None]:
    """ONNX Runtime gives the same with the weights decoded at load as with dense ones, which are those of the forms."""

    def check(model: Model, x: np.ndarray) -> None:
        dense = decode(model).model
        assert find_sites(dense)
        assert not find_sites(model)
        np.testing.assert_allclose(run(model, x)[0], run(dense, x)[0], rtol=1e-4, atol=1e-4)  # fused or not

    return check


@pytest.fixture(scope="session")
def check_ways(build, run) -> Callable[..., None]:
    """A form, written in each of its ways, gives what its dense weight gives."""

    def check(structure, shape: tuple[int, int], *, opset: int, atol: float) -> None:
        random = np.random.default_rng(0)
        form = structure.fit(random.standard_normal(shape), None, 0).rounded(np.dtype(np.float32))
        x = random.standard_normal((2, 3, shape[1])).astype(np.float32)
        wanted = x @ form.dense().astype(np.float64).T
        node, weight = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer"), np.zeros(shape[::-1], np.float32)
        for way in form.ways():
            model = build([node], {"w": weight}, x=("n", "m", shape[1]), opset=opset)
            replace(model, find_sites(model)[0].uses[0], way, np.dtype(np.float32), shape[0])
            sweep(model)
            (found,) = run(model, x)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=atol * np.abs(wanted).max())

    return check
