"""What `inspect` found, as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from onnxpress.inspection import FAMILIES, Inspection, Layer
from onnxpress.structure import Coupling
from onnxpress.tables import count, dims, size
from onnxpress.terminal import Table, brief


def tables_of(found: Inspection) -> list[Table]:
    """The model as a whole, and its layers."""
    whole = [
        ("file", f"{found.path}, {size(found.nbytes)}, opset {found.opset}"),
        *(("input", f"{each.name} {each.dtype} {dims(each.shape or ('?',))}") for each in found.inputs),
        ("outputs", ", ".join(found.outputs)),
        ("nodes", f"{sum(found.nodes.values())} when normalised, {found.nodes_before} in the file"),
        ("ops", ", ".join(f"{number} {op}" for op, number in sorted(found.nodes.items(), key=lambda each: -each[1]))),
        ("other constants", size(found.other_bytes)),
    ]
    if found.other_multiply_adds:
        whole.append(("other multiply-adds", count(found.other_multiply_adds)))
    names, notes = brief([each.name for each in found.layers]), []
    if found.encoded:
        notes.append(f"{found.encoded} more weights are encoded: `onnxpress decode` writes them out again")
    if found.sparse:
        notes.append(f"{found.sparse} weights are sparse initializers: `onnxpress decode` writes them dense")
    if names != [each.name for each in found.layers]:
        notes.append("names with … are longer: --json has them whole, and recipes take patterns such as `conv1*`")
    if found.open_dims:
        notes.append(f"multiply-adds for sizes left open ({', '.join(found.open_dims)}) counted as 1")
    title = f"{len(found.layers)} layers with float weights that passes can work on"
    columns = ("layer", "op", ">shape", ">weights", ">bytes", ">mult-adds", ">zeros", ">distinct")
    legend = [
        "prune: zeros, units that could go; share: few distinct values; factorize: ranks that save weights; quantize: "
        "arithmetic it could run in; encode: the form in which it would be stored as it is"
    ]
    options = [_options_of(*each) for each in zip(names, found.layers, strict=True)]
    return [
        Table("model", ("what", "value"), whole),
        Table(title, columns, [_layer(*each) for each in zip(names, found.layers, strict=True)], notes),
        Table("what could be done", ("layer", *FAMILIES), options, legend),
    ][: 3 if found.layers else 2]


def _layer(name: str, layer: Layer) -> list[str]:
    return [
        name,
        layer.op,
        dims(layer.shape),
        f"{layer.weights:,}",
        size(layer.nbytes),
        count(layer.multiply_adds),
        f"{layer.zeros:.0%}",
        "many" if layer.distinct is None else str(layer.distinct),
    ]


def _options_of(name: str, layer: Layer) -> list[str]:
    options = [layer.options[family] for family in FAMILIES]
    return [name, *(each.text if each.possible else f"no: {each.text}" for each in options)]


def couplings(found: Sequence[Coupling]) -> Table:
    """A row for each group."""
    names = brief([each.name for each in found])
    rows = [
        [name, each.kind, str(each.units), _members(each), size(each.nbytes), each.frozen or ""]
        for name, each in zip(names, found, strict=True)
    ]
    free = sum(each.frozen is None for each in found)
    title = f"{len(found)} groups of coupled axes, {free} of which can be pruned"
    notes = ["members: layers that make the units → layers that read them; bytes: of all weights of all units"]
    return Table(title, ("group", "kind", ">units", "members", ">bytes", "frozen, because"), rows, notes)


def _members(group: Coupling) -> str:
    """How many layers make the units and how many read them, and the first of each: `2 → 1: conv1, … → conv3`."""
    sides = (group.producers, group.consumers)
    first = " → ".join(_first(each) for each in sides)
    return f"{len(group.producers)} → {len(group.consumers)}: {first}"


def _first(names: Sequence[str], *, most: int = 28) -> str:
    """The end of the first name, which tells layers apart."""
    if not names:
        return "–"
    name = names[0] if len(names[0]) <= most else "…" + names[0][1 - most :]
    return f"{name}, …" if len(names) > 1 else name
