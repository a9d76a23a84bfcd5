"""What branches of a model do for its outputs: each is switched off in one session, alone and together with others.

A copy of the model gets a switch for each branch, `Where(select[i], stand-in, f(x))`, so that any choice of branches is
tried without loading a model twice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.calibration.batches import Array, Batch
from onnxpress.calibration.session import Runner
from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.errors import decibels
from onnxpress.passes.prune.blocks.averages import Means
from onnxpress.passes.prune.blocks.branch import Branch
from onnxpress.passes.prune.judge import BATCHES, ROWS, Judge
from onnxpress.rewriter.edits import add_node, set_input, sort
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.model import Model


class SwitchedModel:
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
        self._batches = list(bench.feed.spread(BATCHES, rows=ROWS))
        copy = model.clone()
        self._judge = Judge(copy)
        self._board, self._count, self._bench = _Switchboard(copy, branches, means), len(branches), bench
        self._folder = TemporaryDirectory(prefix="onnxpress-")
        path = Path(self._folder.name) / "model.onnx"
        copy.save(path)
        self._runner = Runner(path, providers=bench.providers, threads=bench.threads)
        self.unlike: set[int] = set()
        for batch in self._batches:
            self._learn(batch)
        self._known: dict[frozenset[int], float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.close()
        self._folder.cleanup()

    @property
    def useful(self) -> bool:
        """Whether there is an output of floating-point numbers, which can become a little worse."""
        return self._judge.useful

    def sqnr(self, chosen: Collection[int]) -> float:
        """Signal to noise of the worst output without some branches, in dB; −inf for no number (see `Judge`)."""
        key = frozenset(chosen)
        if key not in self._known:
            batches = (self._select(batch, key) for batch in self._batches)
            given = (self._runner.run(batch, outputs=self._judge.outputs) for batch in batches)
            self._known[key] = decibels(self._judge.noise(given))
        return self._known[key]

    def compare(self, model: Model) -> float:
        """The same of the model itself, once branches were removed."""
        copy = model.clone()
        names = self._judge.expose(copy)
        path = Path(self._folder.name) / "other.onnx"
        copy.save(path)
        with Runner(path, providers=self._bench.providers, threads=self._bench.threads) as runner:
            found = (runner.run(batch, outputs=list(dict.fromkeys(names.values()))) for batch in self._batches)
            return decibels(self._judge.noise({own: given[name] for own, name in names.items()} for given in found))

    def _learn(self, batch: Batch) -> None:
        """Run the model as it is."""
        shapes = [name for pair in self._board.shapes.values() for name in pair]
        given = self._runner.run(self._select(batch, ()), outputs=[*self._judge.outputs, *shapes])
        for index, (result, kept) in self._board.shapes.items():
            if not np.array_equal(given[result], given[kept]):
                self.unlike.add(index)
        self._judge.learn(given)

    def _select(self, batch: Batch, chosen: Collection[int]) -> dict[str, Array]:
        select = np.zeros(self._count, np.bool_)
        select[list(chosen)] = True
        return {**batch, self._board.select: select}


class _Switchboard:
    """A model with switches: the name of the input that sets them, and what tells the shapes that are not known."""

    def __init__(self, model: Model, branches: Sequence[Branch], means: Means) -> None:
        self.model = model
        self._nodes = {tensor.name: node for node in model.graph.nodes for tensor in node.outputs}
        select = gs.Variable(model.names.fresh("select"), np.dtype(np.bool_), [len(branches)])
        model.graph.inputs.append(select)
        self.select = str(select.name)
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
