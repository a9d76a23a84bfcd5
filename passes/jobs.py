"""Work that falls into independent items: one after the other, or on the workers that joblib was told of.

A caller who wants more than one worker says so around everything else:

    with joblib.parallel_config(backend="loky", n_jobs=4):  # or "dask", "ray", "threading"
        pipeline(model)
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

import numpy as np

from onnxpress.calibration.progress import Progress
from onnxpress.passes.cluster import Cluster
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.passes.threads import threads_for
from onnxpress.rewriter.errors import EngineError
from onnxpress.rewriter.sites import Site
from onnxpress.rewriter.weights import values_of

# joblib is imported where there are several workers: importing onnxpress stays light.

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2
"""Items for each worker that are on their way at once, so that none waits and memory stays bounded."""

_ENGINES = ("joblib", "distributed", "ray")


def workers() -> int:
    """How many take part: one, unless the caller chose more with `joblib.parallel_config`."""
    if "joblib" not in sys.modules:  # nobody can have chosen
        return 1
    from joblib.parallel import effective_n_jobs

    try:
        return max(1, int(effective_n_jobs(None)))
    except TimeoutError as error:
        raise EngineError("the cluster has no workers any more; see what they printed, or start others") from error


def programs() -> int:
    """How many workers take part that are programs of their own, not threads of this one; one where there are none."""
    if workers() == 1:
        return 1
    from joblib.parallel import get_active_backend

    return 1 if getattr(get_active_backend()[0], "uses_threads", False) else workers()


def each(
    function: Callable[..., Result],
    items: Iterable[Item],
    *,
    progress: Progress,
    label: str,
    total: int | None = None,
    shared: Sequence[object] = (),
) -> Iterator[Result]:
    """Yield `function(item, *shared)` of every item, in order.

    With one worker, items are taken one at a time, when the next result is asked for. With several, as many as keep
    them busy are taken ahead, perhaps by another thread. Linear algebra gets one thread either way, so that results are
    the same bit for bit whatever the engine; all else that could tell (seeds, order) must come with the item.

    Args:
        function: of a module, or a `partial` of one, so that workers find it; it writes into none of its arguments.
        items: plain arrays and options, never a model or a site.
        progress: told about each result.
        label: of that.
        total: number of items, where known.
        shared: what all items need, an array if it is large: that is sent to each worker once.

    Raises:
        EngineError: workers were lost, cannot be reached, or lack onnxpress.
    """
    found = _in_turn(function, items, shared) if workers() == 1 else _spread(function, items, shared)
    yield from progress.track(found, label=label, total=total)


class Parcel(ABC):
    """An item that may be large. Dask sends what says so straight to a worker, and all else through its scheduler."""

    __slots__ = ("__weakref__",)

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of its arrays."""

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + self.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class Stored(Parcel):
    """A weight as a model stores it, without the model.

    Attributes:
        layout: how it is a matrix.
        array: not to be written into.
    """

    layout: Layout
    array: Array

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return self.array.nbytes

    @classmethod
    def of(cls, site: Site, *, layout: Layout | None = None) -> Stored:
        """The weight of a site, in memory where it may leave this program.

        Of an array that is mapped joblib sends the name of the file, and another may have that name by now.
        """
        array = values_of(site.weight).load()
        return cls(layout or Layout.of(site), np.array(array) if workers() > 1 else array)


@dataclass(frozen=True, slots=True)
class Refusing(Generic[Item, Result]):
    """A function whose refusal is its result, since it must not end the work on other items.

    Attributes:
        function: may raise `RefusalError`.
    """

    function: Callable[[Item], Result]

    def __call__(self, item: Item) -> Result | RefusalError:
        """The result, or the refusal."""
        try:
            return self.function(item)
        except RefusalError as refusal:
            return refusal


def accepted(result: Result | RefusalError) -> Result:
    """The result of a `Refusing` function.

    Raises:
        RefusalError: it is none.
    """
    if isinstance(result, RefusalError):
        raise result
    return result


def _alone(function: Callable[..., Result], item: object, *shared: object) -> Result:
    """One item, with one thread of linear algebra."""
    with threads_for(0):
        return function(item, *shared)


def _on_worker(function: Callable[..., Result], item: object, *shared: object) -> Result:
    """One item; what it would share out in turn stays with this worker."""
    from joblib import parallel_config

    with parallel_config(backend="sequential"):
        return _alone(function, item, *shared)


@dataclass(slots=True)
class _Drawn(Generic[Item]):
    """Items that end where they fail: joblib draws them in threads of its own, where an error would go unheard."""

    items: Iterable[Item]
    failure: list[Exception] = field(default_factory=list)

    def __iter__(self) -> Iterator[Item]:
        try:
            yield from self.items
        except Exception as error:
            self.failure.append(error)


def _in_turn(function: Callable[..., Result], items: Iterable[Item], shared: Sequence[object]) -> Iterator[Result]:
    for item in items:
        yield _alone(function, item, *shared)


def _spread(function: Callable[..., Result], items: Iterable[Item], shared: Sequence[object]) -> Iterator[Result]:
    drawn = _Drawn(items)
    # The limit around all is for workers that are threads of this very program: each sets and lifts its own.
    with threads_for(0):
        try:
            yield from _given_out(function, drawn, shared)
        except Exception as error:
            explained = _explained(error)
            if explained is None:
                raise
            raise explained from error
    if drawn.failure:
        raise drawn.failure[0]


def _given_out(function: Callable[..., Result], items: Iterable[Item], shared: Sequence[object]) -> Iterator[Result]:
    from joblib import Parallel, delayed
    from joblib.parallel import get_active_backend

    client = getattr(get_active_backend()[0], "client", None)
    if client is not None:
        cluster: Cluster[Item, Result] = Cluster(client, partial(_on_worker, function), shared, AHEAD * workers())
        yield from cluster.results(items)
        return
    parallel = Parallel(return_as="generator", pre_dispatch=f"{AHEAD} * n_jobs", batch_size=1)
    yield from parallel(delayed(_on_worker)(function, item, *shared) for item in items)


def _explained(error: Exception) -> EngineError | None:
    """What went wrong with the engine, in words; None where the error is that of the work itself."""
    text = str(error).partition("\n")[0]
    if isinstance(error, ModuleNotFoundError):
        return EngineError(f"a worker cannot import {error.name}: install the same onnxpress on every machine")
    if type(error).__module__.split(".")[0] in _ENGINES:
        return EngineError(
            f"workers were lost or ran out of memory ({type(error).__name__}: {text}); see what they printed, or use "
            "fewer with --jobs"
        )
    return None
