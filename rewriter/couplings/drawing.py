"""Couplings as a picture: layers as boxes in graph order, groups as coloured bars that join them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from onnxpress.rewriter.couplings.groups import Group
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, find_sites

TONES = (
    "#2f6fde",
    "#c8553d",
    "#2a8f68",
    "#8450c4",
    "#c77f00",
    "#0c869c",
    "#b33c7a",
    "#66751b",
    "#7a5230",
    "#3f51a5",
)
"""Of groups that may be pruned, in turn."""
GREY, INK, SOFT, PALE = "#aab2bf", "#1c2430", "#5b6675", "#e3e7ee"

_ROW, _LANE, _HIGH, _TOP, _EDGE = 26, 20, 20, 60, 16
_LETTER = 6.2  # pixels that a letter of 11 pixels takes, about
_FITS = (34, 78)
"""Letters that a box has room for, at least and at most."""
_NAME, _REASON = 48, 72
"""Letters of a group's name, and of the reason why it is frozen, at most."""


@dataclass(frozen=True, slots=True)
class _Bar:
    """One group as it is drawn.

    Attributes:
        group: which.
        made: rows of the layers that make its units, ascending.
        read: rows of the layers that read them, ascending.
        tone: its colour.
    """

    group: Group
    made: tuple[int, ...]
    read: tuple[int, ...]
    tone: str

    def marks(self) -> list[tuple[float, bool]]:
        """Where layers join it, from above: height, and whether the layer makes the units.

        What a layer reads comes in near the upper edge of its box, what it makes leaves near the lower one.
        """
        return sorted(
            [*((_middle(row) + 4, True) for row in self.made), *((_middle(row) - 4, False) for row in self.read)]
        )

    def span(self) -> tuple[float, float]:
        """Heights at which it begins and ends."""
        marks = self.marks()
        return marks[0][0], marks[-1][0]


def told(group: Group, *, name: int | None = None, reason: int | None = None) -> str:
    """A group in a few words: `conv1: 64 channels`, with the reason where it is frozen.

    Args:
        group: which.
        name: letters of its name at most; None for all.
        reason: letters of the reason at most; None for all.
    """
    words = f"{_short(group.name, name)}: {_units(group)}"
    return f"{words}, frozen: {_short(group.frozen, reason)}" if group.frozen else words


def _units(group: Group) -> str:
    words = "hidden units" if group.kind == "hidden" else group.kind
    return f"{group.size} {words.removesuffix('s') if group.size == 1 else words}"


def to_svg(model: Model, groups: Sequence[Group]) -> str:
    """The picture as a standalone SVG; the same model gives the same text.

    Layers stand in a column, in graph order. A filled mark on a group's bar is a layer that makes its units, a hollow
    one a layer that reads them. Names and reasons in full are tooltips.
    """
    sites = find_sites(model)
    bars = _bars(sites, groups)
    lanes = _lanes([bar.span() for bar in bars])
    fits = _fits(sites)
    box = round(fits * _LETTER) + 16
    left = _EDGE + box + 22
    labels = left + _LANE * (max(lanes, default=-1) + 1) + 10
    widest = max((len(_told(bar)) for bar in bars), default=0)
    width = max(640, round(labels + widest * _LETTER) + _EDGE)
    heights = _heights(bars)
    height = round(max([_TOP + len(sites) * _ROW, *(each + 8 for each in heights)])) + _EDGE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, Segoe UI, DejaVu Sans, sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        *_legend(len(sites), groups),
        *(_label(bar, left + lane * _LANE, labels, y) for bar, lane, y in zip(bars, lanes, heights, strict=True)),
        *(
            part
            for bar, lane in zip(bars, lanes, strict=True)
            for part in _drawn(bar, left + lane * _LANE, _EDGE + box)
        ),
        *(part for row, site in enumerate(sites) for part in _box(row, site, fits)),
        "</svg>\n",
    ]
    return "\n".join(parts)


def to_dot(model: Model, groups: Sequence[Group]) -> str:
    """The couplings in the DOT language: layers that make a group's units point to it, it to those that read them."""
    sites = find_sites(model)
    lines = [
        "digraph couplings {",
        '  node [fontname="sans-serif", fontsize=10];',
        '  edge [arrowsize=0.6, color="#5b6675"];',
    ]
    for row, site in enumerate(sites):
        lines.append(f"  layer{row} [shape=box, label={_quoted(site.name, f'{site.op} {_dims(site)}')}];")
    for number, bar in enumerate(_bars(sites, groups)):
        style = f'shape=ellipse, style=filled, fontcolor="#ffffff", fillcolor="{bar.tone}"'
        why = [f"frozen: {_short(bar.group.frozen, 60)}"] if bar.group.frozen else []
        words = _quoted(bar.group.name, _units(bar.group), *why)
        lines.append(f"  group{number} [{style}, label={words}];")
        lines += [f'  layer{row} -> group{number} [color="{bar.tone}"];' for row in sorted(bar.made)]
        lines += [f'  group{number} -> layer{row} [color="{bar.tone}"];' for row in sorted(bar.read)]
    return "\n".join([*lines, "}", ""])


def _bars(sites: Sequence[Site], groups: Sequence[Group]) -> list[_Bar]:
    """Groups that join layers; those that may be pruned in turning colours."""
    rows = {id(site.weight): row for row, site in enumerate(sites)}
    bars: list[_Bar] = []
    coloured = 0
    for group in groups:
        by_role: dict[str, set[int]] = {"out": set(), "in": set()}
        for member in group.members:
            if member.role in by_role and id(member.tensor) in rows:
                by_role[member.role].add(rows[id(member.tensor)])
        if any(by_role.values()):
            tone = GREY if group.frozen else TONES[coloured % len(TONES)]
            coloured += group.frozen is None
            bars.append(_Bar(group, tuple(sorted(by_role["out"])), tuple(sorted(by_role["in"])), tone))
    return bars


