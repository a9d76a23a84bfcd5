"""Names out of models are shown without doing harm."""

import pytest

from onnxpress.passes.shown import clean, frame, grid, short


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("<script>", "&lt;script&gt;"),
        ("a\"b'c&", "a&quot;b&#x27;c&amp;"),
        ("one\ntwo\x00\x1b[31m", "one two  [31m"),
        ("right‮to left", "right to left"),
        ("half \ud800 sign", "half   sign"),
        ("层/卷积", "层/卷积"),
    ],
)
def test_cleans(name, shown):
    assert clean(name) == shown
    clean(name).encode()


def test_long_names_keep_both_ends():
    assert short("abcdefghijkl", 7) == "ab…ijkl"
    assert short("short", 7) == "short"
    assert len(short("x" * 500, 30)) == 30


def test_a_table_escapes_all_it_is_given():
    text = frame(grid("<t>", ("<h>", ">n"), [["<c>", "1"]], ["<n>"]))
    assert all(f"&lt;{each}&gt;" in text and f"<{each}>" not in text for each in "thcn" if each not in "t")
    assert "&lt;t&gt;" in text
    assert '<td class="right">1</td>' in text
