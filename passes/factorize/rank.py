"""How a factorization chooses its rank, and what it must save."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass

from onnxpress.passes.kernels.arrays import Float64Array
from onnxpress.passes.kernels.lowrank import rank_by_energy
from onnxpress.passes.selection import RefusalError, SitePass, check_count, check_exactly_one, check_fraction


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
        return self.common * sum(_product(term) for term in self.terms)

    def __str__(self) -> str:
        shown = ["·".join(str(size) for size in term if size != 1) or "1" for term in self.terms]
        if self.common == 1:
            return " + ".join(shown)
        return f"{self.common}·({'+'.join(shown)})" if len(shown) > 1 else f"{self.common}·{shown[0]}"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a layer and its replacement take.

    Attributes:
        dense: parameters of the layer, which are also its multiply-adds for each position of its output.
        parameters: of the factors.
        multiply_adds: of the factors for each position of the output; borders are neglected.
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


@dataclass(frozen=True, kw_only=True)
class RankedPass(SitePass, ABC):
    """A pass that chooses a rank for each site by exactly one of three rules.

    Attributes:
        energy: in (0, 1]: the smallest rank that keeps this fraction of ‖W‖².
        ratio: in (0, 1]: the largest rank whose factors hold at most this fraction of the parameters.
        rank: this one, or the full rank where that is smaller.
        round_to: ranks are multiples of it, for the sake of vector units: rounded up for `energy`, down for `ratio`;
            `rank` is taken as it is.
        always: factorize where nothing is saved, too; for measurements.
    """

    energy: float | None = None
    ratio: float | None = None
    rank: int | None = None
    round_to: int = 1
    always: bool = False

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_exactly_one(self, ("energy", "ratio", "rank"))
        for field in ("energy", "ratio"):
            if getattr(self, field) is not None:
                check_fraction(self, field)
        if self.rank is not None:
            check_count(self, "rank")
        check_count(self, "round_to")

    def choose(self, full: int, cost_of: Callable[[int], Cost], values: Callable[[], Float64Array]) -> int:
        """The rank of one matrix.

        Args:
            full: the largest rank.
            cost_of: what the factors of a rank take.
            values: computes the singular values, descending; called only where they decide.

        Raises:
            RefusalError: even the smallest rank holds more than `ratio` allows.
        """
        if self.energy is not None:
            return self.up(rank_by_energy(values(), self.energy), full)
        return self.choose_unseen(full, cost_of)

    def choose_unseen(self, full: int, cost_of: Callable[[int], Cost]) -> int:
        """The same by `ratio` or `rank`, which need no singular values."""
        if self.rank is not None:
            return min(self.rank, full)
        allowed = (self.ratio or 0.0) * cost_of(1).dense.value
        rank = largest(full, lambda rank: cost_of(rank).parameters.value <= allowed)
        if rank >= full:
            return full
        rank -= rank % self.round_to
        if rank == 0:
            smallest = min(self.round_to, full)
            raise RefusalError(f"ratio {self.ratio} is too small: rank {smallest} leaves {cost_of(smallest).share()}")
        return rank

    def up(self, rank: int, full: int) -> int:
        """`rank` rounded up to a multiple of `round_to`, at most `full`."""
        return min(-(-rank // self.round_to) * self.round_to, full)


def largest(top: int, holds: Callable[[int], bool]) -> int:
    """The largest of 1..top for which a condition holds that, once broken, stays so; 0 if it never does."""
    low, high = 0, top
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def _product(term: tuple[int, ...]) -> int:
    product = 1
    for size in term:
        product *= size
    return product
