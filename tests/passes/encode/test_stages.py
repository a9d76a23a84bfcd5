"""Sums of sub-vectors: stored as the codes of their stages while these are at hand, like any weight afterwards."""

import ml_dtypes
import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.encode.books import split
from onnxpress.passes.encode.decode import decode
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.encode.evaluate import extract
from onnxpress.passes.encode.folding import undecoded_nodes
from onnxpress.passes.encode.stages import Stages, find, write
from onnxpress.passes.kernels.vectors import VectorCode
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.selection import Layout
from onnxpress.passes.share.vectors import ShareVectors
from onnxpress.passes.staged import Staged
from onnxpress.rewriter.evaluate import evaluate
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites


def staged(axes, shape, *, dtype=np.float32, stages=2, places=1, length=4, count=20):
    """Values of random codes and codebooks."""
    random, layout = np.random.default_rng(0), Layout(axes, shape)
    rows = layout.rows
    width = int(np.prod(shape)) // rows // length
    books = random.standard_normal((stages, width if places > 1 else 1, count, length))
    codes = random.integers(0, count, (stages, rows, width)).astype(np.uint8)
    return Staged(layout, VectorCode(books, codes), np.dtype(dtype))


def product(build, shape, op="MatMul"):
    x = (1, shape[0]) if op == "MatMul" else (1, shape[1], 5, 5)
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return build([helper.make_node(op, ["x", "w"], ["y"], name="layer")], {"w": weight}, x=x)


@pytest.mark.parametrize(
    ("dtype", "stages"), [(np.float16, 2), (np.float32, 2), (np.float32, 4), (np.float64, 3)], ids=str
)
@pytest.mark.parametrize("places", [1, 2])
@pytest.mark.parametrize(
    ("axes", "shape"),
    [(("out", "in"), (30, 48)), (("in", "out"), (48, 30)), (("in", "out", "kernel"), (16, 10, 3))],
    ids=["along", "across", "ConvTranspose"],
)
def test_onnx_runtime_adds_the_stages_bit_for_bit(build, dtype, stages, places, axes, shape):
    values = staged(axes, shape, dtype=dtype, stages=stages, places=places)
    parts = find(values, values.load())
    assert parts.restore().tobytes() == values.load().tobytes()
    assert parts.action == f"{stages} stages of 20 vectors of 4{' a place' * (places > 1)}"
    model = product(build, (4, 4))
    weight, codes = write(model, parts, "decoded")
    (decoded,) = evaluate(extract(model, [weight]), optimise=False, threads=1)
    assert len(codes) == stages
    assert (decoded.dtype, decoded.shape) == (values.dtype, shape)
    assert decoded.tobytes() == values.load().tobytes()


@pytest.mark.parametrize(("op", "shape"), [("MatMul", (128, 1200)), ("Conv", (256, 64, 3, 3))])
def test_stores_the_stages_that_share_vectors_made(build, run, op, shape, tmp_path):
    model, size = product(build, shape, op), int(np.prod(shape))
    shared = ShareVectors(length=4, bits=7, stages=2)(model).model
    dense = find_sites(shared)[0].array()
    result = Pipeline([Encode()], normalise=False)(shared, Workbench(threads=1))
    assert result.model.save(tmp_path / "small.onnx") < 2 * (size / 4 * 7 / 8 + 128 * 16) + 4000
    assert undecoded_nodes(tmp_path / "small.onnx") == []
    assert result.reports[0].changes[0].action == "2 stages of 128 vectors of 4"
    x = np.random.default_rng(2).standard_normal((1, *model.graph.inputs[0].shape[1:])).astype(np.float32)
    loaded = Model.load(tmp_path / "small.onnx")
    np.testing.assert_array_equal(run(loaded, x)[0], run(shared, x)[0])
    assert find_sites(decode(loaded).model)[0].array().tobytes() == dense.tobytes()


def test_a_written_model_tells_no_stages(build, tmp_path):
    shared = ShareVectors(length=4, bits=7, stages=2)(product(build, (128, 1200))).model
    shared.save(tmp_path / "dense.onnx")
    result = Encode()(Model.load(tmp_path / "dense.onnx"))
    assert not any("stages" in each.action for each in result.report.changes)


def test_goes_by_what_the_weight_is():
    values = staged(("out", "in"), (300, 480), count=90)
    weight = values.load()
    assert isinstance(split(weight, values), Stages)
    changed = weight.copy()
    changed[7, 9] = 0
    assert split(changed, values) is None


@pytest.mark.parametrize(("dtype", "stages"), [(ml_dtypes.bfloat16, 2), (np.float16, 3)], ids=str)
def test_leaves_what_is_not_added_bit_for_bit(dtype, stages):
    values = staged(("out", "in"), (300, 480), dtype=dtype, stages=stages)
    assert find(values, values.load()) is None


def test_few_sums_of_two_are_known_by_the_array_alone():
    """20 times 20."""
    values = staged(("out", "in"), (300, 480))
    assert split(values.load()).action == "400 vectors of 4"
