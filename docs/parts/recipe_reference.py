"""What pages say of recipes, from the schema and from the recipes that come with onnxpress."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from schema_words import Schema, description, entry, mapping

from onnxpress import recipe
from onnxpress.options import descriptions_of

RECIPE = {
    **descriptions_of(recipe.Recipe),
    "passes": "in order; each is a name, or `{name: {option: value}}`.",
    "limits": "what the result must keep to.",
}
"""What fields mean that the schema does not tell of."""
LIMITS = descriptions_of(recipe.Limits)


def recipes() -> str:
    """The built-in recipes as a table."""
    rows = [
        f"| `{each.name}` | {each.description} | {each.goal or ''} | {'needed' if each.needs_data else 'for proof'} |"
        for each in map(recipe.load, recipe.built_in())
    ]
    return "\n".join(["| recipe | what it does | goal | samples |", "|---|---|---|---|", *rows])


def built_in() -> str:
    """The files of the built-in recipes."""
    parts = []
    for name in recipe.built_in():
        text = recipe.locate(name).read_text(encoding="utf-8").rstrip()
        parts.append(f"### {name}\n\n```yaml\n{text}\n```\n")
    return "\n".join(parts)


def fields() -> str:
    """The fields of a recipe, and those below them, however deep."""
    schema = recipe.schema()
    below = mapping(schema.get("$defs", {}))
    lines = ["## Fields\n", *_entries(schema, RECIPE)]
    for each in map(mapping, below.values()):
        lines += [f"### {each['title']}\n", *_entries(each, LIMITS if each["title"] == "Limits" else {})]
    return "\n".join(lines)


def _entries(schema: Schema, meant: Mapping[str, str]) -> Iterator[str]:
    """Each field as an entry of a definition list."""
    required = schema.get("required", [])
    assert isinstance(required, list)
    for name, each in mapping(schema["properties"]).items():
        field = mapping(each)
        told = {**field, "description": meant.get(name) or description(field)}
        if name == "passes" or "$ref" in str(field):  # what it holds is told of elsewhere
            told = {"description": told["description"]}
        yield entry(name, told, required=name in required)
