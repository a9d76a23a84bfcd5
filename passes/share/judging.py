"""What another version of a model does to its outputs, on samples that taught it little."""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory

from onnxpress.calibration.batches import Array, Batch
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.session import Runner
from onnxpress.passes.base import Workbench
from onnxpress.passes.prune.judge import BATCHES, Judge
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.model import Model

HELD_OUT = 0.25
"""Part of the samples by which ridges are chosen and models are judged, as `equations` has it."""


class Whole:
    """The outputs of a model for some samples, and how far those of others are from them."""

    def __init__(self, model: Model, bench: Workbench) -> None:
        """Run the samples.

        Args:
            model: is not changed.
            bench: brings the samples.

        Raises:
            FeedError: there are none.
        """
        if bench.feed is None:
            raise FeedError("outputs are judged on samples; give some with --data")
        self._bench = bench
        self._batches = _held_out(bench.feed)
        copy = model.clone()
        self._judge = Judge(copy)
        for given in self._outputs(copy, {name: name for name in self._judge.outputs}):
            self._judge.learn(given)

    @property
    def useful(self) -> bool:
        """Whether the model has outputs that can get a little worse."""
        return self._judge.useful

    def noise(self, model: Model) -> float:
        """The greatest Σ(y − y')² / Σy² of any output of another version of the model (see `Judge.noise`)."""
        copy = model.clone()
        return self._judge.noise(self._outputs(copy, self._judge.expose(copy)))

    def _outputs(self, copy: Model, names: dict[str, str]) -> list[dict[str, Array]]:
        with TemporaryDirectory(prefix="onnxpress-") as folder:
            path = Path(folder) / "model.onnx"
            copy.save(path)
            with Runner(path, providers=self._bench.providers, threads=self._bench.threads) as runner:
                found = [runner.run(batch, outputs=list(names.values())) for batch in self._batches]
        return [{name: each[there] for name, there in names.items()} for each in found]


def _held_out(feed: Feed) -> list[Batch]:
    """Whole batches that are held out where there are so many, as `equations` does; else the first ones."""
    if feed.count is None or feed.count < math.ceil(1 / HELD_OUT):
        return [dict(each) for each in feed.spread(BATCHES)]
    chosen: list[Batch] = []
    for number, batch in enumerate(feed):
        if math.floor((number + 1) * HELD_OUT) > math.floor(number * HELD_OUT):
            chosen.append(dict(batch))
        if len(chosen) == BATCHES:
            break
    return chosen
