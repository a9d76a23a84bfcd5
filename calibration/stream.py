"""Statistics of the tensors inside a model, gathered without keeping activations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxpress.calibration.batches import Array, Batch
from onnxpress.calibration.cut import check_tensors, cut, opset_of, read_model
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.observers import Observer, Reducible, Reduction
from onnxpress.calibration.progress import Progress, Silent
from onnxpress.calibration.session import CPU, Level, Runner
from onnxpress.rewriter.errors import FeedError

# onnx is imported where it is used: importing onnxpress stays light.
if TYPE_CHECKING:
    import onnx

MEMORY = 256 * 2**20

"""Bytes of activations that may leave ONNX Runtime at once, unless stated otherwise."""

_BYTES: Mapping[str, int] = {"float": 4, "double": 8, "float16": 2, "int32": 4, "int64": 8, "int8": 1, "uint8": 1}
"""Element types that ONNX Runtime reduces, and their sizes."""

_FLOATS = frozenset({"float", "double", "float16"})


def observe(
    model: str | Path | bytes,
    observers: Mapping[str, Observer],
    feed: Iterable[Batch],
    *,
    providers: Sequence[str] = (CPU,),
    threads: int | None = None,
    memory: int = MEMORY,
    progress: Progress | None = None,
) -> None:
    """Show every tensor of `observers` to its observer, batch by batch.

    An observer that is content with reductions (`Reducible`) gets them from inside the graph: no activation leaves
    ONNX Runtime. Tensors that must be seen themselves, also those that turn out to hold NaN or infinities, are walked
    through in groups that fit into `memory`, each with only the part of the graph that it needs.

    Args:
        model: a file, whose external data are never read here, or the bytes of a model without such.
        observers: one for each tensor of the main graph, by name: inputs, weights, or outputs of any node.
        feed: re-iterable batches.
        providers: execution providers, by short or full name.
        threads: threads inside an operator; None leaves the choice to ONNX Runtime.
        memory: bytes that the tensors of one group may take, by the sizes of the first batch; a larger one is alone.
        progress: told about each walk.

    Raises:
        ConfigError: a name that is no tensor of the main graph.
        FeedError: nothing in the feed, or a sample the model cannot run.
        ModelError: a model that ONNX Runtime cannot run.
    """
    if not observers:
        return
    source = model if isinstance(model, bytes) else Path(model)
    parsed = read_model(source)
    check_tensors(parsed, observers)
    folder = None if isinstance(source, bytes) else source.parent
    stream = _Stream(parsed, folder, tuple(providers), threads, feed, progress or Silent())
    tensors = stream.probe(list(observers))
    waiting = stream.reduce(tensors, observers)
    for group in stream.groups([tensor for tensor in tensors if tensor.name in waiting], memory):
        stream.show(group, observers, waiting)


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor as ONNX Runtime infers it."""

    name: str
    element: str  # "float"; other types than tensors in full
    rank: int | None


@dataclass(frozen=True, slots=True)
class _Lane:
    """One tensor, reduced in the graph to a few small outputs."""

    tensor: _Tensor
    observer: Reducible
    reductions: tuple[Reduction, ...]
    prefix: str

    @property
    def outputs(self) -> list[str]:
        """Names of the results; of floats, last the mean, which is not finite if any entry is not.

        A minimum or maximum may lose a NaN, depending on the vector width.
        """
        return [f"{self.prefix}/{position}" for position in range(len(self._all))]

    @property
    def _all(self) -> tuple[Reduction, ...]:
        return self.reductions + (Reduction("ReduceMean"),) * (self.tensor.element in _FLOATS)

    def nodes(self, opset: int) -> list[onnx.NodeProto]:
        """What computes the outputs."""
        pairs = zip(self._all, self.outputs, strict=True)
        return [node for reduction, output in pairs for node in _reduce(reduction, self.tensor.name, output, opset)]

    def update(self, values: Mapping[str, Array]) -> bool:
        """Show one batch; False, with nothing shown, where an entry is not finite."""
        reduced = [values[output] for output in self.outputs]
        if not all(np.isfinite(value).all() for value in reduced):
            return False
        self.observer.update_reduced(reduced[: len(self.reductions)])
        return True


