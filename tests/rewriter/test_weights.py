import io

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxpress.rewriter.weights import (
    Dense,
    Inline,
    Produced,
    Streamed,
    element_bits,
    onnx_dtype,
    read,
    values_of,
    write_array,
)

DTYPES = [np.float16, np.float32, np.float64, np.int8, np.uint8, np.int64, np.bool_]


@given(hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_side=5)))
def test_writes_what_onnx_writes(array: np.ndarray) -> None:
    stream = io.BytesIO()
    write_array(array.T, stream)
    assert stream.getvalue() == onnx.numpy_helper.from_array(np.ascontiguousarray(array.T)).raw_data


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "int4", "uint4"])
def test_knows_the_stored_size_of_small_types(name: str) -> None:
    array = np.arange(7).astype(getattr(ml_dtypes, name))
    stream = io.BytesIO()
    write_array(array, stream)
    assert len(stream.getvalue()) == Dense(array).nbytes == (7 * element_bits(onnx_dtype(array.dtype)) + 7) // 8


def test_reads_are_read_only() -> None:
    import onnx_graphsurgeon as gs

    array = np.ones(3)
    view = read(gs.Constant("w", array))
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 2
    array[0] = 5  # the caller's own array stays writable
    assert values_of(gs.Constant("w", array)).shape == (3,)


def test_a_promise_must_be_kept() -> None:
    promised = Produced((2,), np.dtype(np.float32), lambda: np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="promised"):
        promised.load()


def test_pieces_make_the_whole(tmp_path) -> None:
    array = np.arange(10, dtype=np.float32).reshape(2, 5)
    streamed = Streamed((2, 5), array.dtype, lambda: iter([array.reshape(-1)[:7], array.reshape(-1)[7:]]))
    np.testing.assert_array_equal(streamed.load(), array)
    stream = io.BytesIO()
    streamed.write(stream)
    assert stream.getvalue() == array.tobytes()
    with pytest.raises(ValueError, match="promised 10 elements, computed 3"):
        Streamed((2, 5), array.dtype, lambda: iter([array.reshape(-1)[:3]])).load()


def test_broken_content_is_a_model_error() -> None:
    from onnxpress.rewriter.errors import ModelError

    tensor = onnx.TensorProto(name="w", data_type=1, dims=[4], raw_data=bytes(7))
    with pytest.raises(ModelError, match="tensor 'w' does not fit"):
        Inline(tensor).load()
