"""Pick the smallest plan for every weight, when some plans need what the whole model stores once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnxpress.passes.encode.options import Option

_CHEAPEST, _DEAREST, _STEPS = 1e-3, 1e15, 40
"""Prices of all that loading may take that are tried, in bytes of the file, and how often the interval is halved."""
_LEAST = 1e-9
"""What may be taken at least, in bytes or seconds, for parts of nothing are none."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What loading all weights may take beyond what it takes dense.

    Attributes:
        nbytes: of memory.
        seconds: by the estimate.
    """

    nbytes: float = math.inf
    seconds: float = math.inf

    def exceeded(self, chosen: Sequence[Option]) -> frozenset[str]:
        """The names of those that do not hold."""
        taken = {"nbytes": total_bytes(chosen), "seconds": total_seconds(chosen)}
        return frozenset(name for name, each in taken.items() if each > getattr(self, name))

    def part(self, option: Option, names: frozenset[str]) -> float:
        """What an option takes of what may be taken, added up over `names`."""
        load = option.load
        parts = {"nbytes": (load.nbytes, self.nbytes), "seconds": (load.seconds, self.seconds)}
        return sum(parts[name][0] / max(parts[name][1], _LEAST) for name in names)


@dataclass(frozen=True, slots=True)
class _Terms:
    """What an option is judged by.

    Attributes:
        least: bytes it must save over dense.
        limits: of what loading takes.
        scarce: names of the limits that count.
        price: bytes of the file that all that may be taken is worth.
        banned: shared parts that are not to be used.
    """

    least: int
    limits: Limits
    scarce: frozenset[str] = frozenset()
    price: float = 0.0
    banned: frozenset[str] = frozenset()

    def worth(self, option: Option) -> float:
        """Bytes of the file, and what loading is worth."""
        return option.nbytes + (self.price * self.limits.part(option, self.scarce) if self.price else 0.0)


def choose(
    choices: Sequence[Sequence[Option]], *, costs: Mapping[str, int], least: int = 0, limits: Limits | None = None
) -> list[Option]:
    """The option to take for each weight.

    Each weight takes its smallest; then, as long as the file gets smaller, a shared part that costs more than it
    saves is given up. Where loading that would take more memory or time than it may, what is scarce gets a price
    (Everett, 1963), the least that is enough: the same for each part of what may be taken, be it of memory or of time.

    Args:
        choices: for each weight its options, the first of them dense.
        costs: bytes of each shared part.
        least: bytes an option must save over dense.
        limits: of what loading all of them takes; None sets none.
    """
    choices = [_worthwhile(each) for each in choices]
    terms = _Terms(least, limits or Limits())
    best = _choose(choices, costs, terms)
    while exceeded := terms.limits.exceeded(best) - terms.scarce:
        terms = replace(terms, scarce=terms.scarce | exceeded)
        best = _within(choices, costs, terms)
    return best


def total_bytes(chosen: Sequence[Option]) -> int:
    """Bytes of memory that loading takes."""
    return sum(each.load.nbytes for each in chosen)


def total_seconds(chosen: Sequence[Option]) -> float:
    """Seconds that loading takes."""
    return math.fsum(each.load.seconds for each in chosen)


def _within(choices: Sequence[Sequence[Option]], costs: Mapping[str, int], terms: _Terms) -> list[Option]:
    """The smallest choice that was found to hold the limits that count."""
    low, high = _CHEAPEST, _DEAREST
    best = [each[0] for each in choices]
    for _ in range(_STEPS):
        price = (low * high) ** 0.5
        trial = _choose(choices, costs, replace(terms, price=price))
        if terms.limits.exceeded(trial) & terms.scarce:
            low = price
        else:
            high, best = price, min(best, trial, key=lambda each: _total(each, costs))
    return best


def _worthwhile(options: Sequence[Option]) -> list[Option]:
    """Dense, and those that no other beats in bytes, memory and seconds with the same shared parts."""
    found: list[Option] = []
    for each in sorted(options[1:], key=lambda each: (each.nbytes, each.load.nbytes, each.load.seconds)):
        if not any(other.needs == each.needs and _lighter(other, each) for other in found):
            found.append(each)
    return [options[0], *found]


def _lighter(one: Option, other: Option) -> bool:
    return one.load.nbytes <= other.load.nbytes and one.load.seconds <= other.load.seconds


def _choose(choices: Sequence[Sequence[Option]], costs: Mapping[str, int], terms: _Terms) -> list[Option]:
    dense = [each[0] for each in choices]
    best = _smallest(choices, terms)
    while used := _needs(best):
        stricter = {name: replace(terms, banned=terms.banned | {name}) for name in sorted(used)}
        trials = {name: _smallest(choices, each) for name, each in stricter.items()}
        name = min(trials, key=lambda each: _total(trials[each], costs, terms))
        if _total(trials[name], costs, terms) >= _total(best, costs, terms):
            break
        terms, best = stricter[name], trials[name]
    return best if _total(best, costs) < _total(dense, costs) else dense


def _smallest(choices: Sequence[Sequence[Option]], terms: _Terms) -> list[Option]:
    return [_best(each, terms) for each in choices]


def _best(options: Sequence[Option], terms: _Terms) -> Option:
    fitting = (each for each in options if each.needs.isdisjoint(terms.banned))
    best = min(fitting, key=terms.worth)
    return best if options[0].nbytes - best.nbytes >= terms.least else options[0]


def _needs(chosen: Sequence[Option]) -> set[str]:
    return set().union(*(each.needs for each in chosen))


def _total(chosen: Sequence[Option], costs: Mapping[str, int], terms: _Terms | None = None) -> float:
    worth = sum(each.nbytes if terms is None else terms.worth(each) for each in chosen)
    return worth + sum(costs[name] for name in _needs(chosen))
