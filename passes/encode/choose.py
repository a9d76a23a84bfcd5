"""Pick the smallest plan for every weight, when some plans need what the whole model stores once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnxpress.passes.encode.options import Option

_CHEAPEST, _DEAREST, _STEPS = 1e-7, 1e3, 40
"""Prices of a byte of memory that are tried, in bytes of the file, and how often the interval is halved."""


@dataclass(frozen=True, slots=True)
class _Terms:
    """What an option is judged by.

    Attributes:
        least: bytes it must save over dense.
        price: bytes of the file that a byte of memory is worth.
        banned: shared parts that are not to be used.
    """

    least: int
    price: float = 0.0
    banned: frozenset[str] = frozenset()


def choose(
    choices: Sequence[Sequence[Option]], *, costs: Mapping[str, int], least: int = 0, most_load: float = float("inf")
) -> list[Option]:
    """The option to take for each weight.

    Each weight takes its smallest; then, as long as the file gets smaller, a shared part that costs more than it
    saves is given up. Where that would take more memory to load than it may, memory gets a price (Everett, 1963), the
    least that is enough.

    Args:
        choices: for each weight its options, the first of them dense.
        costs: bytes of each shared part.
        least: bytes an option must save over dense.
        most_load: bytes of memory that loading all of them may take beyond what it takes dense.
    """
    choices = [_worthwhile(each) for each in choices]
    best = _choose(choices, costs, _Terms(least))
    if _load(best) <= most_load:
        return best
    low, high = _CHEAPEST, _DEAREST
    best = [each[0] for each in choices]
    for _ in range(_STEPS):
        price = (low * high) ** 0.5
        trial = _choose(choices, costs, _Terms(least, price))
        if _load(trial) > most_load:
            low = price
        else:
            high, best = price, min(best, trial, key=lambda each: _total(each, costs))
    return best


def _worthwhile(options: Sequence[Option]) -> list[Option]:
    """Dense, and those that no other beats in bytes and in memory with the same shared parts."""
    found: list[Option] = []
    least: dict[frozenset[str], int] = {}
    for each in sorted(options[1:], key=lambda each: (each.nbytes, each.load)):
        if each.needs not in least or each.load < least[each.needs]:
            least[each.needs] = each.load
            found.append(each)
    return [options[0], *found]


def _choose(choices: Sequence[Sequence[Option]], costs: Mapping[str, int], terms: _Terms) -> list[Option]:
    dense = [each[0] for each in choices]
    best = _smallest(choices, terms)
    while used := _needs(best):
        stricter = {name: replace(terms, banned=terms.banned | {name}) for name in sorted(used)}
        trials = {name: _smallest(choices, each) for name, each in stricter.items()}
        name = min(trials, key=lambda each: _total(trials[each], costs, terms.price))
        if _total(trials[name], costs, terms.price) >= _total(best, costs, terms.price):
            break
        terms, best = stricter[name], trials[name]
    return best if _total(best, costs) < _total(dense, costs) else dense


def _smallest(choices: Sequence[Sequence[Option]], terms: _Terms) -> list[Option]:
    return [_best(each, terms) for each in choices]


def _best(options: Sequence[Option], terms: _Terms) -> Option:
    fitting = (each for each in options if each.needs.isdisjoint(terms.banned))
    best = min(fitting, key=lambda each: each.nbytes + terms.price * each.load)
    return best if options[0].nbytes - best.nbytes >= terms.least else options[0]


def _needs(chosen: Sequence[Option]) -> set[str]:
    return set().union(*(each.needs for each in chosen))


def _total(chosen: Sequence[Option], costs: Mapping[str, int], price: float = 0.0) -> float:
    return sum(each.nbytes + price * each.load for each in chosen) + sum(costs[name] for name in _needs(chosen))


def _load(chosen: Sequence[Option]) -> int:
    return sum(each.load for each in chosen)
