"""Recipes: the passes of a run with their options, written in YAML, checked field by field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from onnxpress.options import Complaint, read_pass, schema_of
from onnxpress.passes.base import Pass
from onnxpress.passes.registry import known, suggest
from onnxpress.rewriter.errors import ConfigError

Goal = Literal["size", "latency"]
SUFFIXES = (".yaml", ".yml")


class _Limits(BaseModel):
    """The limits of a recipe file: pydantic complains about them with all that stands beside them."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, title="Limits")

    max_drop: Annotated[float, Field(ge=0)] | None = None
    min_sqnr: float | None = None
    max_bytes: Annotated[int, Field(gt=0)] | None = None
    min_speedup: Annotated[float, Field(gt=0)] | None = None


class Limits(_Limits):
    """What the result must keep to; None sets no limit.

    Attributes:
        max_drop: how far the metric may fall, in its own unit (0.01 is one point of a top1 of 0 to 1).
        min_sqnr: signal to noise of every output against the original, in dB.
        max_bytes: size of the result on disk.
        min_speedup: latency of the original over that of the result, the median of pairs.
    """

    def __init__(
        self,
        *,
        max_drop: float | None = None,
        min_sqnr: float | None = None,
        max_bytes: int | None = None,
        min_speedup: float | None = None,
    ) -> None:
        """Check each limit.

        Raises:
            ConfigError: one that means nothing, such as NaN; names it.
        """
        try:
            super().__init__(max_drop=max_drop, min_sqnr=min_sqnr, max_bytes=max_bytes, min_speedup=min_speedup)
        except ValidationError as error:
            found = Complaint.of(error)
            raise ConfigError(f"{found.field[0]} {found.value!r}: {found.wish}") from error


class _Document(BaseModel):
    """A recipe file, before its passes are read."""

    model_config = ConfigDict(extra="forbid")

    description: str = ""
    goal: Goal | None = None
    needs_data: bool = False
    limits: _Limits = _Limits()
    passes: list[object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a run does, and what it must keep to.

    Attributes:
        name: of the built-in recipe, or of the file without its suffix.
        description: what it is good for.
        goal: `size` or `latency` takes the result back where it is no better in that; None always delivers it.
        needs_data: whether it is of little use without samples.
        limits: what the result must keep to.
        passes: in order; normalisation comes first unless it is among them.
    """

    name: str
    passes: tuple[Pass, ...]
    description: str = ""
    goal: Goal | None = None
    needs_data: bool = False
    limits: Limits = field(default_factory=Limits)

    def document(self) -> dict[str, JsonValue]:
        """The recipe as plain values, each option written out; `parse` reads it again."""
        limits = self.limits.model_dump(exclude_none=True)
        return {
            "description": self.description,
            "goal": self.goal,
            "needs_data": self.needs_data,
            "limits": limits,
            "passes": [{each.name: _plain(each.options())} for each in self.passes],
        }


def load(source: str | Path) -> Recipe:
    """A built-in recipe by name, or one from a file.

    Raises:
        ConfigError: no such recipe or file, or a field of it means nothing; one line that names file, field and value.
    """
    path = locate(source)
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read recipe {path}: {why}") from error
    return parse(content, name=path.stem, source=path.name)


def locate(source: str | Path) -> Path:
    """The file of a recipe.

    Raises:
        ConfigError: no such built-in recipe or file.
    """
    if isinstance(source, str) and source in built_in():
        return _folder() / f"{source}.yaml"
    path = Path(source)
    if path.suffix not in SUFFIXES and not path.is_file():
        hint = suggest(str(source), dict.fromkeys(built_in()))
        raise ConfigError(f"no recipe is called {str(source)!r} (a file would end in .yaml); {hint}")
    return path


@cache
def built_in() -> tuple[str, ...]:
    """Names of the recipes that come with onnxpress."""
    return tuple(sorted(each.name.removesuffix(".yaml") for each in _folder().iterdir() if each.name.endswith(".yaml")))


def parse(text: str, *, name: str, source: str) -> Recipe:
    """Read a recipe.

    Args:
        text: YAML.
        name: of the recipe.
        source: what errors call it.

    Raises:
        ConfigError: it is no YAML, or a field of it means nothing.
    """
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: {_complaint(error)}") from error
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{source}: a recipe is a mapping with a list `passes:`, this is a {type(raw).__name__}")
    try:
        document = _Document.model_validate(raw)
    except ValidationError as error:
        _refuse(error, source)
    passes = tuple(read_pass(each, f"{source}: passes.{index}") for index, each in enumerate(document.passes))
    return Recipe(
        name=name,
        description=document.description,
        goal=document.goal,
        needs_data=document.needs_data,
        limits=Limits(**document.limits.model_dump()),
        passes=passes,
    )


def schema() -> dict[str, JsonValue]:
    """The JSON schema of a recipe, for editors, with every pass that is installed."""
    result = _Document.model_json_schema()
    names = list(known())
    entries = [
        {
            "type": "object",
            "properties": {name: {"anyOf": [schema_of(name), {"type": "null"}]}},
            "required": [name],
            "additionalProperties": False,
        }
        for name in names
    ]
    result["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    result["title"] = "onnxpress recipe"
    result["properties"]["passes"]["items"] = {"anyOf": [{"enum": names}, *entries]}
    return result


def _folder() -> Path:
    return Path(str(files("onnxpress"))) / "recipes"


def _refuse(error: ValidationError, source: str) -> NoReturn:
    """Turn the first complaint of pydantic into one line."""
    found = Complaint.of(error)
    where = ".".join(map(str, found.field))
    if found.kind == "missing":
        raise ConfigError(f"{source}: {where}: is missing") from error
    if found.kind == "extra_forbidden":
        fields = _Document.model_fields if len(found.field) == 1 else Limits.model_fields
        hint = suggest(str(found.field[-1]), fields)
        raise ConfigError(f"{source}: {where}: there is no such field; {hint}") from error
    raise ConfigError(f"{source}: {where}: {found.wish}, not {found.value!r}") from error


def _complaint(error: yaml.YAMLError) -> str:
    """Where a file stops being YAML, and why."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: not YAML: {error.problem}"
    return f"not YAML: {' '.join(str(error).split())}"


def _plain(value: object) -> JsonValue:
    """Options as JSON knows them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)
