"""What a factorization costs, and what it must save."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from onnxpress.passes.selection import RefusalError


@dataclass(frozen=True, slots=True)
class Products:
    """A sum of products of sizes, which shows how it came about: `512·(1024+768)`.

    Attributes:
        terms: each a product.
        common: multiplies the sum.
    """

    terms: tuple[tuple[int, ...], ...]
    common: int = 1

    @property
    def value(self) -> int:
        """The number itself."""
        return self.common * sum(map(math.prod, self.terms))

    def __str__(self) -> str:
        shown = ["·".join(str(size) for size in term if size != 1) or "1" for term in self.terms]
        if self.common == 1:
            return " + ".join(shown)
        return f"{self.common}·({'+'.join(shown)})" if len(shown) > 1 else f"{self.common}·{shown[0]}"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a layer and its replacement take.

    Attributes:
        dense: parameters of the layer, which are also its multiply-adds for each position; of one group.
        parameters: of the factors of a group.
        multiply_adds: of these for each position of the output (of a ConvTranspose: of what it reads); borders are
            neglected.
    """

    dense: Products
    parameters: Products
    multiply_adds: Products

    def saves(self) -> bool:
        """Whether both parameters and multiply-adds are fewer."""
        return max(self.parameters.value, self.multiply_adds.value) < self.dense.value

    def share(self) -> str:
        """What is left, for a report."""
        kept, work = (part.value / self.dense.value for part in (self.parameters, self.multiply_adds))
        return f"{kept:.1%} of the parameters, {work:.1%} of the multiply-adds"

    def refuse_if_none_saved(self, what: str) -> None:
        """Refuse factors that take as much as the layer, with the figures.

        Raises:
            RefusalError: parameters or multiply-adds are not fewer.
        """
        verb = "save" if what.startswith("ranks") else "saves"
        if self.parameters.value >= self.dense.value:
            raise RefusalError(f"{what} {verb} nothing: {self.parameters} ≥ {self.dense}")
        if self.multiply_adds.value >= self.dense.value:
            raise RefusalError(
                f"{what} {verb} no multiply-adds: {self.multiply_adds} ≥ {self.dense} for each position of the output"
            )


def largest(top: int, holds: Callable[[int], bool]) -> int:
    """The largest of 1..top for which a condition holds that, once broken, stays so; 0 if it never does."""
    low, high = 0, top
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low
