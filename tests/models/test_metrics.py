from collections.abc import Sequence

import numpy as np
import pytest

from onnxpress.calibration.batches import Array, Batch, Sample
from onnxpress.calibration.feeds import Feed
from onnxpress.models import metrics, sections
from onnxpress.rewriter.errors import FeedError

ALPHABET = ["", "a", "b", " "]


class Scripted:
    """A runner that gives prepared results, one a batch, and remembers what it was asked."""

    def __init__(self, *results: dict[str, Array]) -> None:
        self.results = iter(results)
        self.asked: list[Batch] = []

    def run(self, batch: Batch) -> dict[str, Array]:
        self.asked.append(batch)
        return next(self.results)


def classes(*lines: Sequence[int]) -> Array:
    """Probabilities [n, steps, 4] whose best classes are these."""
    return np.eye(4, dtype=np.float32)[np.array(lines)]


@pytest.fixture
def alphabet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "characters", lambda: ALPHABET)


def reading(*labels: str) -> Feed:
    return Feed([Sample({"x": np.zeros((len(labels), 1))}, np.array(labels))], count=1)


def test_greedy_drops_repeats_then_blanks() -> None:
    assert metrics.greedy(classes([1, 1, 0, 1, 2, 2, 3, 0, 0, 2])[0], ALPHABET) == "aab b"


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [("", "", 0), ("abc", "", 3), ("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 2), ("same", "same", 0)],
)
def test_edits_counts_the_fewest(left: str, right: str, expected: int) -> None:
    assert metrics.edits(left, right) == expected


@pytest.mark.usefixtures("alphabet")
def test_exact_counts_whole_lines() -> None:
    runner = Scripted({"y": classes([1, 2, 0], [1, 0, 1], [2, 2, 3])})
    assert metrics.ocr_exact(runner, reading("ab", "ab", "b")) == pytest.approx(2 / 3)


@pytest.mark.usefixtures("alphabet")
def test_characters_counts_edits() -> None:
    runner = Scripted({"y": classes([1, 2, 0], [1, 0, 1])})
    assert metrics.ocr_characters(runner, reading("ab", "ab")) == pytest.approx(1 - 1 / 4)


def test_section_accuracy_uses_the_frozen_head() -> None:
    weight, _ = sections.head()
    embeddings = weight[[3, 5, 7]] * 100
    feed = Feed([Sample({"x": np.zeros((3, 1))}, np.array([3, 5, 0]))], count=1)
    assert metrics.section_accuracy(Scripted({"sentence_embedding": embeddings}), feed) == pytest.approx(2 / 3)


def test_speech_auc_carries_the_models_own_state_and_skips_edges() -> None:
    samples = [
        Sample({"state": np.zeros((2, 2, 1))}, np.array([1, 0])),
        Sample({"state": np.ones((2, 2, 1))}, np.array([1, -1])),
    ]
    runner = Scripted(
        {"output": np.array([[0.9], [0.2]]), "stateN": np.full((2, 2, 1), 7.0)},
        {"output": np.array([[0.8], [0.99]]), "stateN": np.full((2, 2, 1), 8.0)},
    )
    assert metrics.speech_auc(runner, Feed(samples, count=2)) == 1
    assert runner.asked[0]["state"].max() == 0
    assert runner.asked[1]["state"].min() == 7


@pytest.mark.usefixtures("alphabet")
@pytest.mark.parametrize("metric", [metrics.ocr_exact, metrics.section_accuracy, metrics.speech_auc])
def test_a_feed_without_labels_is_refused(metric) -> None:
    feed = Feed([Sample({"x": np.zeros((1, 1))})], count=1)
    with pytest.raises(FeedError, match="labels"):
        metric(Scripted({"y": np.zeros((1, 1, 4))}), feed)


@pytest.mark.network
def test_the_alphabet_has_a_name_for_every_class() -> None:
    found = metrics.characters()
    assert len(found) == 6625
    assert (found[0], found[-1]) == ("", " ")
    assert {*"abcXYZ019,.?!':;()-"} <= set(found)
