"""Codes and values against the weights they stand for."""

import pytest

from onnxpress.passes.selection import RefusalError
from onnxpress.passes.share.saving import check_saving


def test_says_what_would_be_stored():
    with pytest.raises(
        RefusalError, match="64 clusters save nothing: 6-bit codes and 64 values take 281 bytes, the we"
    ):
        check_saving(33, 4, codes=64, what="64 clusters")


def test_one_byte_less_is_enough():
    check_saving(11, 1, codes=2, books=4, what="2 clusters")  # 2 bytes of codes and 8 of values for 11
    with pytest.raises(
        RefusalError, match="2 clusters save nothing: 1-bit codes and 8 values take 10 bytes, the weight 10"
    ):
        check_saving(10, 1, codes=2, books=4, what="2 clusters")
