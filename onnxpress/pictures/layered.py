"""Small graphs drawn in layers, from above downward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from onnxpress.passes.shown import clean, short

WIDE, HIGH, _ACROSS, _DOWN, _BEND = 172, 38, 14, 22, 8
_LETTERS = 25
"""That a box has room for, about; what is wider is cut off at its edge."""


@dataclass(frozen=True, slots=True)
class Box:
    """One box.

    Attributes:
        title: its first line.
        detail: its second one.
        kind: class of its colours.
        told: all about it, shown where the pointer rests.
    """

    title: str
    detail: str
    kind: str
    told: str


@dataclass(slots=True)
class Sketch:
    """Boxes, and lines from earlier boxes to later ones."""

    boxes: list[Box] = field(default_factory=list)
    lines: list[tuple[int, int]] = field(default_factory=list)

    def add(self, box: Box) -> int:
        """Its number."""
        self.boxes.append(box)
        return len(self.boxes) - 1

    def join(self, first: int, second: int) -> None:
        """Draw a line, once, from the earlier to the later."""
        pair = (first, second) if first < second else (second, first)
        if pair not in self.lines:
            self.lines.append(pair)


def draw(sketch: Sketch, *, told: str) -> str:
    """The boxes as SVG.

    Args:
        sketch: which boxes and lines.
        told: what is drawn, in words, escaped.
    """
    layers, chains = _layers(sketch)
    places, wide, high = _places(layers, chains, len(sketch.boxes))
    lines = "".join(f'<path class="wire" d="{_wire([places[k] for k in each])}"/>' for each in chains)
    boxes = "".join(_box(box, *places[k]) for k, box in enumerate(sketch.boxes))
    size = f'width="{wide:.0f}" height="{high:.0f}" viewBox="0 0 {wide:.0f} {high:.0f}"'
    return f'<svg class="graph" {size} role="img" aria-label="{told}">{lines}{boxes}</svg>'


def width(sketch: Sketch) -> float:
    """Pixels that the drawing is wide."""
    return _places(*_layers(sketch), len(sketch.boxes))[1]


def _layers(sketch: Sketch) -> tuple[list[list[int]], list[list[int]]]:
    """What stands in each layer, and what each line passes: a line over several layers bends in each between."""
    depth = [0] * len(sketch.boxes)
    for first, second in sorted(sketch.lines, key=lambda each: each[1]):
        depth[second] = max(depth[second], depth[first] + 1)
    for number in set(range(len(depth))).difference(second for _, second in sketch.lines):  # down to what reads them
        readers = [depth[second] for first, second in sketch.lines if first == number]
        depth[number] = min(readers, default=1) - 1
    layers: list[list[int]] = [[] for _ in range(max(depth, default=0) + 1)]
    for number, layer in enumerate(depth):
        layers[layer].append(number)
    chains, fresh = [], len(sketch.boxes)
    for first, second in sketch.lines:
        chain = [first]
        for layer in range(depth[first] + 1, depth[second]):
            layers[layer].append(fresh)
            chain.append(fresh)
            fresh += 1
        chains.append([*chain, second])
    return layers, chains


def _places(
    layers: Sequence[list[int]], chains: Sequence[Sequence[int]], boxes: int
) -> tuple[dict[int, tuple[float, float, bool]], float, float]:
    """Where each box and each bend stands: middle, top, whether it is a box; and how large all is."""
    above: dict[int, list[int]] = {}
    for chain in chains:
        for first, second in pairwise(chain):
            above.setdefault(second, []).append(first)
    widths = [sum(WIDE if k < boxes else _BEND for k in each) + _ACROSS * (len(each) - 1) for each in layers]
    most = max(widths, default=0) + 4
    places: dict[int, tuple[float, float, bool]] = {}
    for row, (layer, wide) in enumerate(zip(layers, widths, strict=True)):

        def middle(number: int) -> float:
            found = [places[k][0] for k in above.get(number, []) if k in places]
            return sum(found) / len(found) if found else most / 2

        x = (most - wide) / 2
        for number in sorted(layer, key=middle):
            own = WIDE if number < boxes else _BEND
            places[number] = (x + own / 2, 2 + row * (HIGH + _DOWN), number < boxes)
            x += own + _ACROSS
    return places, most, 4 + len(layers) * HIGH + (len(layers) - 1) * _DOWN


def _wire(places: Sequence[tuple[float, float, bool]]) -> str:
    """A line from the lower edge of the first box, through bends, to the upper edge of the last."""
    parts = [f"M{places[0][0]:.1f} {places[0][1] + HIGH:.1f}"]
    for (x1, y1, _), (x2, y2, box) in pairwise(places):
        begin, half = y1 + HIGH, _DOWN / 2
        parts.append(f"C{x1:.1f} {begin + half:.1f} {x2:.1f} {y2 - half:.1f} {x2:.1f} {y2:.1f}")
        if not box:
            parts.append(f"V{y2 + HIGH:.1f}")
    return "".join(parts)


def _box(box: Box, x: float, y: float, _: bool) -> str:
    """A box that cuts off what does not fit."""
    middle = WIDE / 2
    if box.detail:
        text = (
            f'<text class="op" x="{middle}" y="16">{clean(short(box.title, _LETTERS))}</text>'
            f'<text x="{middle}" y="30">{clean(short(box.detail, _LETTERS + 2))}</text>'
        )
    else:
        text = f'<text x="{middle}" y="23">{clean(short(box.title, _LETTERS + 2))}</text>'
    return (
        f'<svg x="{x - middle:.1f}" y="{y:.1f}" width="{WIDE}" height="{HIGH}" class="box {box.kind}">'
        f"<title>{clean(box.told)}</title>"
        f'<rect x="1" y="1" width="{WIDE - 2}" height="{HIGH - 2}" rx="6"/>{text}</svg>'
    )
