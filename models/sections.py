"""Labelled text for MiniLM: descriptions of Debian packages, and the section of the archive each package is in.

The task is to tell the section (one of 20) from the sentence embedding by a linear head. The head was fitted once, by
`fit_head` on the float model, and is committed: a compressed model is measured with the head of the float one.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from onnxpress.calibration.batches import Array, Sample
from onnxpress.calibration.feeds import Feed
from onnxpress.models.minilm import vocabulary
from onnxpress.models.samples import by_length, feed
from onnxpress.models.wordpiece import WordPiece, pad
from onnxpress.models.zoo import minilm_archive

_HERE = Path(__file__).parent
_LONGEST = 64  # tokens; the descriptions are one line each


def labelled(*, batch: int = 16, cache: Path | None = None) -> Feed:
    """The 984 test texts: `input_ids` and `attention_mask`, int64 [batch, sequence]; labels int64 0..19."""
    texts, labels = texts_of("test")
    return _tokens(texts, labels, batch, cache)


def calibration(*, samples: int = 256, batch: int = 16, cache: Path | None = None) -> Feed:
    """`samples` of the 2,000 training texts, evenly over all sections, without labels; inputs as in `labelled`."""
    texts, _ = texts_of("train")
    chosen = np.linspace(0, len(texts) - 1, num=min(samples, len(texts))).astype(int)
    return _tokens([texts[i] for i in chosen], None, batch, cache)


def training(*, batch: int = 16, cache: Path | None = None) -> Feed:
    """The 2,000 training texts with their labels, on which the head was fitted; inputs as in `labelled`."""
    texts, labels = texts_of("train")
    return _tokens(texts, labels, batch, cache)


def texts_of(half: Literal["train", "test"]) -> tuple[list[str], Array]:
    """The texts of one half and their labels, int64: the place of the section in alphabetical order."""
    with gzip.open(_HERE / "debian-sections.json.gz", "rt", encoding="utf-8") as file:
        entries: list[tuple[str, str, str]] = json.load(file)
    sections = sorted({section for _, section, _ in entries})
    chosen = [(text, sections.index(section)) for text, section, part in entries if part == half]
    return [text for text, _ in chosen], np.array([label for _, label in chosen], np.int64)


def head() -> tuple[Array, Array]:
    """The frozen head: weight float32 [20, 384], bias float32 [20]; logits are `embedding @ weight.T + bias`."""
    with np.load(_HERE / "minilm-head.npz", allow_pickle=False) as arrays:
        return np.asarray(arrays["weight"]), np.asarray(arrays["bias"])


def fit_head(embeddings: Array, labels: Array) -> tuple[Array, Array]:
    """Fit the head as the committed one was: logistic regression, C = 10.

    Args:
        embeddings: float [n, 384], of the float model on `training`.
        labels: int64 [n].
    """
    from sklearn.linear_model import LogisticRegression  # here, because importing it takes a second

    fitted = LogisticRegression(C=10, max_iter=500).fit(embeddings, labels)
    return fitted.coef_.astype(np.float32), fitted.intercept_.astype(np.float32)


def _tokens(texts: Sequence[str], labels: Array | None, batch: int, cache: Path | None) -> Feed:
    tokenizer = WordPiece(vocabulary(minilm_archive(cache=cache)))
    encoded = [tokenizer.encode(text, longest=_LONGEST) for text in texts]
    batches = by_length([len(tokens) for tokens in encoded], batch=batch, seed=0)

    def make() -> Iterator[Sample]:
        for chosen in batches:
            yield Sample(pad([encoded[i] for i in chosen]), None if labels is None else labels[chosen])

    return feed(make, count=len(batches))
