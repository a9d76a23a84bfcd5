"""Words for a JSON schema: what a value may be, its default, what it means."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from pydantic import JsonValue

Schema = Mapping[str, JsonValue]

TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}


def entry(name: str, schema: Schema, *, required: bool = False) -> str:
    """One option as an entry of a definition list."""
    kinds = "".join(f" · {each}" for each in [_type(schema)] if each)
    has_default = schema.get("default", "") != ""
    default = " · needed" if required else f" · default `{_plain(schema['default'])}`" if has_default else ""
    told = description(schema)
    meaning = told[:1].upper() + told[1:] if told[1:2].isalpha() else told or "–"  # no capital for a symbol
    return f"`{name}`{kinds}{default}\n:   {meaning}\n"


def description(schema: Schema) -> str:
    """What a value means, as it says itself or one of its kinds does."""
    kinds = schema.get("anyOf", [])
    assert isinstance(kinds, list)
    told = [str(each["description"]) for each in (schema, *map(mapping, kinds)) if "description" in each]
    return told[0].strip() if told else ""


def _type(schema: Schema) -> str:
    """What a value may be, in words."""
    return " or ".join(dict.fromkeys(_types(schema)))


def _types(schema: Schema) -> Iterator[str]:
    """What a value may be, each kind apart; that it may be left out is said by its default."""
    if "anyOf" in schema:
        kinds = schema["anyOf"]
        assert isinstance(kinds, list)
        for each in map(mapping, kinds):
            if each.get("type") != "null":
                yield from _types(each)
    elif "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        assert isinstance(values, list)
        yield from (f"`{_plain(each)}`" for each in values)
    elif schema.get("type") == "array":
        inside = schema.get("items")
        yield f"list of {_type(inside)}" if isinstance(inside, Mapping) else "list"
    elif schema.get("type") == "object":
        inside = schema.get("additionalProperties")
        yield f"{_type(inside)} by name" if isinstance(inside, Mapping) else "mapping"
    elif "type" in schema:
        yield TYPES[str(schema["type"])]


def _plain(value: JsonValue) -> str:
    """A value as YAML writes it."""
    if isinstance(value, str):
        return value
    return json.dumps(value)


def mapping(value: JsonValue) -> Schema:
    """A part of a schema that is a mapping."""
    assert isinstance(value, dict)
    return value
