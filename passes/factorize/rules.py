"""How a factorization chooses its ranks."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass

from onnxpress.passes.factorize.rank import largest
from onnxpress.passes.factorize.schemes.base import Ranks, Scheme
from onnxpress.passes.factorize.wanted import Wanted
from onnxpress.passes.selection import RefusalError, SitePass, check_count, check_flag, check_fraction
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.sites import Site


@dataclass(frozen=True, kw_only=True)
class RankedPass(SitePass, ABC):
    """A pass that chooses ranks for each site by exactly one of four rules.

    Attributes:
        energy: in (0, 1]: the smallest rank that keeps this fraction of ‖W‖²; with samples, where the scheme can tell
            it, of what the layer gives.
        ratio: in (0, 1]: the largest rank whose factors hold at most this fraction of the parameters.
        rank: this one, or the full rank where that is smaller; of a scheme with several ranks it is all of them.
        vbmf: the rank that variational Bayes finds in the weights, taken for signal and noise (Nakajima et al., 2013;
            Kim et al., 2016).
        round_to: ranks are multiples of it, for the sake of vector units: rounded up for `energy` and `vbmf`, down for
            `ratio`; `rank` is taken as it is.
        always: factorize where nothing is saved, too; for measurements.
    """

    energy: float | None = None
    ratio: float | None = None
    rank: int | None = None
    vbmf: bool = False
    round_to: int = 1
    always: bool = False

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_flag(self, "vbmf")
        self._check_one_rule()
        for field in ("energy", "ratio"):
            if getattr(self, field) is not None:
                check_fraction(self, field)
        if self.rank is not None:
            check_count(self, "rank")
        check_count(self, "round_to")

    def _check_one_rule(self) -> None:
        fields = ("energy", "ratio", "rank")
        given = [f"{field} {getattr(self, field)!r}" for field in fields if getattr(self, field) is not None]
        given += ["vbmf"] * self.vbmf
        if len(given) != 1:
            raise ConfigError(
                f"{self.name}: give exactly one of {', '.join(fields)}, vbmf; got {' and '.join(given) or 'none'}"
            )

    def choose(self, scheme: Scheme, wanted: Wanted) -> Ranks:
        """The ranks of one site.

        Raises:
            RefusalError: none fit the rule, or they save nothing.
        """
        ranks = self.foreseen(scheme, wanted.site)
        if ranks is None:
            ranks = self._by_weights(scheme, wanted)
            self._check(scheme, wanted.site, ranks)
        return ranks

    def foreseen(self, scheme: Scheme, site: Site) -> Ranks | None:
        """The ranks by `rank` or `ratio`, for which nothing must be fitted; None for other rules.

        Raises:
            RefusalError: none fit the rule, or they save nothing.
        """
        if self.rank is not None:
            ranks = scheme.even(site, self.rank)
        elif self.ratio is not None:
            ranks = self._by_ratio(scheme, site, self.ratio)
        else:
            return None
        self._check(scheme, site, ranks)
        return ranks

    def _check(self, scheme: Scheme, site: Site, ranks: Ranks) -> None:
        if not self.always:
            scheme.cost(site, ranks).refuse_if_none_saved(named(ranks))

    def _by_weights(self, scheme: Scheme, wanted: Wanted) -> Ranks:
        """By `energy` or `vbmf`."""
        if self.vbmf:
            found = scheme.by_vbmf(wanted.site, wanted.target)
        else:
            energy = self.energy or 0.0
            told = scheme.by_energy(wanted.site, wanted.target, wanted.metric, energy)
            if told is None:
                return self._by_bisection(scheme, wanted, energy)
            found = told
        step, full = self._step(scheme), scheme.ranks(wanted.site)
        return tuple(min(-(-rank // step) * step, most) for rank, most in zip(found, full, strict=True))

    def _by_ratio(self, scheme: Scheme, site: Site, ratio: float) -> Ranks:
        """The largest ranks whose factors fit the ratio."""
        step, full = self._step(scheme), scheme.ranks(site)

        def fits(ranks: Ranks) -> bool:
            cost = scheme.cost(site, ranks)
            return cost.parameters.value <= ratio * cost.dense.value

        def at(number: int) -> Ranks:
            paired = zip(scheme.at(site, number), full, strict=True)
            return tuple(rank if rank == most else max(rank - rank % step, min(step, most)) for rank, most in paired)

        if fits(full):
            return full
        found = at(max(1, largest(scheme.top(site), lambda number: fits(at(number)))))
        if len(full) > 1:
            found = _grown(found, full, step, fits)
        if not fits(found):
            left = scheme.cost(site, found).share()
            raise RefusalError(f"ratio {ratio:g} is too small: {named(found)} leave{'s' * (len(found) == 1)} {left}")
        return found

    def _step(self, scheme: Scheme) -> int:
        return self.round_to if scheme.counts_channels else 1

    def _by_bisection(self, scheme: Scheme, wanted: Wanted, energy: float) -> Ranks:
        """The smallest that keep the energy, where no singular values tell it beforehand."""
        site, every = wanted.site, scheme.ladder(wanted.site, self.round_to)
        tried = every if self.always else [each for each in every if scheme.cost(site, each).saves()]
        if not tried:
            scheme.cost(site, every[0]).refuse_if_none_saved(named(every[0]))

        def kept(index: int) -> float:
            return wanted.kept(wanted.fit(scheme, tried[index]))

        low, high = 0, len(tried) - 1
        if (most := kept(high)) < energy:
            raise RefusalError(
                f"{named(tried[high])}, the largest that saves anything, keeps {most:.1%} of the energy, "
                f"less than {energy:.1%}"
            )
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if kept(middle) < energy else (low, middle)
        return tried[high]


def _grown(ranks: Ranks, full: Ranks, step: int, fits: Callable[[Ranks], bool]) -> Ranks:
    """Ranks one after the other as large as they can be beside the others."""
    for index, most in enumerate(full):
        while ranks[index] < most:
            more = (*ranks[:index], min(ranks[index] + step, most), *ranks[index + 1 :])
            if not fits(more):
                break
            ranks = more
    return ranks


def shown(ranks: Ranks, full: Ranks) -> str:
    """Ranks and the full ones, for a report."""
    *first, last = (f"{rank} of {most}" for rank, most in zip(ranks, full, strict=True))
    return f"ranks {', '.join(first)} and {last}" if first else f"rank {last}"


def named(ranks: Ranks) -> str:
    """Ranks in a sentence."""
    *first, last = map(str, ranks)
    return f"ranks {', '.join(first)} and {last}" if first else f"rank {last}"
