"""Where long work tells how far it is; the library never prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """A sink for progress: the command line draws a bar, the default is silent."""

    def track(self, items: Iterable[Item], *, label: str, total: int | None = None) -> Iterator[Item]:
        """Yield `items`, telling how many have passed."""
        ...


class Silent:
    """Progress that tells nobody."""

    def track(self, items: Iterable[Item], *, label: str, total: int | None = None) -> Iterator[Item]:
        """Yield `items`."""
        yield from items
