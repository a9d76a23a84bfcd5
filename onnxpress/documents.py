"""YAML documents of users: read, checked field by field, and refused in one line that names file, field and value."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from onnxpress.options import Complaint
from onnxpress.passes.registry import suggest
from onnxpress.rewriter.errors import ConfigError

Document = TypeVar("Document", bound=BaseModel)
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """YAML without what stands twice: the second of two `limits:` would silently replace the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Read a mapping, whose keys differ."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands here twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_text(path: Path, what: str) -> str:
    """The text of a file.

    Args:
        path: of the file.
        what: it holds, for errors.

    Raises:
        ConfigError: it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read {what} {path}: {why}") from error


def read_mapping(text: str, *, source: str, needs: str) -> dict[str, object]:
    """The fields of a document.

    Args:
        text: YAML.
        source: what errors call it.
        needs: what such a document is, for one that is no mapping.

    Raises:
        ConfigError: it is no YAML, or no mapping.
    """
    raw = read_value(text, source=source)
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{source}: {needs}, this is a {type(raw).__name__}")
    return dict(raw)


def read_value(text: str, *, source: str) -> object:
    """Any value that is written in YAML.

    Raises:
        ConfigError: it is no YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: {_why(error)}") from error
    except (RecursionError, ValueError) as error:  # too deep; or a date that is none, such as 2026-02-30
        raise ConfigError(f"{source}: not YAML that can be read: {error}") from error


def checked(kind: type[Document], raw: Mapping[str, object], *, source: str) -> Document:
    """A document whose fields are what they should be.

    Args:
        kind: its model.
        raw: as YAML gives it.
        source: what errors call it.

    Raises:
        ConfigError: one of them is not; names it.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_complaint(error, kind)}") from error


def _complaint(error: ValidationError, kind: type[BaseModel]) -> str:
    """The first complaint of pydantic in one line."""
    found = Complaint.of(error)
    where = ".".join(map(str, found.field))
    if found.kind == "missing":
        return f"{where}: is missing"
    if found.kind == "extra_forbidden":
        fields = _fields(kind, found.field[:-1])
        return f"{where}: there is no such field; {suggest(str(found.field[-1]), fields)}"
    return f"{where}: {found.wish}, not {found.value!r}"


def _fields(kind: type[BaseModel], above: tuple[int | str, ...]) -> Mapping[str, object]:
    """The fields there are at some depth of a document."""
    for name in above:
        kinds = [kind.model_fields[str(name)].annotation]
        kinds += getattr(kinds[0], "__args__", ())  # of `Model | None`
        kind = next(each for each in kinds if isinstance(each, type) and issubclass(each, BaseModel))
    return kind.model_fields


def _why(error: yaml.YAMLError) -> str:
    """Where a file stops being YAML, and why."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: not YAML: {error.problem}"
    return f"not YAML: {' '.join(str(error).split())}"
