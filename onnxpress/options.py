"""One entry of a recipe: a pass and its options, checked against the fields of its dataclass."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, NamedTuple, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PydanticUserError, ValidationError, create_model

from onnxpress.passes.base import Pass
from onnxpress.passes.registry import BUILT_IN, find, known, suggest
from onnxpress.rewriter.errors import ConfigError

SITES = ("include", "exclude")
"""Options that a recipe may also group under `sites:`."""
OVERRIDES = "overrides"
"""Where a recipe gives some sites other options."""


def read_entry(entry: object, where: str) -> tuple[Pass, ...]:
    """The passes of one entry: more than one where `overrides:` gives some sites other options.

    `share-kmeans: {bits: 4, overrides: {"*head*": {bits: 8}}}` is two passes: one on all but the heads, one on these. A
    site that several globs match goes by the first of them.

    Args:
        entry: as YAML gives it.
        where: file and field, for errors.

    Raises:
        ConfigError: as `read_pass`.
    """
    kind, options = _parted(entry, where)
    if OVERRIDES not in options or OVERRIDES in options_of(kind):
        return (_made(kind, options, where),)
    rest = _with_sites(kind, {key: each for key, each in options.items() if key != OVERRIDES}, where)
    others = options[OVERRIDES]
    if not set(SITES) <= options_of(kind):
        raise ConfigError(f"{where}.{OVERRIDES}: {kind.name} works on the whole model; leave it out")
    if not isinstance(others, Mapping) or not all(isinstance(each, Mapping) for each in others.values()):
        raise ConfigError(f"{where}.{OVERRIDES}: write {{glob: {{option: value}}}}, not {others!r}")
    globs = [*getattr(_made(kind, rest, where), "exclude", ())]
    passes: list[Pass] = []
    for glob, own in others.items():
        place = f"{where}.{OVERRIDES}.{glob}"
        if stray := {"sites", OVERRIDES, *SITES} & set(own):
            raise ConfigError(f"{place}.{min(stray)}: the glob {glob!r} chooses the sites already; leave it out")
        passes.append(_made(kind, {**rest, **own, "include": [str(glob)], "exclude": [*globs]}, place))
        globs.append(str(glob))
    return (_made(kind, {**rest, "exclude": globs}, where), *passes)


def read_pass(entry: object, where: str) -> Pass:
    """A pass from `name` or `{name: {option: value}}`.

    Args:
        entry: as YAML gives it.
        where: file and field, for errors.

    Raises:
        ConfigError: no such pass or option, or a value that the pass refuses; names the field.
    """
    return _made(*_parted(entry, where), where)


def _parted(entry: object, where: str) -> tuple[type[Pass], Mapping[str, object]]:
    """The pass that an entry names, and its options."""
    if isinstance(entry, str):
        entry = {entry: None}
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise ConfigError(f"{where}: write a pass as `name` or `name: {{option: value}}`, not {entry!r}")
    name, options = next(iter(entry.items()))
    if name not in known():
        raise ConfigError(f"{where}: no pass is called {name!r}; {suggest(str(name), known())}")
    if options is None:
        options = {}
    if not isinstance(options, Mapping):
        raise ConfigError(f"{where}.{name}: options are written {{option: value}}, not {options!r}")
    return find(name), options


def _made(kind: type[Pass], options: Mapping[str, object], where: str) -> Pass:
    """A pass with its options."""
    values = _checked(kind, _with_sites(kind, options, where), where)
    try:
        return kind(**values)
    except (ConfigError, ValueError, TypeError) as error:
        message = str(error).removeprefix(f"{kind.name}: ")
        raise ConfigError(f"{where}{_field_in(message, kind)}: {message}") from error


def schema_of(name: str) -> dict[str, JsonValue]:
    """The JSON schema of a pass's options, as it stands in `definitions` under the name of the pass."""
    kind = find(name)
    try:
        result = _model(kind).model_json_schema()
    except (PydanticUserError, NameError, TypeError) as error:
        why = str(error).partition("\n")[0]
        raise ConfigError(f"pass {name!r} has options of which no schema can be made: {why}") from error
    if set(SITES) <= set(result.get("properties", {})):
        globs = {"type": "array", "items": {"type": "string"}}
        sites = {"type": "object", "properties": dict.fromkeys(SITES, globs), "additionalProperties": False}
        result["properties"]["sites"] = sites
        own = {key: {"$ref": f"#/definitions/{name}/properties/{key}"} for key in result["properties"]}
        for key in ("sites", *SITES):
            own.pop(key, None)
        others = {"type": "object", "properties": own, "additionalProperties": False}
        told = "other options for some sites, by glob; the first glob that matches counts"
        result["properties"].setdefault(
            OVERRIDES, {"type": "object", "description": told, "additionalProperties": others}
        )
    result["description"] = (kind.__doc__ or "").partition("\n")[0]
    return result


