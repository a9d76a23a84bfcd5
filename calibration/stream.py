"""Statistics of the tensors inside a model, gathered without keeping activations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from onnxpress.calibration.batches import Batch
from onnxpress.calibration.cut import check_tensors, cut, opset_of
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.lanes import BYTES, Tensor, lanes
from onnxpress.calibration.loading import loaded
from onnxpress.calibration.observers import Observer
from onnxpress.calibration.progress import Progress, Silent
from onnxpress.calibration.providers import CPU
from onnxpress.calibration.session import Level, Runner
from onnxpress.rewriter.errors import FeedError, ModelError

# onnx is imported where it is used: importing onnxpress stays light.
if TYPE_CHECKING:
    import onnx

    from onnxpress.rewriter.model import Model

MEMORY = 256 * 2**20

"""Bytes of activations that may leave ONNX Runtime at once, unless stated otherwise."""


def observe(
    model: str | Path | bytes | Model,
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
        model: a file, whose external data are never read here, the bytes of a model without such, or one in memory.
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
    with loaded(Path(model) if isinstance(model, str) else model) as (parsed, folder):
        check_tensors(parsed, observers)
        stream = _Stream(parsed, folder, tuple(providers), threads, feed, progress or Silent())
        tensors = stream.probe(list(observers))
        waiting = stream.reduce(tensors, observers)
        for group in stream.groups([tensor for tensor in tensors if tensor.name in waiting], memory):
            stream.show(group, observers, waiting)


def describe(model: str | Path | bytes | Model, names: Sequence[str]) -> list[Tensor]:
    """Type and shape of some tensors of the main graph, as ONNX Runtime infers them.

    Raises:
        ConfigError: a name that is no tensor of the main graph.
        ModelError: a model that ONNX Runtime cannot run.
    """
    with loaded(Path(model) if isinstance(model, str) else model) as (parsed, folder):
        check_tensors(parsed, names)
        return _Stream(parsed, folder, (CPU,), None, (), Silent()).probe(names)


@dataclass(frozen=True, slots=True)
class _Stream:
    """The walks through the samples."""

    model: onnx.ModelProto
    folder: Path | None  # of its external data
    providers: tuple[str, ...]
    threads: int | None
    feed: Iterable[Batch]
    progress: Progress

    def probe(self, names: Sequence[str]) -> list[Tensor]:
        """Ask ONNX Runtime about some tensors."""
        try:
            runner = self._open(cut(self.model, names, light=True), optimise="none")
        except ModelError:  # some operators want to see their weights
            runner = self._open(cut(self.model, names), optimise="none")
        with runner:
            types, shapes = runner.output_types, runner.output_shapes
        return [Tensor(name, types[name].removeprefix("tensor(").removesuffix(")"), shapes[name]) for name in names]

    def reduce(self, tensors: Sequence[Tensor], observers: Mapping[str, Observer]) -> dict[str, int]:
        """Walk once for all that can be reduced; return what must be seen itself, and from which batch on."""
        opset = opset_of(self.model)
        found = list(lanes(tensors, observers, prefix=_fresh("observed", self.model), opset=opset))
        waiting = {tensor.name: 0 for tensor in tensors}
        for lane in found:
            del waiting[lane.tensor.name]
        if not found:
            return waiting
        after = {lane.tensor.name: lane.nodes(opset) for lane in found}
        outputs = [output for lane in found for output in lane.outputs]
        with self._open(cut(self.model, outputs, after=after)) as runner:
            for position, batch in enumerate(self._batches("ranges")):
                values = runner.run(batch)
                for lane in found:
                    if lane.tensor.name not in waiting and not lane.update(values):
                        waiting[lane.tensor.name] = position
        return waiting

    def groups(self, tensors: Sequence[Tensor], memory: int) -> Iterator[list[str]]:
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

    def _sizes(self, tensors: Sequence[Tensor]) -> list[int]:
        """Bytes of each tensor for the first batch, counted inside the graph where shapes do not tell."""
        import onnx

        batch = next(self._batches("sizes"))
        dims = _dims(self.model, batch)
        declared = [tensor.bytes_for(dims) for tensor in tensors]
        if all(size is not None for size in declared):
            return [size or 0 for size in declared]
        prefix = _fresh("size", self.model)
        outputs = [f"{prefix}/{position}" for position in range(len(tensors))]
        sizing = zip(tensors, outputs, strict=True)
        after = {tensor.name: [onnx.helper.make_node("Size", [tensor.name], [output])] for tensor, output in sizing}
        with self._open(cut(self.model, outputs, after=after)) as runner:
            values = runner.run(batch)
        return [
            int(values[output]) * BYTES.get(tensor.element, 8) for tensor, output in zip(tensors, outputs, strict=True)
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


def _fresh(hint: str, model: onnx.ModelProto) -> str:
    """A prefix that no tensor of the model has."""
    names = {name for node in model.graph.node for name in (*node.input, *node.output)}
    names.update(value.name for value in model.graph.input)
    while any(name.startswith(hint) for name in names):
        hint += "_"
    return hint


def _dims(model: onnx.ModelProto, batch: Batch) -> dict[str, int]:
    """The sizes that a batch gives to the named dimensions of the inputs; without those that it gives several."""
    found: dict[str, set[int]] = {}
    for value in model.graph.input:
        if value.name in batch:
            for dim, size in zip(value.type.tensor_type.shape.dim, batch[value.name].shape, strict=False):
                found.setdefault(dim.dim_param, set()).add(size)
    return {name: sizes.pop() for name, sizes in found.items() if name and len(sizes) == 1}
