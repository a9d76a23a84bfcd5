"""What stands in a document from outside: values given on the command line, and environment variables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from onnxpress.documents import read_value
from onnxpress.rewriter.errors import ConfigError

_VARIABLE = re.compile(r"\$\$\{|\$\{(?P<name>[^}]*)(?P<end>\}?)")


def override(document: dict[str, object], settings: Iterable[str]) -> dict[str, object]:
    """A document with some of its values replaced.

    Args:
        document: as YAML gives it; it stays as it is.
        settings: `field.below=value`, a number for an entry of a list; the value is read as YAML.

    Raises:
        ConfigError: a setting that does not read so, or leads nowhere; names it.
    """
    result: object = document
    for each in settings:
        path, equals, text = each.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"--set {each}: write field.below=value, such as gates.max_drop=0.01")
        result = _replaced(result, keys, read_value(text, source=f"--set {path}"), path)
    return dict(result) if isinstance(result, Mapping) else document


def _replaced(holder: object, keys: list[str], value: object, path: str) -> object:
    """`holder` with another value at a place in it; what lies above that place is copied."""
    if not keys:
        return value
    key, below = keys[0], keys[1:]
    if holder is None:
        holder = {}
    if isinstance(holder, Mapping):
        return {**holder, key: _replaced(holder.get(key), below, value, path)}
    if isinstance(holder, list):
        if not key.isdecimal() or int(key) >= len(holder):
            raise ConfigError(f"--set {path}: there is no entry {key!r} in a list of {len(holder)}")
        place = int(key)
        return [*holder[:place], _replaced(holder[place], below, value, path), *holder[place + 1 :]]
    raise ConfigError(f"--set {path}: nothing can stand below {holder!r}")


def fill(content: object, environment: Mapping[str, str], *, source: str) -> object:
    """A document with `${NAME}` in its texts replaced by environment variables; `$${` stands for `${`.

    Args:
        content: as YAML gives it.
        environment: variables by name; their values are taken as they are.
        source: what errors call the document.

    Raises:
        ConfigError: a variable that is not set, or is not written `${NAME}`; names the field.
    """

    def filled(value: object, where: str) -> object:
        if isinstance(value, str):
            place = f"{source}: {where}" if where else source
            return _VARIABLE.sub(lambda found: _variable(found, environment, place), value)
        if isinstance(value, Mapping):
            return {key: filled(each, _below(where, key)) for key, each in value.items()}
        if isinstance(value, list):
            return [filled(each, _below(where, index)) for index, each in enumerate(value)]
        return value

    try:
        return filled(content, "")
    except RecursionError as error:
        raise ConfigError(f"{source}: a value holds itself, or too many others within each other") from error


def _variable(found: re.Match[str], environment: Mapping[str, str], place: str) -> str:
    if found["name"] is None:
        return "${"
    if not found["end"] or re.fullmatch(r"[A-Za-z_]\w*", found["name"]) is None:
        raise ConfigError(f"{place}: {found[0]!r} is no variable; write ${{NAME}}, or $${{ for ${{ itself")
    if found["name"] not in environment:
        raise ConfigError(f"{place}: the environment variable {found['name']} is not set; set it, or write the value")
    return environment[found["name"]]


def _below(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)
