import numpy as np
import pytest

from onnxpress.passes.selection import Layout
from onnxpress.passes.share.drafts import Codebook, Draft, Weight


@pytest.fixture
def weight():
    """A weight [in, out], so that rows of its layout are columns of the array."""
    array = np.array([[1.0, 10], [2, 20], [1.5, 10]], np.float16)
    return Weight(Layout(("in", "out"), array.shape), array, None, keep_zero=False)


def test_one_codebook_gives_values_to_the_whole_weight(weight):
    book = Codebook(weight.layout, np.array([[1.0, 16.0]], np.float32), lambda array: (array > 4).astype(np.uint8))
    draft = Draft.of(book, weight, "2 values")
    np.testing.assert_array_equal(draft.shared, [[1, 16], [1, 16], [1, 16]])
    assert draft.shared.dtype == np.float16
    exact = weight.array.astype(np.float64)
    lost = np.linalg.norm(exact - draft.shared) / np.linalg.norm(exact)
    assert draft.error == pytest.approx(lost, rel=1e-9, abs=0)


def test_each_row_of_the_layout_may_have_its_own_values(weight):
    books = np.array([[1.0, 2.0], [10.0, 20.0]], np.float32)
    book = Codebook(weight.layout, books, lambda array: (array == [2, 20]).astype(np.uint8))
    np.testing.assert_array_equal(book.shared(weight.array), [[1, 10], [2, 20], [1, 10]])
