"""Pick the smallest plan for every weight, when some plans need what the whole model stores once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from onnxpress.passes.encode.plans import Option


def choose(choices: Sequence[Sequence[Option]], *, costs: Mapping[str, int], least: int = 0) -> list[Option]:
    """The option to take for each weight.

    Each weight takes its smallest; then, as long as the file gets smaller, a shared part that costs more than it
    saves is given up.

    Args:
        choices: for each weight its options, the first of them dense.
        costs: bytes of each shared part.
        least: bytes an option must save over dense.
    """
    dense = [each[0] for each in choices]
    banned: set[str] = set()
    best = _smallest(choices, banned, least)
    while used := _needs(best):
        trials = {name: _smallest(choices, banned | {name}, least) for name in sorted(used)}
        name = min(trials, key=lambda each: _total(trials[each], costs))
        if _total(trials[name], costs) >= _total(best, costs):
            break
        banned.add(name)
        best = trials[name]
    return best if _total(best, costs) < _total(dense, costs) else dense


def _smallest(choices: Sequence[Sequence[Option]], banned: Collection[str], least: int) -> list[Option]:
    return [_best(each, banned, least) for each in choices]


def _best(options: Sequence[Option], banned: Collection[str], least: int) -> Option:
    best = min((o for o in options if o.needs.isdisjoint(banned)), key=lambda o: o.nbytes)
    return best if options[0].nbytes - best.nbytes >= least else options[0]


def _needs(chosen: Sequence[Option]) -> set[str]:
    return set().union(*(each.needs for each in chosen))


def _total(chosen: Sequence[Option], costs: Mapping[str, int]) -> int:
    return sum(each.nbytes for each in chosen) + sum(costs[name] for name in _needs(chosen))
