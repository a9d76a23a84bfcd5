"""Labelled text for the character model: which character comes next in the description of a Debian package.

The descriptions are those of `sections`. A context is what stands before a character, at most 40 of them, behind the
sign that begins a text; shorter ones are padded with zeros on the left, as the model was trained.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from onnxpress.calibration.batches import Array, Sample
from onnxpress.calibration.feeds import Feed
from onnxpress.models.samples import feed
from onnxpress.models.sections import texts_of

_HERE = Path(__file__).parent
_START = "<s>"
_LENGTH = 40  # characters of a context
_FIRST, _STEP = 8, 4  # a character is asked for at the eighth place of a text, and at every fourth after that


def labelled(*, samples: int = 3000, batch: int = 50) -> Feed:
    """Contexts from test texts: `chars` int64 [batch, 40]; labels int64, the number of the character that follows."""
    contexts, labels = _contexts(texts_of("test")[0], samples)
    return _feed(contexts, labels, batch)


def calibration(*, samples: int = 640, batch: int = 16) -> Feed:
    """Contexts from every tenth training text, without labels; inputs as in `labelled`."""
    contexts, _ = _contexts(texts_of("train")[0][::10], samples)
    return _feed(contexts, None, batch)


def characters() -> list[str]:
    """The 464 characters that the model knows, in the order of their numbers from 1; 0 is what it does not know."""
    with gzip.open(_HERE / "textgen-characters.json.gz", "rt", encoding="utf-8") as file:
        return [str(each) for each in json.load(file)]


def _contexts(texts: list[str], samples: int) -> tuple[Array, Array]:
    numbers = {character: number for number, character in enumerate(characters())}
    contexts: list[list[int]] = []
    labels: list[int] = []
    for text in texts:
        codes = [numbers[_START], *(numbers.get(character, 0) for character in text)]
        for place in range(_FIRST, len(codes), _STEP):
            before = codes[max(0, place - _LENGTH) : place]
            contexts.append([0] * (_LENGTH - len(before)) + before)
            labels.append(codes[place])
    return np.array(contexts[:samples], np.int64), np.array(labels[:samples], np.int64)


def _feed(contexts: Array, labels: Array | None, batch: int) -> Feed:
    starts = range(0, len(contexts), batch)

    def make() -> Iterator[Sample]:
        for i in starts:
            yield Sample({"chars": contexts[i : i + batch]}, None if labels is None else labels[i : i + batch])

    return feed(make, count=len(starts))
