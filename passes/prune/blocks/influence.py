"""What branches of a model do for its outputs: each is switched off in one session, alone and together with others.

A copy of the model gets a switch for each branch, `Where(select[i], stand-in, f(x))`, so that any choice of branches is
tried without loading a model twice.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.calibration.batches import Array, Batch
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.metrics import Comparison
from onnxpress.calibration.session import Runner
from onnxpress.passes.base import Workbench
from onnxpress.passes.prune.blocks.averages import Means
from onnxpress.passes.prune.blocks.residual import Branch
from onnxpress.passes.prune.ends import expose, find_end
from onnxpress.rewriter.edits import add_node, set_input, sort
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.model import Model

BATCHES = 8
"""Batches of samples that are run at most, once for each choice of branches."""

ROWS = 16
"""Samples that are enough, so that a few large batches do."""


class Trial:
    """A model whose branches can be switched off. Use it as a context manager.

    Attributes:
        unlike: indices of branches without which the result has another shape.
    """

    def __init__(self, model: Model, branches: Sequence[Branch], means: Means, bench: Workbench) -> None:
        """Open the model with its switches and run it once as it is.

        Raises:
            FeedError: there are no samples.
        """
        if bench.feed is None:
            raise FeedError("what a branch does for the outputs is tried on samples; give some with --data")
        self._folder = TemporaryDirectory(prefix="onnxpress-")
        board = _Switchboard(model.clone(), branches, means)
        path = Path(self._folder.name) / "model.onnx"
        board.model.save(path)
        self._runner = Runner(path, providers=bench.providers, threads=bench.threads)
        self._board, self._count, self._bench = board, len(branches), bench
        self._judged = list(dict.fromkeys(end.name for end in board.ends))
        self._batches = list(_some(bench.feed))
        self.unlike: set[int] = set()
        self._references = [self._reference(batch) for batch in self._batches]
        self._known: dict[frozenset[int], float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.close()
        self._folder.cleanup()

    @property
    def judges(self) -> bool:
        """Whether there is an output of floating-point numbers, which can become a little worse."""
        return any(self._references)

    def sqnr(self, chosen: Collection[int]) -> float:
        """Signal to noise of the worst output without some branches, in dB; −inf where it is no number.

        Where an output comes from a Softmax, a Sigmoid or the like, what that reads is judged; of a Softmax without the
        mean, which makes no difference.
        """
        key = frozenset(chosen)
        if key not in self._known:
            self._known[key] = self._measure(key)
        return self._known[key]

    def compare(self, model: Model) -> float:
        """The same of the model itself, once branches were removed."""
        copy = model.clone()
        ends = self._board.ends
        names = [expose(copy, output, end.depth) for output, end in zip(list(copy.graph.outputs), ends, strict=True)]
        path = Path(self._folder.name) / "other.onnx"
        copy.save(path)
        with Runner(path, providers=self._bench.providers, threads=self._bench.threads) as runner:
            found = (runner.run(batch, outputs=list(dict.fromkeys(names))) for batch in self._batches)
            pairs = [(end.name, name) for end, name in zip(ends, names, strict=True)]
            return self._worst({own: given[name] for own, name in pairs} for given in found)

    def _measure(self, chosen: frozenset[int]) -> float:
        batches = (self._select(batch, chosen) for batch in self._batches)
        return self._worst(self._runner.run(batch, outputs=self._judged) for batch in batches)

    def _worst(self, outputs: Iterable[Mapping[str, Array]]) -> float:
        sums: dict[str, Comparison] = {}
        for given, reference in zip(outputs, self._references, strict=True):
            floats = self._floats(given)
            for name, values in reference.items():
                add(sums.setdefault(name, Comparison()), values, floats[name])
        found = [each.sqnr for each in sums.values()]
        return -math.inf if any(map(math.isnan, found)) else min(found, default=math.inf)

    def _reference(self, batch: Batch) -> dict[str, Array]:
        shapes = [name for pair in self._board.shapes.values() for name in pair]
        given = self._runner.run(self._select(batch, ()), outputs=[*self._judged, *shapes])
        for index, (result, kept) in self._board.shapes.items():
            if not np.array_equal(given[result], given[kept]):
                self.unlike.add(index)
        return self._floats(given)

    def _floats(self, given: Mapping[str, Array]) -> dict[str, Array]:
        """What is judged of the outputs of one batch."""
        floats = {name: given[name] for name in self._judged if given[name].dtype.kind == "f"}
        axes = {end.name: end.axis for end in self._board.ends if end.axis is not None}
        for name in floats.keys() & axes.keys():
            floats[name] = floats[name] - floats[name].mean(axis=axes[name], keepdims=True)
        return floats

    def _select(self, batch: Batch, chosen: Collection[int]) -> dict[str, Array]:
        select = np.zeros(self._count, np.bool_)
        select[list(chosen)] = True
        return {**batch, self._board.select: select}


def add(comparison: Comparison, reference: Array, test: Array) -> None:
    """Compare one batch of an output; one of another shape has nothing to compare, and counts as unlike."""
    if reference.shape == test.shape:
        comparison.update(reference, test)
    else:
        comparison.unlike += 1


def _some(feed: Feed) -> Iterator[Batch]:
    """A few batches, spread over the feed.

    Raises:
        FeedError: there are none.
    """
    rows = 0
    for batch in feed if feed.count is not None and feed.count <= BATCHES else feed.split(BATCHES)[0]:
        yield batch
        rows += max((len(array) for array in batch.values() if array.ndim), default=1)
        if rows >= ROWS:
            break
    if not rows:
        raise FeedError("the feed holds no samples; give at least one")


class _Switchboard:
    """A model with switches: the name of the input that sets them, and what tells the shapes that are not known."""

    def __init__(self, model: Model, branches: Sequence[Branch], means: Means) -> None:
        self.model = model
        self._nodes = {tensor.name: node for node in model.graph.nodes for tensor in node.outputs}
        select = gs.Variable(model.names.fresh("select"), np.dtype(np.bool_), [len(branches)])
        model.graph.inputs.append(select)
        self.select = str(select.name)
        outputs = list(model.graph.outputs)
        self.ends = [find_end(model, each) for each in outputs]
        for each, end in zip(outputs, self.ends, strict=True):
            expose(model, each, end.depth)
        self.shapes: dict[int, tuple[str, str]] = {}
        for index, branch in enumerate(branches):
            join = self._nodes[branch.join.outputs[0].name]
            if not branch.certain:
                kept = join.inputs[1 - branch.index]
                self.shapes[index] = self._shape(join.outputs[0]), self._shape(kept)
            plain = join.inputs[branch.index]
            number = model.add_weight("i", np.array(index, np.int64))
            on = self._add("Gather", [select, number], {"axis": 0})
            stand_in = model.add_weight("stand_in", means.of(branch, branch.dtype))
            set_input(join, branch.index, self._add("Where", [on, stand_in, plain]))
        sort(model.graph)

    def _shape(self, tensor: gs.Tensor) -> str:
        shape = self._add("Shape", [tensor])
        shape.dtype, shape.shape = np.dtype(np.int64), [None]
        self.model.graph.outputs.append(shape)
        return str(shape.name)

    def _add(self, op: str, inputs: Sequence[gs.Tensor], attrs: dict[str, object] | None = None) -> gs.Tensor:
        return add_node(self.model, self.model.graph, op, inputs, hint="switch", attrs=attrs)
