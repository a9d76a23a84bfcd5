"""Recipes: the passes of a run with their options, written in YAML, checked field by field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from onnxpress.calibration.providers import provider_name
from onnxpress.documents import checked, read_mapping, read_text
from onnxpress.options import Complaint, broken, read_entry, schema_of
from onnxpress.passes.base import Pass
from onnxpress.passes.registry import known, suggest
from onnxpress.rewriter.errors import ConfigError

Goal = Literal["size", "latency", "memory"]
SUFFIXES = (".yaml", ".yml")
DIALECT = "https://json-schema.org/draft/2020-12/schema"


class StatedLimits(BaseModel):
    """What the result must keep to."""

    # Apart from `Limits`, because pydantic complains about a field of a file with all that stands above it.

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, title="Limits")

    max_drop: Annotated[float | None, Field(ge=0, description="how far the metric may fall, in its own unit")] = None
    confidence: Annotated[
        float | None, Field(gt=0, lt=1, description="that the metric falls by no more; 0.95 is usual")
    ] = None
    min_sqnr: Annotated[float | None, Field(description="signal to noise of every output, in dB")] = None
    max_bytes: Annotated[int | None, Field(gt=0, description="size of the result on disk")] = None
    min_speedup: Annotated[float | None, Field(gt=0, description="latency before over after, median of pairs")] = None
    parity: Annotated[dict[str, float] | None, Field(description="least SQNR by provider, in dB")] = None
    max_load_seconds: Annotated[float | None, Field(gt=0, description="to open a session")] = None
    max_load_ratio: Annotated[float | None, Field(gt=0, description="time to open a session, after over before")] = None

    @field_validator("parity")
    @classmethod
    def _named(cls, parity: dict[str, float] | None) -> dict[str, float] | None:
        """Give providers their full names."""
        try:
            return None if parity is None else {provider_name(name): least for name, least in parity.items()}
        except ConfigError as error:
            raise ValueError(str(error)) from error


class Limits(StatedLimits):
    """What the result must keep to; None sets no limit.

    Attributes:
        max_drop: how far the metric may fall, in its own unit (0.01 is one point of a top1 of 0 to 1).
        confidence: that the metric falls by no more than `max_drop`, by paired bootstrap over the samples; None
            judges by what was measured alone.
        min_sqnr: signal to noise of every output against the original, in dB.
        max_bytes: size of the result on disk.
        min_speedup: latency of the original over that of the result, the median of pairs.
        parity: least signal to noise of every output in dB, by execution provider.
        max_load_seconds: to open a session of the result, on the provider where that takes longest.
        max_load_ratio: that time over the original's.
    """

    def __init__(
        self,
        *,
        max_drop: float | None = None,
        confidence: float | None = None,
        min_sqnr: float | None = None,
        max_bytes: int | None = None,
        min_speedup: float | None = None,
        parity: Mapping[str, float] | None = None,
        max_load_seconds: float | None = None,
        max_load_ratio: float | None = None,
    ) -> None:
        """Check each limit.

        Raises:
            ConfigError: one that means nothing, such as NaN; names it.
        """
        try:
            super().__init__(
                max_drop=max_drop,
                confidence=confidence,
                min_sqnr=min_sqnr,
                max_bytes=max_bytes,
                min_speedup=min_speedup,
                parity=None if parity is None else dict(parity),
                max_load_seconds=max_load_seconds,
                max_load_ratio=max_load_ratio,
            )
        except ValidationError as error:
            found = Complaint.of(error)
            raise ConfigError(f"{'.'.join(map(str, found.field))} {found.value!r}: {found.wish}") from error

    def under(self, stated: StatedLimits | None) -> Limits:
        """These limits, each stated one replaced."""
        return self if stated is None else Limits(**{**self.model_dump(), **stated.model_dump(exclude_none=True)})


class Head(BaseModel):
    """What a recipe file says besides its passes."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    description: str = ""
    goal: Literal["size", "latency"] | None = None
    needs_data: bool = False
    limits: StatedLimits = StatedLimits()


