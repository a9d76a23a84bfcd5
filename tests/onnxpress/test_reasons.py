"""Reasons that say the same are one line."""

import pytest

from onnxpress.reasons import joint, words


@pytest.mark.parametrize(
    ("reasons", "together"),
    [
        (["is an output"], "is an output"),
        (["'a.1' is an input", "'b' is an input"], "… is an input"),
        (["'a' is an input", "'a' is an input"], "'a' is an input"),
        (["5 constants below 64 bytes", "12 constants below 64 bytes"], "5 to 12 constants below 64 bytes"),
        (["takes 1,296 bytes, dense 987", "takes 396 bytes, dense 267"], "takes 396 to 1,296 bytes, dense 267 to 987"),
        (["error 21.8% is above 20.0%", "error 5% is above 20.0%"], "error 5 to 21.8% is above 20.0%"),
        (["it has -inf dB", "it has 2.0 dB"], "it has -inf to 2.0 dB"),
        (["it has 1,000 of 2", "it has 1000 of 2"], "it has 1,000 of 2"),
    ],
)
def test_joins_what_differs_in_names_and_figures(reasons, together):
    assert len({words(each) for each in reasons}) == 1
    assert joint(reasons) == together


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("int8 is slower", "int4 is slower"),
        ("rank 3 saves nothing: 3·(4+5) ≥ 4·5", "rank 4 saves nothing: 4·(4+5) ≥ 4·5"),
        ("the layer's input and its reader's", "the model's input and its reader's"),
    ],
)
def test_other_words_are_other_reasons(first, second):
    assert words(first) != words(second)
