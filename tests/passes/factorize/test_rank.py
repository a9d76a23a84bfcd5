import pytest

from onnxpress.passes.factorize.rank import Cost, Products, largest
from onnxpress.passes.selection import RefusalError


def test_products_show_how_they_came_about():
    both = Products(((3, 2), (5,)), 4)
    assert (both.value, str(both)) == (44, "4·(3·2+5)")
    alone = Products(((3, 2), (5, 1), (1, 1)))
    assert (alone.value, str(alone)) == (12, "3·2 + 5 + 1")


def test_largest_is_zero_where_nothing_holds():
    assert [largest(9, lambda n, top=top: n <= top) for top in (0, 1, 8, 9, 20)] == [0, 1, 8, 9, 9]


def test_refuses_what_saves_nothing_with_the_figures():
    dense, less, more = Products(((40, 60),)), Products(((40,), (60,)), 8), Products(((40,), (60,)), 24)
    Cost(dense, less, less).refuse_if_none_saved("rank 8")
    with pytest.raises(RefusalError, match=r"^rank 24 saves nothing: 24·\(40\+60\) ≥ 40·60$"):
        Cost(dense, more, less).refuse_if_none_saved("rank 24")
    with pytest.raises(RefusalError, match="ranks 24 and 2 save no multiply-adds: "):
        Cost(dense, less, more).refuse_if_none_saved("ranks 24 and 2")
