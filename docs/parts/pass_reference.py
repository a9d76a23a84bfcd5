"""The page with every option of every pass, from the schema that recipes are checked with."""

from __future__ import annotations

import inspect

from schema_words import Schema, entry, mapping

from onnxpress.options import OVERRIDES, SITES, schema_of
from onnxpress.passes.registry import BUILT_IN, find

FAMILIES = {
    "normalise": "Normalisation",
    "prune": "Pruning",
    "share": "Sharing",
    "factorize": "Factorization",
    "structure": "Structured matrices",
    "balance": "Quantization: before",
    "quantize": "Quantization",
    "blockwise": "Quantization of weights alone",
    "narrow": "Float16",
    "encode": "Encoding",
    "strip": "Last",
}
"""Headings by the folder (or file) in `passes/` that a pass lies in, in the order of the page."""
COMMON = (*SITES, "sites", OVERRIDES)
"""Options that are told of once, on top."""
INTRODUCTION = """\
# Passes and their options

Made from the schema with which recipes are checked; `onnxpress recipes --schema` prints the same for editors. In Python
each pass is a class of `onnxpress` whose fields are these options: `onnxpress.PruneMagnitude(sparsity=0.5)`. None is
written `null` in a recipe.

## Which weights

Most passes take these, too. A weight that they leave out stands in the report as skipped. Names are those that
`onnxpress inspect` shows.

"""


def page() -> str:
    """The page as Markdown."""
    parts = [INTRODUCTION + "\n".join(entry(name, each) for name, each in _common().items())]
    families: dict[str, list[str]] = {folder: [] for folder in FAMILIES}
    for name, place in BUILT_IN.items():
        families[place.split(".")[2].partition(":")[0]].append(name)  # KeyError: the family needs a heading
    for folder, names in families.items():
        parts.append(f"## {FAMILIES[folder]}\n")
        parts.extend(map(section, names))
    return "\n".join(parts)


def section(name: str) -> str:
    """What one pass does, and its options."""
    kind = find(name)
    told = inspect.cleandoc(kind.__doc__ or "").partition("\nAttributes:")[0].strip()
    listed = schema_of(name)
    options = mapping(listed.get("properties", {}))
    required = listed.get("required", [])
    assert isinstance(required, list)
    lines = [f"### {name}\n", f"`onnxpress.{kind.__name__}`\n" if _public(kind.__name__) else "", told + "\n"]
    own = {key: mapping(each) for key, each in options.items() if key not in COMMON}
    lines += [entry(key, each, required=key in required) for key, each in own.items()]
    shared = [f"`{key}`" for key in COMMON if key in options]
    if shared:
        lines.append(f"And {', '.join(shared)}: [which weights](#which-weights).\n")
    elif not own:
        lines.append("It has no options.\n")
    return "\n".join(lines)


def _common() -> dict[str, Schema]:
    """The options that are told of once, as a pass over weights has them."""
    options = mapping(schema_of("prune-magnitude")["properties"])
    grouped = {"description": '`include` and `exclude` in one: `sites: {include: [Conv], exclude: ["*head*"]}`.'}
    return {**{name: mapping(options[name]) for name in COMMON if name != "sites"}, "sites": grouped}


def _public(name: str) -> bool:
    import onnxpress

    return name in onnxpress.__all__
