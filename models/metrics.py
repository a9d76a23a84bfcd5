"""The tasks' own measures: functions of a runner and a labelled feed, larger is better.

Named on the command line as `onnxpress.models.metrics:ocr_exact` and so on. Digits and text direction need none of
their own: `top1` measures them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx

from onnxpress.calibration.batches import Array, Batch
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.session import Runner
from onnxpress.models import sections, zoo
from onnxpress.rewriter.errors import FeedError


def ocr_exact(runner: Runner, feed: Feed) -> float:
    """Share of lines that PP-OCR reads without a single mistake, 0..1; feed: `lines:recognition`.

    Raises:
        FeedError: the feed has no labels.
        FetchError: the list of characters, which is in the float model, cannot be fetched.
    """
    pairs = list(_read_lines(runner, feed))
    return sum(read == truth for read, truth in pairs) / len(pairs)


def ocr_characters(runner: Runner, feed: Feed) -> float:
    """1 minus the character error rate of PP-OCR: edits needed over characters there; feed: `lines:recognition`.

    Raises:
        FeedError: the feed has no labels.
        FetchError: the list of characters, which is in the float model, cannot be fetched.
    """
    pairs = list(_read_lines(runner, feed))
    return 1 - sum(edits(read, truth) for read, truth in pairs) / sum(len(truth) for _, truth in pairs)


def section_accuracy(runner: Runner, feed: Feed) -> float:
    """Share of texts whose section the frozen head tells from MiniLM's embedding, 0..1; feed: `sections:labelled`.

    Raises:
        FeedError: the feed has no labels.
    """
    weight, bias = sections.head()
    right = [
        (_first(runner.run(batch)) @ weight.T + bias).argmax(axis=1) == labels for batch, labels in _labelled(feed)
    ]
    return float(np.concatenate(right).mean())


def speech_auc(runner: Runner, feed: Feed) -> float:
    """Area under the ROC curve of the VAD over frames all speech or all pause, 0..1; feed: `speech:labelled`.

    The model's own state is carried from frame to frame, as in use, so its errors add up.

    Raises:
        FeedError: the feed has no labels.
    """
    from sklearn.metrics import roc_auc_score  # here, because importing it takes a second

    scores, truths = [], []
    state: Array | None = None
    for batch, labels in _labelled(feed):
        results = runner.run(batch if state is None else {**batch, "state": state})
        state = results["stateN"]
        scores.append(results["output"][:, 0])
        truths.append(labels)
    score, truth = np.concatenate(scores), np.concatenate(truths)
    return float(roc_auc_score(truth[truth >= 0], score[truth >= 0]))


def characters() -> list[str]:
    """What PP-OCR's classes stand for: nothing (the blank of CTC), the characters in the model's metadata, the space.

    Read from the float model, because a compressed one need not have the metadata.
    """
    model = onnx.load(zoo.path("ppocr-rec"))
    listed = next(entry.value for entry in model.metadata_props if entry.key == "character")
    return ["", *listed.splitlines(), " "]


def greedy(probabilities: Array, alphabet: Sequence[str]) -> str:
    """The text of one line by CTC: the best class of each step, repeats once, blanks dropped (Graves et al., 2006).

    Args:
        probabilities: [steps, classes].
        alphabet: what each class stands for; class 0 is the blank.
    """
    best = probabilities.argmax(axis=1)
    kept = best[(best != 0) & (best != np.concatenate([[-1], best[:-1]]))]
    return "".join(alphabet[k] for k in kept)


def edits(left: str, right: str) -> int:
    """Characters to insert, delete or replace to turn one text into the other (Levenshtein, 1966)."""
    costs = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        before, costs[0] = costs[0], i
        for j, b in enumerate(right, 1):
            before, costs[j] = costs[j], min(costs[j] + 1, costs[j - 1] + 1, before + (a != b))
    return costs[-1]


def _read_lines(runner: Runner, feed: Feed) -> Iterator[tuple[str, str]]:
    alphabet = characters()
    for batch, labels in _labelled(feed):
        for line, truth in zip(_first(runner.run(batch)), labels, strict=True):
            yield greedy(line, alphabet).strip(), str(truth)


def _labelled(feed: Feed) -> Iterator[tuple[Batch, Array]]:
    for sample in feed.samples():
        if sample.labels is None:
            raise FeedError("this metric needs labels; give it the model's labelled feed")
        yield sample.batch, sample.labels


def _first(results: dict[str, Array]) -> Array:
    return next(iter(results.values()))