def _lanes(spans: Sequence[tuple[float, float]]) -> list[int]:
    """A lane for each span, so that no two in a lane meet; short ones come first, near the boxes."""
    lanes = [0] * len(spans)
    taken: list[list[tuple[float, float]]] = []
    for number in sorted(range(len(spans)), key=lambda each: (spans[each][1] - spans[each][0], each)):
        first, last = spans[number]
        free = (k for k, others in enumerate(taken) if all(last < low or high < first for low, high in others))
        lane = next(free, len(taken))
        taken[lane:lane] = [] if lane < len(taken) else [[]]
        taken[lane].append((first, last))
        lanes[number] = lane
    return lanes


def _middle(row: int) -> float:
    return _TOP + row * _ROW + _ROW / 2


def _legend(layers: int, groups: Sequence[Group]) -> Iterator[str]:
    frozen = sum(group.frozen is not None for group in groups)
    free = len(groups) - frozen
    told_of = f"layers: {layers}, groups that can be pruned: {free}, frozen ones: {frozen}"
    yield f'<text x="{_EDGE}" y="24" font-size="15" font-weight="600" fill="{INK}">{told_of}</text>'
    x = _EDGE + 5
    for fill, tone, words in ((INK, INK, "makes the units"), ("#fff", INK, "reads them"), (GREY, GREY, "frozen")):
        yield _mark(x, 40, fill=fill, tone=tone)
        yield f'<text x="{x + 9}" y="44" fill="{SOFT}">{words}</text>'
        x += round(len(words) * _LETTER) + 34


def _box(row: int, site: Site, fits: int) -> Iterator[str]:
    """A layer: its name at the left, what it is at the right."""
    right = f"{site.op} {_dims(site)}"
    y, width = _middle(row), round(fits * _LETTER) + 16
    yield f"<g><title>{_clean(f'{site.name}: {right}')}</title>"
    yield (
        f'<rect x="{_EDGE}" y="{y - _HIGH / 2}" width="{width}" height="{_HIGH}" rx="4" '
        f'fill="#f5f7fa" stroke="{PALE}"/>'
    )
    name = _clean(_short(site.name, max(12, fits - len(right) - 3)))
    yield f'<text x="{_EDGE + 8}" y="{y + 4}" fill="{INK}">{name}</text>'
    yield f'<text x="{_EDGE + width - 8}" y="{y + 4}" fill="{SOFT}" text-anchor="end">{_clean(right)}</text></g>'


def _drawn(bar: _Bar, x: float, edge: float) -> Iterator[str]:
    """A bar with a mark, and a line to its box, for each layer."""
    first, last = bar.span()
    yield f'<g stroke="{bar.tone}"><title>{_clean(told(bar.group))}</title>'
    yield f'<path d="M{x} {first}V{last}" stroke-width="{2 if bar.group.frozen else 4}" stroke-linecap="round"/>'
    for y, _ in bar.marks():
        yield f'<path d="M{edge} {y}H{x}" stroke-width="1.2"/>'
    yield "</g>"
    for y, makes in bar.marks():
        yield _mark(x, y, fill=bar.tone if makes else "#fff", tone=bar.tone)


def _mark(x: float, y: float, *, fill: str, tone: str) -> str:
    return f'<circle cx="{x}" cy="{y}" r="3.4" fill="{fill}" stroke="{tone}" stroke-width="1.6"/>'


def _heights(bars: Sequence[_Bar]) -> list[float]:
    """Where labels stand: each where its bar begins, moved down where two would overlap."""
    heights, y = [0.0] * len(bars), 0.0
    for number in sorted(range(len(bars)), key=lambda each: bars[each].span()):
        heights[number] = y = max(y + 13, bars[number].span()[0])
    return heights


def _label(bar: _Bar, x: float, labels: float, y: float) -> str:
    """What a group is called, and a thin line to it from where its bar begins."""
    begin, tone = bar.span()[0], SOFT if bar.group.frozen else bar.tone
    return (
        f'<path d="M{x} {begin}L{labels - 4} {y}" stroke="{bar.tone}" stroke-width="0.7" opacity="0.6"/>\n'
        f'<text x="{labels}" y="{y + 4}" fill="{tone}">{_clean(_told(bar))}</text>'
    )


def _told(bar: _Bar) -> str:
    return told(bar.group, name=_NAME, reason=_REASON)


def _fits(sites: Sequence[Site]) -> int:
    """Letters for which boxes have room: those of the longest name and what the layer is."""
    longest = max((len(site.name) + len(f"{site.op} {_dims(site)}") + 3 for site in sites), default=0)
    return min(max(longest, _FITS[0]), _FITS[1])


def _dims(site: Site) -> str:
    return "×".join(map(str, site.shape))


def _short(text: str, most: int | None) -> str:
    """Both ends of a long text: names differ at the end."""
    if most is None or len(text) <= most:
        return text
    kept = most - 1
    return f"{text[: kept // 3]}…{text[len(text) - (kept - kept // 3) :]}"


def _clean(text: str) -> str:
    """Text for XML, which cannot hold control characters."""
    return escape(_printable(text))


def _printable(text: str) -> str:
    """One line without control characters."""
    return "".join(each if each.isprintable() else " " for each in text)


def _quoted(*lines: str) -> str:
    """A string of the DOT language."""
    escaped = (_printable(line).replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(escaped) + '"'
