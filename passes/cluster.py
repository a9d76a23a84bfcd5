"""Independent work on a Dask cluster, any worker of which may be lost at any moment.

joblib's own way there waits for ever for what a dead worker was to give.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Generic, TypeVar

from onnxpress.rewriter.errors import EngineError

# distributed is imported where there is a cluster.
if TYPE_CHECKING:
    from distributed import Client, Future

Item = TypeVar("Item")
Result = TypeVar("Result")

LARGE = 1 << 20
"""Bytes from which something goes straight to the workers, and not through the scheduler."""

TRIES = 3
"""Times that an item is given out whose worker is lost with what it held."""

LOST = 30.0
"""Seconds without any worker after which none is waited for: one that is started anew takes a few."""

_LOOK = 1.0
"""Seconds between two looks at whether there are workers."""


@dataclass(slots=True)
class _Sent(Generic[Item]):
    """An item that is on its way, kept so that it can be sent again."""

    item: Item
    future: Future
    tries: int = 1


@dataclass(frozen=True, slots=True)
class Cluster(Generic[Item, Result]):
    """Calls a function on the workers of a cluster.

    Attributes:
        client: of the scheduler.
        function: called with an item and all that is shared.
        shared: what all items need; sent to each worker once where it is large.
        ahead: items that are on their way at once.
    """

    client: Client
    function: Callable[..., Result]
    shared: Sequence[object]
    ahead: int

    def results(self, items: Iterable[Item]) -> Iterator[Result]:
        """Yield the result of each item, in order.

        Raises:
            EngineError: all workers are lost, or one after another with the same item.
        """
        held = tuple(self._placed(each, everywhere=True) for each in self.shared)
        drawn = iter(items)
        sent = deque(_Sent(item, self._send(item, held)) for item in islice(drawn, self.ahead))
        while sent:
            yield self._result(sent.popleft(), held)
            sent.extend(_Sent(item, self._send(item, held)) for item in islice(drawn, 1))

    def _send(self, item: Item, held: tuple[object, ...]) -> Future:
        return self.client.submit(self.function, self._placed(item), *held, pure=False)

    def _placed(self, what: object, *, everywhere: bool = False) -> object:
        """Something that is large, in the memory of a worker or of all; else itself."""
        if int(getattr(what, "nbytes", 0)) < LARGE:
            return what
        try:
            return self.client.scatter([what], broadcast=everywhere, hash=False)[0]
        except TimeoutError as error:
            raise EngineError("no worker of the cluster takes what it is sent; see what they printed") from error

    def _result(self, sent: _Sent[Item], held: tuple[object, ...]) -> Result:
        from distributed import CancelledError, KilledWorker

        while True:
            self._wait(sent.future)
            try:
                result: Result = sent.future.result()
            except KilledWorker as error:
                raise EngineError(
                    "one worker after another died of the same work, perhaps for want of memory; see what they "
                    "printed, or give them more"
                ) from error
            except CancelledError as error:  # what it needed was lost with its worker
                if sent.tries == TRIES:
                    raise EngineError("workers were lost with what they held; see what they printed") from error
                sent.tries += 1
                held = tuple(self._placed(each, everywhere=True) for each in self.shared)
                sent.future = self._send(sent.item, held)
            else:
                return result

    def _wait(self, future: Future) -> None:
        """Until it is done, in whatever way, or nobody is left to do it."""
        from distributed import CancelledError, wait

        seen = time.monotonic()  # a worker
        while True:
            try:
                wait([future], timeout=_LOOK)
            except TimeoutError:
                now = time.monotonic()
                seen = now if self.client.ncores() else seen
                if now - seen > LOST:
                    raise EngineError(
                        f"the cluster has had no workers for {LOST:.0f} s; see what they printed, or start others"
                    ) from None
            except CancelledError:
                return
            else:
                return
