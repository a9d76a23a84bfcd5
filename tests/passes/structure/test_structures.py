"""What holds of every structure."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.encode.folding import undecoded_nodes
from onnxpress.passes.normalise import Normalise
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.share.kmeans import ShareKMeans
from onnxpress.passes.strip import Strip
from onnxpress.passes.structure.acdc import StructureACDC
from onnxpress.passes.structure.circulant import StructureCirculant
from onnxpress.passes.structure.fastfood import StructureFastfood
from onnxpress.passes.structure.forms import decode_at_load
from onnxpress.passes.structure.toeplitz import StructureToeplitz
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.sites import find_sites

PASSES = [
    StructureCirculant(block=4),
    StructureCirculant(block=7),
    StructureToeplitz(rank=2),
    StructureFastfood(),
    StructureACDC(layers=2),
]
SHAPES = [(8, 12), (12, 12), (29, 12), (24, 12), (12, 30), (16, 16), (48, 16)]


def named(each) -> str:
    return f"{each.name} {[value for value in each.options().values() if isinstance(value, int)][:1]}"


@pytest.fixture(params=PASSES, ids=named)
def structured(request):
    """Each of the passes."""
    return request.param


@pytest.mark.parametrize("shape", SHAPES)
def test_nodes_decode_what_was_fitted(structured, shape, build, run):
    random = np.random.default_rng(0)
    structure = structured.structure(shape)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")
    model = build([node], {"w": random.standard_normal(shape[::-1]).astype(np.float32)}, x=("n", shape[1]))
    (site,) = find_sites(model)
    form = structure.fit(site.array().T, None, 0).rounded(np.dtype(np.float32))
    assert sum(each.nbytes for each in form.parameters) == structure.nbytes(shape, 4)
    decode_at_load(model, site, form)
    sweep(model)
    wanted = form.dense().T
    (found,) = run(model, np.eye(shape[1], dtype=np.float32))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3 * np.abs(wanted).max())  # float32 sums that cancel


def test_a_smaller_file_that_is_dense_once_it_is_loaded(structured, layers, batches, check_decoded, tmp_path):
    model = layers(inputs=96, hidden=128, outputs=80)
    before = len(model.to_proto().SerializeToString())
    result = structured(model)
    assert [change.site for change in result.report.changes] == ["first", "second"]
    assert len(result.model.to_proto().SerializeToString()) < 0.5 * before
    assert len(model.to_proto().SerializeToString()) == before  # the caller's is as it was
    check_decoded(result.model, batches(96)[0])
    result.model.save(tmp_path / "model.onnx")
    assert undecoded_nodes(tmp_path / "model.onnx") == []


def test_samples_make_the_outputs_better(structured, layers, batches, bench, run):
    model, samples = layers(), batches(48)
    fitted, plain = structured(model, bench(model, *samples)), structured(model)
    wanted = run(model, samples[0])[0]
    off = [np.linalg.norm(run(each.model, samples[0])[0] - wanted) for each in (fitted, plain)]
    assert off[0] < 0.8 * off[1]
    assert all("on samples held out" in change.action for change in fitted.report.changes)
    assert fitted.report.changes[0].error > plain.report.changes[0].error


def test_other_passes_leave_it_as_it_is(structured, layers, batches, run):
    model, x = layers(), batches(48)[0]
    alone = structured(model)
    further = Pipeline([structured, ShareKMeans(bits=4), Encode(), Strip(), Normalise()])(model).model
    np.testing.assert_allclose(run(further, x)[0], run(alone.model, x)[0], rtol=1e-5, atol=1e-4)  # fused or not
    assert len(further.to_proto().SerializeToString()) <= len(alone.model.to_proto().SerializeToString())
    assert alone.report.notes[0].startswith("ONNX Runtime takes ")


def test_twice_is_the_same(structured, layers, batches, bench):
    model = layers()
    first, second = (structured(model, bench(model, *batches(48))).model.to_proto() for _ in range(2))
    assert first.SerializeToString() == second.SerializeToString()


def test_ignores_samples_where_told(layers, batches, bench):
    model = layers()
    told = StructureCirculant(block=4, correct=False)(model, bench(model, *batches(48)))
    plain = StructureCirculant(block=4)(model)
    assert told.model.to_proto().SerializeToString() == plain.model.to_proto().SerializeToString()


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types_keep_theirs(structured, dtype, build, run):
    random = np.random.default_rng(0)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = build([node], {"w": random.standard_normal((64, 64)).astype(dtype)}, x=("n", 64), dtype=element)
    result = structured(model)
    assert len(result.report.changes) == 1
    assert run(result.model, np.ones((1, 64), dtype))[0].dtype == dtype


def test_a_pointwise_convolution_is_a_matrix(structured, build, run):
    random = np.random.default_rng(0)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="layer")
    model = build([node], {"w": random.standard_normal((48, 64, 1, 1)).astype(np.float32)}, x=("n", 64, 3, 3))
    result = structured(model)
    assert len(result.report.changes) == 1
    assert run(result.model, np.ones((1, 64, 3, 3), np.float32))[0].shape == (1, 48, 3, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((StructureCirculant, {"block": 1}), "block must be a whole number of at least 2, got 1"),
        ((StructureToeplitz, {"rank": 0}), "rank must be a whole number of at least 1, got 0"),
        ((StructureACDC, {"layers": 0}), "layers must be a whole number of at least 1, got 0"),
        ((StructureFastfood, {"goal": "speed"}), "goal must be size or latency, got 'speed'"),
        ((StructureFastfood, {"correct": 1}), "correct must be true or false, got 1"),
        ((StructureFastfood, {"vary": "no"}), "vary must be true or false, got 'no'"),
    ],
)
def test_refuses_bad_options(options, message):
    kind, given = options
    with pytest.raises(ConfigError) as caught:
        kind(**given)
    assert str(caught.value) == f"{kind.name}: {message}"
