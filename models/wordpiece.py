"""The uncased tokenizer of BERT: clean, lower, split at spaces and punctuation, then the longest known pieces.

Devlin et al., 2019, https://arxiv.org/abs/1810.04805; WordPiece: Wu et al., 2016, https://arxiv.org/abs/1609.08144.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from onnxpress.calibration.batches import Array

_LONGEST_WORD = 100  # characters; a longer word is unknown, as in the original
# the blocks of Chinese characters, which stand as words of their own
_CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPiece:
    """Text to the numbers of its word pieces.

    Args:
        vocabulary: the pieces in the order of their numbers; has `[UNK]`, `[CLS]` and `[SEP]`; a piece that continues
            a word starts with `##`.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._numbers = {piece: number for number, piece in enumerate(vocabulary)}
        self._unknown, self._first, self._last = (self._numbers[name] for name in ("[UNK]", "[CLS]", "[SEP]"))

    def encode(self, text: str, *, longest: int) -> list[int]:
        """`[CLS]`, the pieces of `text`, `[SEP]`: at most `longest` numbers, the end of a longer text is dropped."""
        pieces = [number for word in _words(text) for number in self._pieces(word)]
        return [self._first, *pieces[: longest - 2], self._last]

    def _pieces(self, word: str) -> list[int]:
        found: list[int] = []
        begin = 0
        while begin < len(word):
            prefix = "##" if begin else ""
            ends = range(len(word), begin, -1)
            end = next((end for end in ends if prefix + word[begin:end] in self._numbers), None)
            if end is None or len(word) > _LONGEST_WORD:
                return [self._unknown]
            found.append(self._numbers[prefix + word[begin:end]])
            begin = end
        return found


def pad(texts: Sequence[Sequence[int]]) -> dict[str, Array]:
    """`input_ids` and `attention_mask`, int64 [len(texts), longest text], zero where a text has ended."""
    ids = np.zeros((len(texts), max(map(len, texts), default=0)), np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _words(text: str) -> Iterator[str]:
    spaced = "".join(f" {c} " if _is_chinese(c) else c for c in _clean(text))
    bare = "".join(c for c in unicodedata.normalize("NFD", spaced) if unicodedata.category(c) != "Mn")
    # each character by itself: str.lower() of the whole would write a last Greek sigma differently
    lower = "".join(c.lower() for c in bare)
    split = "".join(f" {c} " if _is_punctuation(c) else c for c in lower)
    return iter(split.split())


def _clean(text: str) -> Iterator[str]:
    for c in text:
        if c in "\t\n\r" or unicodedata.category(c) == "Zs":
            yield " "
        elif c != "\ufffd" and not unicodedata.category(c).startswith("C"):
            yield c


def _is_chinese(c: str) -> bool:
    return any(low <= ord(c) <= high for low, high in _CHINESE)


def _is_punctuation(c: str) -> bool:
    # the ASCII symbols count too: $ + < = > ^ ` | ~ are no punctuation to Unicode
    return (c.isascii() and c.isprintable() and not c.isalnum() and c != " ") or unicodedata.category(c).startswith("P")