class _Document(Head):
    """A recipe file, before its passes are read."""

    passes: list[object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a run does, and what it must keep to.

    Attributes:
        name: of the built-in recipe, or of the file without its suffix.
        description: what it is good for.
        goal: `size` or `latency` takes the result back where it is no better in that; None always delivers it. That
            of a search may be `memory`, too.
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
            "passes": [{each.name: plain(each.options())} for each in self.passes],
        }


def load(source: str | Path) -> Recipe:
    """A built-in recipe by name, or one from a file.

    Raises:
        ConfigError: no such recipe or file, or a field of it means nothing; one line that names file, field and value.
    """
    path = locate(source)
    content = read_text(path, "recipe")
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
    raw = read_mapping(text, source=source, needs="a recipe is a mapping with a list `passes:`")
    document = checked(_Document, raw, source=source)
    return recipe_of(document, document.passes, name=name, source=source)


def recipe_of(head: Head, entries: Iterable[object], *, name: str, source: str) -> Recipe:
    """A recipe out of a document.

    Args:
        head: all but the passes.
        entries: passes as YAML gives them.
        name: of the recipe.
        source: what errors call the document.

    Raises:
        ConfigError: an entry means nothing.
    """
    read = [read_entry(each, f"{source}: passes.{index}") for index, each in enumerate(entries)]
    return Recipe(
        name=name,
        description=head.description,
        goal=head.goal,
        needs_data=head.needs_data,
        limits=Limits().under(head.limits),
        passes=tuple(each for passes in read for each in passes),
    )


def schema(names: Iterable[str] | None = None) -> dict[str, JsonValue]:
    """The JSON schema of a recipe, for editors.

    Args:
        names: of the passes it knows; None means all that are installed and can be used.
    """
    return schema_with_passes(_Document, names, title="onnxpress recipe")


def schema_with_passes(
    document: type[BaseModel], names: Iterable[str] | None = None, *, title: str
) -> dict[str, JsonValue]:
    """The JSON schema of a document with a list `passes`.

    Args:
        document: its model, which says nothing of what stands in `passes`.
        names: see `schema`.
        title: of the schema.
    """
    unusable = broken() if names is None else ()
    listed = [each for each in (known() if names is None else names) if each not in unusable]
    result = document.model_json_schema()
    items = {"anyOf": [{"enum": listed}, *map(_entry, listed)]}
    told = "what is done, in order: a name, or a name with its options"
    result["properties"]["passes"] = {"type": "array", "description": told, "items": items}
    result["definitions"] = {name: schema_of(name) for name in listed}
    result = _trimmed(result)
    return {"$schema": DIALECT, **result, "title": title}


def _entry(name: str) -> dict[str, JsonValue]:
    """How a pass is written with its options."""
    options: JsonValue = {"anyOf": [{"$ref": f"#/definitions/{name}"}, {"type": "null"}]}
    return {"type": "object", "properties": {name: options}, "required": [name], "additionalProperties": False}


def _trimmed(content: JsonValue) -> Any:
    """A schema as every version of pydantic gives it: no titles that repeat names, no defaults that are none."""
    if isinstance(content, list):
        return [_trimmed(each) for each in content]
    if not isinstance(content, dict):
        return content
    result = {key: _trimmed(each) for key, each in content.items()}
    if isinstance(result.get("title"), str) and "properties" not in result:
        del result["title"]
    if isinstance(alone := result.get("allOf"), list) and len(alone) == 1:
        result = {**result.pop("allOf")[0], **result}
    if "default" in result and (result["default"] is None or "$ref" in result):
        del result["default"]
    if "const" in result:
        result.pop("enum", None)
    return result


def _folder() -> Path:
    return Path(str(files("onnxpress"))) / "recipes"


def plain(value: object) -> JsonValue:
    """Options as JSON knows them."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)
