import pytest

from onnxpress.passes.prune.patterns import Blocks, NofM, Unstructured, parse_pattern


@pytest.mark.parametrize(
    ("text", "pattern"),
    [("unstructured", Unstructured()), ("2:4", NofM(2, 4)), ("1:16", NofM(1, 16)), ("4x1", Blocks(4, 1))],
)
def test_reads_a_pattern(text, pattern):
    assert parse_pattern(text) == pattern


@pytest.mark.parametrize("text", ["", "2", "4:2", "4:4", "0:4", "1x1", "0x4", "-2:4", "2:4:8", "Unstructured"])
def test_refuses_what_is_no_pattern(text):
    with pytest.raises(ValueError, match="no pattern"):
        parse_pattern(text)


def test_sparsity_of_n_of_m_is_what_goes():
    assert NofM(1, 4).sparsity == 0.75
