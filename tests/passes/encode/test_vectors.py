"""Books of sub-vectors: bit for bit what the weight was, however it was cut, in the bits of its codes."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxpress.passes.encode.books import split
from onnxpress.passes.encode.channels import Channels
from onnxpress.passes.encode.decode import decode
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.encode.evaluate import extract
from onnxpress.passes.encode.folding import undecoded_nodes
from onnxpress.passes.encode.vectors import Vectors, find, write
from onnxpress.passes.share.vectors import ShareVectors
from onnxpress.rewriter.evaluate import evaluate
from onnxpress.rewriter.sites import find_sites

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


def shared(shape, length, count, order=None, dtype=np.float32, seed=0, places=1):
    """A weight whose axes in the order `order` are cut into sub-vectors of one book, or of one for each place."""
    random = np.random.default_rng(seed)
    order = tuple(order or range(len(shape)))
    sizes = [shape[axis] for axis in order]
    book = random.standard_normal((places, count, length)).astype(dtype)
    codes = random.integers(0, count, (int(np.prod(shape)) // (length * places), places))
    wide = book[np.arange(places), codes].reshape(sizes)
    return np.ascontiguousarray(wide.transpose(np.argsort(order)))


def layer(build, weight, **options):
    """A model of one MatMul or Conv."""
    kind = helper.np_dtype_to_tensor_dtype(weight.dtype)
    x = (1, weight.shape[0]) if weight.ndim == 2 else (1, weight.shape[1], 5, 5)
    op = "MatMul" if weight.ndim == 2 else "Conv"
    return build([helper.make_node(op, ["x", "w"], ["y"], name="layer")], {"w": weight}, x=x, dtype=kind, **options)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.sampled_from([2, 3, 4, 8]),
    st.integers(1, 12),
    st.sampled_from([*DTYPES, np.int8]),
    st.integers(0, 9),
)
def test_comes_back_bit_for_bit(others, length, count, dtype, seed):
    shape = (*others, 40 * length)
    weight = shared(shape, length, count, dtype=dtype, seed=seed)
    weight[weight > 1] = -0.0
    parts = find(weight)
    assert (parts is None) == (len(shape) < 2)
    if parts is not None:
        restored = parts.restore()
        assert (restored.dtype, restored.shape) == (weight.dtype, weight.shape)
        assert restored.tobytes() == weight.tobytes()


@pytest.mark.parametrize("length", [2, 3, 4, 9, 16])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_finds_length_and_axis(length, order):
    weight = shared((144, 288), length, 60, order)
    parts = split(weight)
    assert isinstance(parts, Vectors)
    assert (parts.books.shape, parts.order) == ((1, 60, length), order)
    assert parts.restore().tobytes() == weight.tobytes()


@pytest.mark.parametrize(
    ("shape", "order", "length"),
    [((32, 16, 3, 3), (0, 1, 2, 3), 9), ((32, 16, 3, 3), (1, 0, 2, 3), 18), ((1, 40, 64), (0, 2, 1), 4)],
    ids=["Conv", "ConvTranspose", "LSTM the other way"],
)
def test_finds_the_axes_of_more_than_two(shape, order, length):
    parts = split(shared(shape, length, 25, order))
    assert (parts.books.shape[1:], [s for s in parts.sizes if s > 1]) == (
        (25, length),
        [shape[axis] for axis in order if shape[axis] > 1],
    )
    assert parts.restore().tobytes() == shared(shape, length, 25, order).tobytes()


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)])
def test_matrices_of_a_stack_may_share_the_books_of_their_places(order):
    shape = (2, 300, 48) if order == (0, 1, 2) else (2, 48, 300)
    weight = shared(shape, 4, 30, order, places=12)
    parts = split(weight)
    assert (parts.books.shape, parts.order) == ((12, 30, 4), order)
    assert parts.restore().tobytes() == weight.tobytes()


def test_goes_by_bits():
    weight = shared((64, 128), 2, 6).view(np.uint32)
    weight[::2, :2], weight[1::2, :2] = 0x7FC00001, 0x7FC00002  # two kinds of NaN
    weight[::2, 2:4], weight[1::2, 2:4] = 0, 1 << 31  # zero and negative zero
    parts = find(weight.view(np.float32))
    assert parts.books.shape[1] == 6 + 4
    assert parts.restore().tobytes() == weight.tobytes()


def test_the_most_frequent_vector_has_the_code_zero():
    weight = shared((60, 100), 4, 9)
    weight[np.random.default_rng(1).random((60, 25)).repeat(4, axis=1) < 0.5] = 0
    parts = find(weight)
    assert not parts.books[0, 0].any()
    assert (np.diff(np.bincount(parts.codes.reshape(-1))) <= 0).all()


def test_channels_are_taken_where_they_are_smaller():
    random = np.random.default_rng(0)
    book = random.standard_normal((300, 2)).astype(np.float32)
    weight = np.take_along_axis(book, random.integers(0, 2, (300, 400)), axis=1)
    assert isinstance(split(weight), Channels)


@pytest.mark.parametrize(
    "weight",
    [
        np.random.default_rng(0).standard_normal((80, 96)).astype(np.float32),
        np.random.default_rng(0).choice(np.float32([1, 2]), (40, 96)),  # one book for all is as good
        shared((40, 48), 4, 2000),  # the book takes as much
        np.where(np.random.default_rng(0).random((90, 960)) < 0.999, 0, shared((90, 960), 2, 40000)),
        shared((1, 4000), 4, 4)[0],
        np.zeros((0, 4), np.float32),
    ],
    ids=["noise", "one book", "long book", "few that are not zero", "vector", "empty"],
)
def test_leaves_what_it_would_not_make_smaller(weight):
    assert split(weight) is None


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("turned", [False, True], ids=["along", "across"])
@pytest.mark.parametrize(
    ("length", "count", "places"), [(4, 37, 1), (4, 700, 1), (2, 20, 24)], ids=["bytes", "more", "places"]
)
def test_onnx_runtime_gives_every_dtype_and_form(build, dtype, turned, length, count, places):
    shape, order = (240, 48), None
    if turned:
        shape, order = (48, 240), (1, 0)
    weight = shared(shape, length, count, order, dtype, places=places)
    model, parts = layer(build, weight), find(weight)
    assert (len(parts.streams), parts.books.shape[0], parts.turned) == (1 + (count > 256), places, turned)
    result, codes = write(model, parts, "decoded")
    assert len(codes) == len(parts.streams)
    (decoded,) = evaluate(extract(model, [result]), optimise=False, threads=1)
    assert (decoded.dtype, decoded.tobytes()) == (weight.dtype, weight.tobytes())


@pytest.mark.parametrize(("shape", "order"), [((300, 400), (1, 0)), ((300, 400), None), ((128, 64, 3, 3), None)])
def test_a_file_takes_the_bits_of_the_codes_and_runs_dense(build, run, shape, order, tmp_path):
    weight = shared(shape, 4, 64, order)
    model = layer(build, weight)
    result = Encode()(model)
    assert result.model.save(tmp_path / "small.onnx") < weight.size / 4 * 6 / 8 + 64 * 16 + 2500
    assert undecoded_nodes(tmp_path / "small.onnx") == []
    x = np.random.default_rng(2).standard_normal((1, *model.graph.inputs[0].shape[1:])).astype(np.float32)
    np.testing.assert_array_equal(run(result.model, x)[0], run(model, x)[0])
    assert [change.action for change in result.report.changes] == ["64 vectors of 4", "codes of 6 bits"]
    assert [change.site for change in result.report.changes] == ["layer", "layer (codes)"]
    assert find_sites(decode(result.model).model)[0].array().tobytes() == weight.tobytes()


def test_more_than_256_vectors_take_ten_bits(build, run, tmp_path):
    weight = shared((512, 1024), 8, 1000)
    model = layer(build, weight)
    result = Encode()(model)
    assert result.model.save(tmp_path / "small.onnx") < weight.size / 8 * 10 / 8 + 1000 * 32 + 2500
    assert undecoded_nodes(tmp_path / "small.onnx") == []
    assert [change.site for change in result.report.changes] == ["layer", "layer (codes 2)"]
    x = np.random.default_rng(2).standard_normal((1, 512)).astype(np.float32)
    np.testing.assert_array_equal(run(result.model, x)[0], run(model, x)[0])
    assert find_sites(decode(result.model).model)[0].array().tobytes() == weight.tobytes()


@pytest.mark.parametrize("per", ["tensor", "subspace"])
def test_stores_what_share_vectors_leaves(build, run, per, tmp_path):
    model = layer(build, np.random.default_rng(0).standard_normal((64, 1600)).astype(np.float32))
    quantized = ShareVectors(length=4, bits=5, per=per)(model).model
    result = Encode()(quantized)
    books = 4 * 4 * 32 * (16 if per == "subspace" else 1)
    assert result.model.save(tmp_path / "small.onnx") < 64 * 1600 / 4 * 5 / 8 + books + 3000
    x = np.random.default_rng(2).standard_normal((1, 64)).astype(np.float32)
    np.testing.assert_array_equal(run(result.model, x)[0], run(quantized, x)[0])


@pytest.mark.parametrize("kind", ["vectors", "channels"])
def test_stays_whole_where_loading_may_take_no_memory(build, kind):
    weight = shared((300, 400), 4, 64)
    if kind == "channels":
        book = np.random.default_rng(0).standard_normal((300, 2)).astype(np.float32)
        weight = np.take_along_axis(book, np.random.default_rng(1).integers(0, 2, (300, 400)), axis=1).T.copy()
    held = split(weight).load.nbytes
    model = layer(build, weight)
    refused = Encode(max_load_bytes=held - 1)(model)
    assert any(f"would take {held:,} bytes of memory to load" in each.reason for each in refused.report.skips)
    assert not any("codes" in each.site for each in refused.report.changes)
    assert Encode(max_load_bytes=held)(model).report.changes[0].action == split(weight).action


def test_does_not_touch_what_is_encoded_already(build):
    once = Encode()(layer(build, shared((300, 400), 4, 256)))
    assert [each.action for each in once.report.changes] == ["256 vectors of 4"]
    assert not Encode()(once.model).report.changes
