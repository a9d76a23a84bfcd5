import numpy as np
import pytest

from onnxpress.passes.kernels.products import Rows, Table

EVERY = np.arange(5)


def test_gives_the_same_products_in_pieces(monkeypatch):
    rows = np.random.default_rng(0).standard_normal((5, 101)).astype(np.float32)
    wide = rows.astype(np.float64)
    monkeypatch.setattr("onnxpress.passes.kernels.products._COLUMNS", 40)
    found = Rows([rows[:, :60], rows[:, 60:]])
    np.testing.assert_allclose(
        found.block(EVERY, EVERY[1:]), wide @ wide[1:].T, rtol=1e-12, atol=1e-12
    )  # order of sums
    np.testing.assert_allclose(found.squares, np.square(wide).sum(axis=1), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(found.row(2), wide[2])


def test_a_table_gives_what_it_holds():
    matrix = np.arange(25, dtype=np.float32).reshape(5, 5)
    table = Table(matrix)
    np.testing.assert_array_equal(table.block(EVERY[:2], EVERY[3:]), matrix[:2, 3:])
    np.testing.assert_array_equal(table.squares, matrix.diagonal())
    assert table.block(EVERY, EVERY).dtype == table.squares.dtype == np.float64


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_refuses_what_is_no_number(wrong):
    with pytest.raises(ValueError, match="NaN or infinite"):
        Rows([np.array([[1.0, wrong], [0.0, 1.0]])])


def test_refuses_parts_of_different_units():
    with pytest.raises(ValueError, match="different numbers of units"):
        Rows([np.zeros((2, 1)), np.zeros((3, 1))])
