"""Where two graphs differ: places between tensors that both have, the same kind of change together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnxpress.passes.report import Report
from onnxpress.rewriter.skeleton import lift
from onnxpress.rewriter.stripping import drop_defaults
from onnxpress.steps import Step, steps


@dataclass(frozen=True, slots=True)
class Place:
    """Nodes before, and those that stand in their place after.

    Attributes:
        before: numbers of nodes in the graph before, ascending.
        after: the same in the graph after.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed between two graphs.

    Attributes:
        before: nodes of the first graph, in order.
        after: nodes of the second.
        places: that differ, in order.
        kinds: numbers of places of the same kind, those that cover most nodes first.
    """

    before: tuple[Step, ...]
    after: tuple[Step, ...]
    places: tuple[Place, ...]
    kinds: tuple[tuple[int, ...], ...]


def compare(
    before: str | Path, after: str | Path, *, sites: Collection[str] = (), names: Mapping[str, str] | None = None
) -> Difference:
    """Compare two model files; no large weight is read.

    Args:
        before: the one.
        after: the other, made of it.
        sites: nodes whose weights are known to have changed.
        names: what tensors of the other were called in the first; those that are not named have kept their names.

    Raises:
        ModelError: a file cannot be read.
    """
    protos = [lift(Path(path)).proto for path in (before, after)]
    for proto in protos:
        drop_defaults(proto)  # what is said and what goes without saying are the same
    first, second = (steps(proto.graph) for proto in protos)
    second = tuple(_called(each, names or {}) for each in second)
    found = [each for each in _places(first, second) if not _same(each, first, second, frozenset(sites))]
    kinds: dict[object, list[int]] = {}
    for number, place in enumerate(found):
        kinds.setdefault((_form(place.before, first), _form(place.after, second)), []).append(number)

    def covered(numbers: Sequence[int]) -> tuple[int, int]:
        return -sum(len(found[k].before) + len(found[k].after) for k in numbers), numbers[0]

    return Difference(first, second, tuple(found), tuple(map(tuple, sorted(kinds.values(), key=covered))))


def between(before: str | Path, after: str | Path, reports: Iterable[Report]) -> Difference:
    """Compare the input with what passes made of it: what a report calls changed has changed.

    Raises:
        ModelError: a file cannot be read.
    """
    sites: set[str] = set()
    names: dict[str, str] = {}
    for report in reports:
        sites.update(change.site for change in report.changes)
        gone = set(report.renamed.values())
        kept = {new: old for new, old in names.items() if new not in gone}
        names = kept | {new: names.get(old, old) for new, old in report.renamed.items()}
    return compare(before, after, sites=sites, names=names)


def _called(step: Step, names: Mapping[str, str]) -> Step:
    """A node with the names that its tensors had before."""
    reads, writes = (tuple(names.get(each, each) for each in side) for side in (step.reads, step.writes))
    return replace(step, name=names.get(step.name, step.name), reads=reads, writes=writes)


@dataclass(slots=True)
class _Sets:
    """Numbers united into sets."""

    parents: list[int] = field(default_factory=list)

    def find(self, number: int) -> int:
        """The one that stands for the set."""
        while self.parents[number] != number:
            self.parents[number] = self.parents[self.parents[number]]
            number = self.parents[number]
        return number

    def unite(self, first: int, second: int) -> None:
        """Make one set of two; the smaller number stands for it."""
        low, high = sorted((self.find(first), self.find(second)))
        self.parents[high] = low


def _places(before: Sequence[Step], after: Sequence[Step]) -> list[Place]:
    """Both graphs cut at tensors that both have: nodes joined by others are one place, as two that write one are."""
    makers = [{name: number for number, step in enumerate(each) for name in step.writes} for each in (before, after)]
    common = makers[0].keys() & makers[1].keys()
    sets = _Sets(list(range(len(before) + len(after))))
    for name in common:
        sets.unite(makers[0][name], len(before) + makers[1][name])
    for graph, made, start in ((before, makers[0], 0), (after, makers[1], len(before))):
        for number, step in enumerate(graph):
            for name in step.reads:
                if name in made and name not in common:
                    sets.unite(start + number, start + made[name])
    members: dict[int, list[int]] = {}
    for number in range(len(before) + len(after)):
        members.setdefault(sets.find(number), []).append(number)
    return [
        Place(tuple(k for k in each if k < len(before)), tuple(k - len(before) for k in each if k >= len(before)))
        for each in members.values()
    ]


def _same(place: Place, before: Sequence[Step], after: Sequence[Step], sites: frozenset[str]) -> bool:
    first, second = [before[k] for k in place.before], [after[k] for k in place.after]
    if any(each.name in sites for each in first):
        return False
    told = [sorted((each.content, each.reads, each.writes) for each in side) for side in (first, second)]
    return told[0] == told[1]


def _form(numbers: Sequence[int], graph: Sequence[Step]) -> object:
    """What nodes are and how they hang together, without names and sizes: equal for the same kind of place."""
    makers = {name: k for k, number in enumerate(numbers) for name in graph[number].writes}
    return tuple(
        (
            graph[number].op,
            tuple(makers.get(name, -1) for name in graph[number].reads),
            tuple(_coarse(each) for each in graph[number].weights[:1]),
        )
        for number in numbers
    )


def _coarse(weight: str) -> str:
    """A weight without its sizes: `uint8, DecodeHuffman`."""
    head, _, tail = weight.partition(", ")
    return f"{head.partition(' ')[0]} {tail}"