@dataclass(frozen=True, slots=True)
class _Stream:
    """The walks through the samples."""

    model: onnx.ModelProto
    folder: Path | None  # of its external data
    providers: tuple[str, ...]
    threads: int | None
    feed: Iterable[Batch]
    progress: Progress

    def probe(self, names: Sequence[str]) -> list[_Tensor]:
        """Ask ONNX Runtime about some tensors."""
        with self._open(cut(self.model, names), optimise="none") as runner:
            types, ranks = runner.output_types, runner.output_ranks
        return [_Tensor(name, types[name].removeprefix("tensor(").removesuffix(")"), ranks[name]) for name in names]

    def reduce(self, tensors: Sequence[_Tensor], observers: Mapping[str, Observer]) -> dict[str, int]:
        """Walk once for all that can be reduced; return what must be seen itself, and from which batch on."""
        lanes = list(self._lanes(tensors, observers))
        waiting = {tensor.name: 0 for tensor in tensors}
        for lane in lanes:
            del waiting[lane.tensor.name]
        if not lanes:
            return waiting
        after = {lane.tensor.name: lane.nodes(opset_of(self.model)) for lane in lanes}
        outputs = [output for lane in lanes for output in lane.outputs]
        with self._open(cut(self.model, outputs, after=after)) as runner:
            for position, batch in enumerate(self._batches("ranges")):
                values = runner.run(batch)
                for lane in lanes:
                    if lane.tensor.name not in waiting and not lane.update(values):
                        waiting[lane.tensor.name] = position
        return waiting

    def groups(self, tensors: Sequence[_Tensor], memory: int) -> Iterator[list[str]]:
        """Part `tensors` into groups whose outputs for the first batch fit into `memory`."""
        sizes = self._sizes(tensors) if len(tensors) > 1 else [0] * len(tensors)
        group: list[str] = []
        total = 0
        for tensor, size in zip(tensors, sizes, strict=True):
            if group and total + size > memory:
                yield group
                group, total = [], 0
            group.append(tensor.name)
            total += size
        if group:
            yield group

    def show(self, group: Sequence[str], observers: Mapping[str, Observer], since: Mapping[str, int]) -> None:
        """Walk once for the tensors of a group, showing each from the batch `since` on."""
        first = min(since[tensor] for tensor in group)
        with self._open(cut(self.model, group)) as runner:
            for position, batch in enumerate(islice(self._batches("activations"), first, None), start=first):
                wanted = [tensor for tensor in group if since[tensor] <= position]
                values = runner.run(batch, outputs=wanted)
                for tensor in wanted:
                    observers[tensor].update(values.pop(tensor))

    def _lanes(self, tensors: Sequence[_Tensor], observers: Mapping[str, Observer]) -> Iterator[_Lane]:
        prefix = _fresh("observed", self.model)
        for position, tensor in enumerate(tensors):
            observer = observers[tensor.name]
            if isinstance(observer, Reducible) and tensor.element in _BYTES:
                reductions = tuple(observer.reductions(tensor.rank))
                if reductions:
                    yield _Lane(tensor, observer, reductions, f"{prefix}/{position}")

    def _sizes(self, tensors: Sequence[_Tensor]) -> list[int]:
        """Bytes of each tensor for the first batch, counted inside the graph."""
        import onnx

        prefix = _fresh("size", self.model)
        outputs = [f"{prefix}/{position}" for position in range(len(tensors))]
        sizing = zip(tensors, outputs, strict=True)
        after = {tensor.name: [onnx.helper.make_node("Size", [tensor.name], [output])] for tensor, output in sizing}
        with self._open(cut(self.model, outputs, after=after)) as runner:
            values = runner.run(next(self._batches("sizes")))
        return [
            int(values[output]) * _BYTES.get(tensor.element, 8) for tensor, output in zip(tensors, outputs, strict=True)
        ]

    def _batches(self, label: str) -> Iterator[Batch]:
        """Walk through the samples.

        Raises:
            FeedError: there are none.
        """
        empty = True
        total = self.feed.count if isinstance(self.feed, Feed) else None
        for batch in self.progress.track(self.feed, label=label, total=total):
            empty = False
            yield batch
        if empty:
            raise FeedError("the feed holds no samples; give at least one")

    def _open(self, model: onnx.ModelProto, *, optimise: Level = "all") -> Runner:
        """Open a part of the model, whose external weights are still where they were.

        Its nodes run in the order of the file: ONNX Runtime's own order puts the reductions last, and keeps every
        activation alive until then (10 GB instead of 0.7 GB for a ResNet-50 of width one half on 32 images).
        """
        return Runner(
            model.SerializeToString(),
            providers=self.providers,
            threads=self.threads,
            optimise=optimise,
            weights_folder=self.folder,
            file_order=True,
        )


def _reduce(reduction: Reduction, tensor: str, output: str, opset: int) -> list[onnx.NodeProto]:
    """Nodes of one reduction; its axes were an attribute up to opset 17, an input after that."""
    from onnx import helper

    if reduction.axes is None:
        return [helper.make_node(reduction.op, [tensor], [output], keepdims=0)]
    if opset < 18:
        return [helper.make_node(reduction.op, [tensor], [output], keepdims=0, axes=reduction.axes)]
    axes = helper.make_node("Constant", [], [f"{output}/axes"], value_ints=reduction.axes)
    return [axes, helper.make_node(reduction.op, [tensor, f"{output}/axes"], [output], keepdims=0)]


def _fresh(hint: str, model: onnx.ModelProto) -> str:
    """A prefix that no tensor of the model has."""
    names = {name for node in model.graph.node for name in (*node.input, *node.output)}
    names.update(value.name for value in model.graph.input)
    while any(name.startswith(hint) for name in names):
        hint += "_"
    return hint
