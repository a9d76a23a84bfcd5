"""A model run over the samples in stages, so that each node runs once although tensors are asked for one by one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from onnxpress.calibration.batches import Array, Batch
from onnxpress.calibration.cut import between, check_tensors, names_read, nodes_between
from onnxpress.calibration.loading import placed
from onnxpress.calibration.providers import CPU
from onnxpress.calibration.session import Runner
from onnxpress.rewriter.errors import ConfigError, FeedError, ModelError

# onnx is imported where it is used: importing onnxpress stays light.
if TYPE_CHECKING:
    import onnx

    from onnxpress.rewriter.model import Model
    from onnxpress.rewriter.skeleton import Skeleton

_SIZES = (8, 16, 32, 64)
_NUMBERS = ("float", "double", "float16", "bool", *(f"{sign}int{size}" for sign in ("", "u") for size in _SIZES))
_ARRAYS = frozenset(f"tensor({name})" for name in _NUMBERS)
"""Types, as ONNX Runtime writes them, that go to arrays and back."""


class Relay:
    """Runs a model over the samples, from the tensors it was run to before; use it as a context manager.

    What later nodes read of what was computed is kept, a file for each tensor and batch, in a temporary folder, and
    removed as soon as no node needs it that has not run yet. Between two runs the model may change behind the tensors
    that were asked for: other weights, other nodes, fewer channels; what was computed is not computed again.
    Tensors that no array holds (sequences, bfloat16) are not kept but computed again from what is.
    """

    def __init__(
        self,
        feed: Iterable[Batch],
        *,
        providers: Sequence[str] = (CPU,),
        threads: int | None = None,
        folder: Path | None = None,
    ) -> None:
        """Start with nothing computed.

        Args:
            feed: re-iterable batches, the same in every walk; their shapes may differ.
            providers: execution providers, by short or full name.
            threads: threads inside an operator; None leaves the choice to ONNX Runtime.
            folder: where the temporary folder is made; by default where the system has its own.
        """
        self._feed = feed
        self._providers, self._threads = tuple(providers), threads
        self._made = TemporaryDirectory(prefix="onnxpress-", dir=folder)
        self._folder = Path(self._made.name)
        self._numbers = count()
        self._batches: int | None = None
        self._kept: dict[str, _Kept] = {}
        self._computed: set[str] = set()  # by all nodes that ran, kept or not
        self._asked: set[str] = set()
        self._fleeting: set[str] = set()  # what no array holds

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove what is kept; running on is an error."""
        self._kept.clear()
        self._made.cleanup()

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the tensors that are kept."""
        return tuple(self._kept)

    def run(self, model: Model, tensors: Sequence[str], *, keep: bool = True) -> Iterator[dict[str, Array]]:
        """The values of some tensors, batch by batch; only nodes run that stand between them and what is kept.

        The relay moves on once all batches were taken; before, it is as it was.

        Args:
            model: as it is now.
            tensors: of the main graph, by name: inputs, weights, or outputs of any node; asked for before or not.
            keep: False to look ahead only: nothing is kept, and the nodes will run again.

        Yields:
            An array for every tensor, in the type the model gives it.

        Raises:
            ConfigError: a name that is no tensor of the main graph, or one of a type that no array has.
            FeedError: nothing in the feed, or a sample the model cannot run.
            ModelError: a model that ONNX Runtime cannot run, or no room for what is to be kept.
        """
        wanted = tuple(dict.fromkeys(tensors))
        skeleton = model.skeleton()
        graph = skeleton.proto.graph
        check_tensors(skeleton.proto, wanted)
        weights = {each.name: model.array(each) for each in model.constants() if each.name in wanted}
        given = self._given(graph)
        targets = tuple(name for name in wanted if name not in given and name not in weights)
        while True:
            stage = self._stage(graph, targets, wanted, given) if keep else _Stage(targets)
            with self._opened(skeleton, given, stage.outputs) as (runner, sources):
                fleeting = _without_array(runner)
                if odd := sorted(fleeting.intersection(targets)):
                    raise ConfigError(f"tensor {odd[0]!r} is of a type that NumPy has no arrays of; ask for another")
                if not fleeting:
                    read = dict.fromkeys([*sources, *(name for name in wanted if name in given)])
                    for found in self._walk(stage, runner, tuple(read), sources):
                        yield {name: weights[name] if name in weights else found[name] for name in wanted}
                    break
            self._fleeting |= fleeting
        if keep:
            self._asked.update(wanted)

    def _given(self, graph: onnx.GraphProto) -> dict[str, onnx.ValueInfoProto]:
        """What need not be computed, with types: inputs of the model and what is kept."""
        weights = {weight.name for weight in graph.initializer}
        given = {value.name: value for value in graph.input if value.name not in weights}
        return given | {name: kept.declared(name) for name, kept in self._kept.items()}

    def _stage(
        self, graph: onnx.GraphProto, targets: tuple[str, ...], wanted: Collection[str], given: Collection[str]
    ) -> _Stage:
        """What is computed on the way to some tensors, and what must be kept of it for later."""
        made = {name for node in nodes_between(graph, given, targets) for name in node.output if name}
        computed = self._computed | made
        needed = {value.name for value in graph.output} - self._asked.union(wanted)
        for node in reversed(graph.node):
            again = any(name in self._fleeting and name in needed for name in node.output)
            if again or any(name and name not in computed for name in node.output):
                needed.update(names_read(node))
        kept = {name for name in made & needed if name not in given and name not in self._fleeting}
        return _Stage(tuple(dict.fromkeys([*targets, *sorted(kept)])), kept, set(self._kept) - needed, computed)

    @contextmanager
    def _opened(
        self, skeleton: Skeleton, given: Mapping[str, onnx.ValueInfoProto], outputs: Sequence[str]
    ) -> Iterator[tuple[Runner | None, tuple[str, ...]]]:
        """The part of the model that computes `outputs`, and what it reads; no part where there is nothing to do.

        Its nodes run in the order of the file, as in `stream`: that keeps few activations alive.
        """
        if not outputs:
            yield None, ()
            return
        part = between(skeleton.proto, given, outputs)
        sources = tuple(value.name for value in part.graph.input if value.name in given)
        with (
            placed(type(skeleton)(part, skeleton.table)) as (message, folder),
            Runner(
                message.SerializeToString(),
                providers=self._providers,
                threads=self._threads,
                weights_folder=folder,
                file_order=True,
            ) as runner,
        ):
            yield runner, sources

    def _walk(
        self, stage: _Stage, runner: Runner | None, read: Sequence[str], sources: Sequence[str]
    ) -> Iterator[dict[str, Array]]:
        """What is read and what is computed of each batch; commits to the stage at the end."""
        fresh = {name: _Kept(self._folder, next(self._numbers)) for name in sorted(stage.keep)}
        complete = False
        try:
            for batch in self._samples(read):
                values = {name: self._look(name, batch) for name in read}
                if runner is not None:
                    values |= runner.run({name: values[name] for name in sources}, outputs=stage.outputs)
                for name, kept in fresh.items():
                    kept.append(values[name])
                yield values
            complete = True
        finally:
            dropped = [self._kept.pop(name) for name in stage.drop] if complete else list(fresh.values())
            for each in dropped:
                each.remove()
        self._kept |= fresh
        self._computed = stage.computed or self._computed

    def _samples(self, read: Collection[str]) -> Iterator[tuple[int, Batch]]:
        """Numbers of the batches, with the samples where these are needed.

        Raises:
            FeedError: there are none, or not as many as before.
        """
        if self._batches is not None and read and all(name in self._kept for name in read):
            yield from ((position, {}) for position in range(self._batches))
            return
        total = 0
        for total, batch in enumerate(self._feed, start=1):
            yield total - 1, batch
        if not total:
            raise FeedError("the feed holds no samples; give at least one")
        if self._batches not in (None, total):
            raise FeedError(f"the feed gave {total} batches, but {self._batches} before; let every walk be the same")
        self._batches = total

    def _look(self, name: str, sample: tuple[int, Batch]) -> Array:
        """A kept tensor, or an input.

        Raises:
            FeedError: the sample lacks it.
        """
        position, batch = sample
        if (kept := self._kept.get(name)) is not None:
            return kept.load(position)
        if name not in batch:
            found = ", ".join(map(repr, batch)) or "nothing"
            raise FeedError(f"batch {position} lacks the input {name!r}, it holds {found}; give all inputs in each")
        return batch[name]


@dataclass(frozen=True, slots=True)
class _Stage:
    """One run through the samples.

    Attributes:
        outputs: what is computed.
        keep: those of them that are kept.
        drop: what was kept, and is needed no more.
        computed: everything that ran until its end; empty where nothing is kept.
    """

    outputs: tuple[str, ...]
    keep: Collection[str] = ()
    drop: Collection[str] = ()
    computed: set[str] = field(default_factory=set)


class _Kept:
    """The files of one tensor, one a batch."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder, self._number = folder, number
        self._dtype: np.dtype[Any] = np.dtype(np.float32)
        self._shapes: list[tuple[int, ...]] = []

    def append(self, array: Array) -> None:
        """Keep the next batch.

        Raises:
            ModelError: there is no room.
        """
        self._dtype = array.dtype
        try:
            np.save(self._path(len(self._shapes)), array, allow_pickle=False)
        except OSError as error:
            raise ModelError(
                f"cannot keep activations in {self._folder}: {error.strerror or error}; use fewer samples, or let "
                "TMPDIR name a folder with more room"
            ) from error
        finally:
            self._shapes.append(array.shape)

    def load(self, position: int) -> Array:
        """The array of a batch."""
        array: Array = np.load(self._path(position), allow_pickle=False)
        return array

    def remove(self) -> None:
        """Remove the files."""
        for position in range(len(self._shapes)):
            self._path(position).unlink(missing_ok=True)

    def declared(self, name: str) -> onnx.ValueInfoProto:
        """As the input of a part: rank and sizes are fixed where all batches have the same, else unknown."""
        import onnx

        dims: list[int | None] | None = None
        if len({len(shape) for shape in self._shapes}) == 1:
            sizes = (set(along) for along in zip(*self._shapes, strict=True))
            dims = [next(iter(each)) if len(each) == 1 else None for each in sizes]
        return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(self._dtype), dims)

    def _path(self, position: int) -> Path:
        return self._folder / f"{self._number}-{position}.npy"


def _without_array(runner: Runner | None) -> set[str]:
    """Outputs whose type no array has."""
    return set() if runner is None else {name for name, kind in runner.output_types.items() if kind not in _ARRAYS}
