"""The changed parts of a graph, before and after, with what stands around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import TypeAlias

from onnxpress.difference import Difference, Place
from onnxpress.passes.shown import clean, short
from onnxpress.pictures.layered import WIDE, Box, Sketch, draw, width
from onnxpress.steps import Step

BOXES = 60
"""Drawn at most, in all; what is left is summed up."""
_NARROW = 2 * WIDE + 20
CHANGED, AROUND = 10, 3
"""Changed nodes drawn of one place on each side, and neighbours in each direction."""
TONES = (3, 5, 4, 6, 7, 2, 8, 9)
"""Colours of kinds, in turn: all but those that tell before from after."""
RUNS = 400
"""Pieces of the strip that tells where in the graph changes are."""


def section(difference: Difference, *, actions: Mapping[str, Sequence[str]] | None = None) -> str:
    """All that is told of the graph; empty where nothing changed.

    Args:
        difference: of the graphs before and after.
        actions: what passes did to nodes, by their names before.
    """
    if not difference.places:
        return ""
    before = _Side(difference.before, [each.before for each in difference.places])
    after = _Side(difference.after, [each.after for each in difference.places])
    parts: list[str] = []
    room, drawn = BOXES, 0
    for number, kind in enumerate(difference.kinds):
        place = difference.places[kind[0]]
        old = frozenset((difference.before[k].op, difference.before[k].weights[:1]) for k in place.before)
        sketches = [before.sketch(place.before, kind="was"), after.sketch(place.after, kind="is", old=old)]
        boxes = sum(len(each.boxes) for each in sketches)
        if boxes > room and drawn:
            break
        room, drawn = room - boxes, number + 1
        parts.append(_kind(difference, number, sketches, actions or {}))
    rest = difference.kinds[drawn:]
    told = _rest(difference, rest) if rest else ""
    return f'{_strip(difference)}{_legend()}<div class="changes">{"".join(parts)}</div>{told}'


_Look: TypeAlias = tuple[str, tuple[str, ...]]
"""Operator of a node, and its largest weight."""


@dataclass(slots=True)
class _Side:
    """One of the two graphs.

    Attributes:
        steps: its nodes.
        makers: the node that writes a tensor.
        readers: the nodes that read one.
        changed: numbers of nodes in places that differ.
        chains: of each unchanged node the chain it belongs to, and of each chain how long it is.
    """

    steps: Sequence[Step]
    places: Sequence[Sequence[int]]
    makers: dict[str, int] = field(init=False, default_factory=dict)
    readers: dict[str, list[int]] = field(init=False, default_factory=dict)
    changed: set[int] = field(init=False)
    chains: dict[int, int] = field(init=False, default_factory=dict)
    lengths: dict[int, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.changed = {number for each in self.places for number in each}
        for number, step in enumerate(self.steps):
            self.makers.update(dict.fromkeys(step.writes, number))
            for name in step.reads:
                self.readers.setdefault(name, []).append(number)
        for number in range(len(self.steps)):
            if number not in self.changed and number not in self.chains:
                self._chain(number)

    def _chain(self, start: int) -> None:
        """All unchanged nodes that can be reached over unchanged ones."""
        waiting, self.chains[start] = [start], start
        while waiting:
            number = waiting.pop()
            self.lengths[start] = self.lengths.get(start, 0) + 1
            for near in (*self._before(number), *self._behind(number)):
                if near not in self.changed and near not in self.chains:
                    self.chains[near] = start
                    waiting.append(near)

    def _before(self, number: int) -> list[int]:
        return [self.makers[name] for name in self.steps[number].reads if name in self.makers]

    def _behind(self, number: int) -> list[int]:
        return [reader for name in self.steps[number].writes for reader in self.readers.get(name, [])]

    def sketch(self, numbers: Sequence[int], *, kind: str, old: frozenset[_Look] = frozenset()) -> Sketch:
        """A place and what stands around it.

        Args:
            numbers: its nodes.
            kind: class of their colours.
            old: how nodes looked before: one that looks the same has other values.
        """
        sketch, boxes, inside = Sketch(), dict[int, int](), set(numbers)
        above = dict.fromkeys(near for k in numbers for near in self._before(k) if near not in inside)
        self._around(sketch, list(above), boxes, above=True)
        shown = numbers if len(numbers) <= CHANGED else numbers[: CHANGED - 1]
        for number in shown:
            boxes[number] = sketch.add(_box(self.steps[number], kind, old))
        if left := set(numbers[len(shown) :]):
            rest = sketch.add(Box(f"… {len(left)} more changed nodes …", "", f"{kind} many", ""))
            boxes |= dict.fromkeys(left, rest)
        below = dict.fromkeys(near for k in numbers for near in self._behind(k) if near not in inside | above.keys())
        self._around(sketch, list(below), boxes, above=False)
        for number in [*numbers, *list(below)[:AROUND]]:
            for near in self._before(number):
                if near in boxes and boxes[near] != boxes[number] and (number in inside or near in inside):
                    sketch.join(boxes[near], boxes[number])
        return sketch

    def _around(self, sketch: Sketch, numbers: Sequence[int], boxes: dict[int, int], *, above: bool) -> None:
        """Neighbours, and how much that did not change lies beyond them."""
        shown = numbers[:AROUND]
        chains = dict.fromkeys(self.chains[k] for k in shown if k in self.chains)
        beyond = {each: self.lengths[each] - sum(self.chains.get(k) == each for k in shown) for each in chains}
        far = {}
        if above:
            far = {each: sketch.add(_many(count)) for each, count in beyond.items() if count > 0}
        for number in shown:
            boxes[number] = sketch.add(_box(self.steps[number], "too" if number in self.changed else "near"))
            if self.chains.get(number) in far:
                sketch.join(far[self.chains[number]], boxes[number])
        if not above:
            for each, count in beyond.items():
                if count > 0:
                    last = sketch.add(_many(count))
                    for number in shown:
                        if self.chains.get(number) == each:
                            sketch.join(boxes[number], last)


def _box(step: Step, kind: str, old: frozenset[_Look] = frozenset()) -> Box:
    """A node; one that looks as one did before has other values."""
    told = f"{step.op} {step.name}{': ' if step.weights else ''}{'; '.join(step.weights)}"
    detail = step.weights[0] if step.weights else step.name
    same = step.weights and (step.op, step.weights[:1]) in old
    return Box(step.op, f"{detail}, new values" if same else detail, kind, told)


def _many(count: int) -> Box:
    return Box(f"… {count} unchanged node{'s' * (count > 1)} …", "", "chain", "")


def _kind(difference: Difference, number: int, sketches: Sequence[Sketch], actions: Mapping[str, Sequence[str]]) -> str:
    """One kind of change: where it is, and the first such place as a picture before and after."""
    kind = difference.kinds[number]
    names = [_name(difference, difference.places[k]) for k in kind]
    several = f"{len(kind)} places like this" if len(kind) > 1 else "1 place"
    listed = ", ".join(clean(short(each, 48)) for each in names[:4]) + (", …" if len(names) > 4 else "")
    pictures = []
    for sketch, which in zip(sketches, ("before", "after"), strict=True):
        gone = "nothing: it is gone" if which == "after" else "nothing: it is new"
        picture = draw(sketch, told=f"{which}, {several}") if sketch.boxes else f'<p class="note">{gone}</p>'
        pictures.append(f'<div class="side"><h4>{which}</h4><div class="across">{picture}</div></div>')
    first = difference.places[kind[0]]
    done = [each for k in first.before for each in actions.get(difference.before[k].name, [])]
    told = f'<p class="note">{clean(short("; ".join(done), 260))}</p>' if done else ""
    head = f'<h3><i class="key t{TONES[number % len(TONES)]}"></i>{several} <span class="soft">{listed}</span></h3>'
    wide = max(map(width, sketches))
    shape = " broad" if wide > _NARROW else " double" if wide > WIDE + 20 else ""
    return f'<div class="change{shape}">{head}{told}<div class="twice">{"".join(pictures)}</div></div>'


def _name(difference: Difference, place: Place) -> str:
    """What a place is called: by its first node with a weight."""
    steps = [difference.before[k] for k in place.before] or [difference.after[k] for k in place.after]
    return next((each.name for each in steps if each.weights), steps[0].name)


def _rest(difference: Difference, kinds: Sequence[Sequence[int]]) -> str:
    places = [difference.places[k] for kind in kinds for k in kind]
    before, after = sum(len(each.before) for each in places), sum(len(each.after) for each in places)
    return (
        f'<p class="note">and {len(kinds)} more kind{"s" * (len(kinds) > 1)} of change at {len(places)} '
        f"place{'s' * (len(places) > 1)}: {before} nodes before, {after} after</p>"
    )


def _strip(difference: Difference) -> str:
    """The graph before as one line of nodes, in order, changed ones in the colour of their kind."""
    total = len(difference.before) or 1
    tones: list[int | None] = [None] * total
    for number, kind in enumerate(difference.kinds):
        for k in (k for place in kind for k in difference.places[place].before):
            tones[k] = TONES[number % len(TONES)]
    pieces = min(total, RUNS)
    ends = [k * total // pieces for k in range(pieces + 1)]
    cut = [next((tone for tone in tones[a:b] if tone is not None), None) for a, b in pairwise(ends)]
    rects, begin = [], 0
    for tone, run in groupby(cut):
        wide = len(list(run))
        place = f'x="{100 * begin / pieces:.2f}%" width="{100 * wide / pieces:.2f}%"'
        rects.append(f'<rect class="{"near" if tone is None else f"t{tone}"}" {place} height="16"/>')
        begin += wide
    changed = sum(tone is not None for tone in tones) if difference.before else 0
    places = f"{len(difference.places)} place{'s' * (len(difference.places) > 1)}"
    told = (
        f"{changed} of {len(difference.before)} nodes changed or went; {len(difference.after)} nodes are left, at "
        f"{places} something is different. From the input at the left to the output:"
    )
    return (
        f'<p>{told}</p><svg class="strip" height="16" role="img" aria-label="where changes are">{"".join(rects)}</svg>'
    )


def _legend() -> str:
    kinds = (("was", "changed, before"), ("is", "changed, after"), ("near", "unchanged"), ("too", "changed elsewhere"))
    items = "".join(f"<li>{_key(kind)}{told}</li>" for kind, told in kinds)
    return f'<ul class="legend">{items}<li>drawn from above downward</li></ul>'


def _key(kind: str) -> str:
    rect = '<rect x="1" y="1" width="20" height="12" rx="3"/>'
    return f'<svg class="box {kind}" width="22" height="14">{rect}</svg>'
