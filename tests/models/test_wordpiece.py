import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordPiece as ReferenceModel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing

from onnxpress.models.minilm import vocabulary
from onnxpress.models.wordpiece import WordPiece, pad
from onnxpress.models.zoo import minilm_archive

LETTERS = "abcdeghilnorstuvwy013äσ京"
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{c}" for c in LETTERS), *"$.,!-~“", "the", "ca", "##st"]


def reference(pieces: list[str]) -> Tokenizer:
    """The tokenizer of the same name by Hugging Face."""
    numbers = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(ReferenceModel(numbers, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = BertNormalizer(clean_text=True, handle_chinese_chars=True, lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = BertProcessing(("[SEP]", numbers["[SEP]"]), ("[CLS]", numbers["[CLS]"]))
    tokenizer.enable_truncation(16)
    return tokenizer


REFERENCE = reference(PIECES)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.text(st.one_of(st.sampled_from(LETTERS + LETTERS.upper() + " $.,“"), st.characters(max_codepoint=0x2FF))))
def test_agrees_with_the_reference_on_any_text(text: str) -> None:
    assert WordPiece(PIECES).encode(text, longest=16) == REFERENCE.encode(text).ids


@pytest.mark.parametrize(
    "text",
    ["", "the cast", "The CÄST", "东京ca", "ΣΑΣ σας", "a\x00b\ufffdc\u200bd\u00a0e\tf", "a" * 101, "a~b$c", "{the}"],
)
def test_agrees_with_the_reference_on_hard_text(text: str) -> None:
    assert WordPiece(PIECES).encode(text, longest=16) == REFERENCE.encode(text).ids


def test_takes_the_longest_piece_first() -> None:
    expected = [PIECES.index(piece) for piece in ("[CLS]", "ca", "##st", "[SEP]")]
    assert WordPiece(PIECES).encode("cast", longest=16) == expected


def test_pads_to_the_longest_text() -> None:
    batch = pad([[5, 6, 7], [8]])
    np.testing.assert_array_equal(batch["input_ids"], np.array([[5, 6, 7], [8, 0, 0]]), strict=True)
    np.testing.assert_array_equal(batch["attention_mask"], np.array([[1, 1, 1], [1, 0, 0]]), strict=True)


@pytest.mark.network
def test_agrees_with_the_reference_on_the_real_vocabulary() -> None:
    pieces = vocabulary(minilm_archive())
    texts = ["Crème brûlée, s'il vous plaît!", "unbelievably antidisestablishmentarianism", "x86-64 & RISC-V"]
    assert len(pieces) == 30522
    tokenizer = reference(pieces)
    assert [WordPiece(pieces).encode(t, longest=16) for t in texts] == [tokenizer.encode(t).ids for t in texts]