def broken() -> dict[str, str]:
    """Passes of other distributions that cannot be used, and why, in a line each."""
    found = {}
    for name in known():
        if name not in BUILT_IN:
            try:
                schema_of(name)
            except ConfigError as error:
                found[name] = str(error)
    return found


def options_of(kind: type[Pass]) -> frozenset[str]:
    """Names of the options of a pass."""
    return frozenset(each.name for each in fields(kind))


def descriptions_of(kind: type[Pass]) -> dict[str, str]:
    """What each option means, from the docstrings of a pass and of what it inherits; the nearest counts."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        _, _, listed = inspect.cleandoc(each.__dict__.get("__doc__") or "").partition("\nAttributes:\n")
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {6,}.*)*)", listed.partition("\n\n")[0], re.MULTILINE):
            found[name] = " ".join(text.split())
    return found


class Complaint(NamedTuple):
    """What pydantic says about a field.

    Attributes:
        kind: `missing`, `extra_forbidden`, …
        field: its name, with those above it.
        wish: what its value should be, to stand after the name.
        value: what it is.
    """

    kind: str
    field: tuple[int | str, ...]
    wish: str
    value: object

    @classmethod
    def of(cls, error: ValidationError) -> Complaint:
        """The one to show: a stray field before the missing one for which it may be misspelt."""
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        wish = first["msg"].replace("Input should be", "should be").replace("Value error, ", "")
        wish = wish.replace("a valid tuple", "a list")
        wish = re.sub("a valid dictionary( or instance of \\w+)?", "a mapping", wish)
        return cls(first["type"], first["loc"], wish, first["input"])


def _with_sites(kind: type[Pass], options: Mapping[str, object], where: str) -> dict[str, object]:
    """The options with `sites: {include, exclude}` spread out."""
    result = dict(options)
    if "sites" not in result or "sites" in options_of(kind):
        return result
    sites = result.pop("sites")
    if not set(SITES) <= options_of(kind):
        other = "ignored_layers names layers that stay" if "ignored_layers" in options_of(kind) else "leave it out"
        raise ConfigError(f"{where}.sites: {kind.name} works on the whole model; {other}")
    if not isinstance(sites, Mapping) or not set(sites) <= set(SITES):
        raise ConfigError(f"{where}.sites: write {{include: [globs], exclude: [globs]}}, not {sites!r}")
    for key in set(sites) & set(result):
        raise ConfigError(f"{where}.sites.{key}: {key} stands beside sites too; keep one")
    return {**result, **sites}


def _checked(kind: type[Pass], options: Mapping[str, object], where: str) -> dict[str, object]:
    """The options, each of the type its field declares."""
    try:
        checked = _model(kind).model_validate(options)
    except ValidationError as error:
        found = Complaint.of(error)
        field = f"{where}.{found.field[0]}" if found.field else where
        if found.kind == "extra_forbidden":
            hint = suggest(str(found.field[0]), _model(kind).model_fields)
            raise ConfigError(f"{field}: {kind.name} has no such option; {hint}") from error
        if found.kind == "missing":
            raise ConfigError(f"{field}: {kind.name} needs this option") from error
        raise ConfigError(f"{field}: {found.wish}, not {found.value!r}") from error
    return {name: getattr(checked, name) for name in checked.model_fields_set}


@cache
def _model(kind: type[Pass]) -> type[BaseModel]:
    """A pydantic model with the fields of a pass."""
    hints = get_type_hints(kind)
    meant = descriptions_of(kind)
    members: dict[str, Any] = {}
    for each in fields(kind):
        told = meant.get(each.name)
        if each.default_factory is not MISSING:
            members[each.name] = (hints[each.name], Field(default_factory=each.default_factory, description=told))
        else:
            default = ... if each.default is MISSING else each.default
            members[each.name] = (hints[each.name], Field(default, description=told))
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    made: type[BaseModel] = create_model(kind.__name__, __config__=config, **members)
    return made


def _field_in(message: str, kind: type[Pass]) -> str:
    """`.field` where the message of a pass starts with the name of one of its fields."""
    first = re.match(r"\w+", message)
    return f".{first[0]}" if first and first[0] in options_of(kind) else ""
