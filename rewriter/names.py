"""Names that nothing else in the model has."""

from __future__ import annotations

from collections.abc import Iterable


class NameAllocator:
    """Gives out fresh names; one for a model, over all its graphs, so that nothing is ever shadowed."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)
        self._next: dict[str, int] = {}

    def fresh(self, hint: str) -> str:
        """Return `hint` itself if it is free, else `hint_1`, `hint_2` and so on."""
        name, count = hint, self._next.get(hint, 0)
        while not name or name in self._taken:
            count += 1
            name = f"{hint}_{count}"
        self._next[hint] = count
        self._taken.add(name)
        return name
