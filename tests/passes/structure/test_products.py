"""Products in the place of layers, where they are faster."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.pace import Pace
from onnxpress.passes.structure.acdc import Cosines
from onnxpress.passes.structure.circulant import Circulant, StructureCirculant
from onnxpress.passes.structure.fastfood import Fastfood, StructureFastfood
from onnxpress.passes.structure.toeplitz import ToeplitzLike

SHAPES = [(8, 12), (12, 12), (28, 12), (24, 12), (12, 32), (16, 16), (48, 16)]


@pytest.fixture
def faster(monkeypatch):
    """Takes every way for faster, the last one most."""

    def measured(models, shape, dtype, bench):
        speeds = np.arange(2.0, len(models) + 1)
        return speeds, speeds

    monkeypatch.setattr("onnxpress.passes.structure.products.speedups", measured)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("structure", "atol"),
    # float32; diagonals of several layers grow against each other
    [
        (Circulant(2), 1e-5),
        (Circulant(4), 1e-5),
        (ToeplitzLike(2), 1e-4),
        (Fastfood(), 1e-4),
        (Cosines(1), 1e-4),
        (Cosines(2), 2e-3),
    ],
    ids=str,
)
def test_every_way_gives_what_the_dense_weight_gives(structure, atol, shape, check_ways):
    for opset in (17, 20):
        check_ways(structure, shape, opset=opset, atol=atol)


def test_odd_blocks_are_written_as_a_convolution(check_ways):
    assert [way.name for way in Circulant(3).example((6, 9)).ways()] == ["convolution over the padded inputs"]
    check_ways(Circulant(3), (6, 9), opset=17, atol=1e-5)  # float32


@pytest.mark.parametrize("structured", [StructureCirculant(block=8, goal="latency"), StructureFastfood(goal="latency")])
def test_layers_that_are_faster_are_replaced(structured, layers, batches, faster, run):
    model, x = layers(), batches(48)[0]
    result = structured(model)
    assert len(result.report.changes) == 2
    assert all("times as fast as dense" in change.action for change in result.report.changes)
    assert all(change.bytes_after < change.bytes_before for change in result.report.changes)
    small = type(structured)(**{**structured.options(), "goal": "size"})(model)
    wanted = run(small.model, x)[0]
    np.testing.assert_allclose(run(result.model, x)[0], wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())  # float32


def test_a_model_that_is_slower_as_a_whole_is_taken_back(layers, batches, bench, faster, monkeypatch, run):
    slow = [Pace(0.9, (0.8, 1.0))]
    monkeypatch.setattr("onnxpress.passes.structure.base.pace", lambda original, models, bench: slow)
    model = layers()
    result = StructureCirculant(block=8, goal="latency")(model, bench(model, *batches(48)))
    assert not result.report.changes
    assert all(
        "is taken back, for the whole model is 0.90 times as fast as before" in each.reason
        for each in result.report.skips
    )
    x = batches(48)[0]
    np.testing.assert_array_equal(run(result.model, x)[0], run(model, x)[0])


def test_equal_layers_are_timed_once(build, monkeypatch):
    calls = []

    def measured(models, shape, dtype, bench):
        calls.append(shape)
        return np.ones(len(models) - 1), np.ones(len(models) - 1)

    monkeypatch.setattr("onnxpress.passes.structure.products.speedups", measured)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="a"),
        helper.make_node("MatMul", ["h", "v"], ["y"], name="b"),
    ]
    weights = {name: np.ones((64, 64), np.float32) for name in "wv"}
    result = StructureCirculant(block=4, goal="latency")(build(nodes, weights, x=(2, 64)))
    assert calls == [(2, 64)]
    assert len(result.report.skips) == 2
