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
    result = document
    for each in settings:
        path, equals, text = each.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"--set {each}: write field.below=value, such as gates.max_drop=0.01")
        result = _changed(result, keys, read_value(text, source=f"--set {path}"), path)
    return result


def _changed(mapping: Mapping[str, object], keys: list[str], value: object, path: str) -> dict[str, object]:
    """A mapping with another value at a place in it, which one key or more lead to."""
    return {**mapping, keys[0]: _replaced(mapping.get(keys[0]), keys[1:], value, path)}


def _replaced(holder: object, keys: list[str], value: object, path: str) -> object:
    """`holder` with another value at a place in it; what lies above that place is copied."""
    if not keys:
        return value
    if holder is None or isinstance(holder, Mapping):
        return _changed(holder or {}, keys, value, path)
    if isinstance(holder, list):
        if not keys[0].isdecimal() or int(keys[0]) >= len(holder):
            raise ConfigError(f"--set {path}: there is no entry {keys[0]!r} in a list of {len(holder)}")
        place = int(keys[0])
        return [*holder[:place], _replaced(holder[place], keys[1:], value, path), *holder[place + 1 :]]
    raise ConfigError(f"--set {path}: nothing can stand below {holder!r}")


def fill(document: dict[str, object], environment: Mapping[str, str], *, source: str) -> dict[str, object]:
    """A document with `${NAME}` in its texts replaced by environment variables; `$${` stands for `${`.

    Args:
        document: as YAML gives it.
        environment: variables by name; their values are taken as they are.
        source: what errors call the document.

    Raises:
        ConfigError: a variable that is not set, or is not written `${NAME}`; names the field.
    """

    def filled(value: object, where: str) -> object:
        if isinstance(value, str):
            return _VARIABLE.sub(lambda found: _variable(found, environment, f"{source}: {where}"), value)
        if isinstance(value, Mapping):
            return {key: filled(each, f"{where}.{key}") for key, each in value.items()}
        if isinstance(value, list):
            return [filled(each, f"{where}.{index}") for index, each in enumerate(value)]
        return value

    try:
        return {key: filled(each, str(key)) for key, each in document.items()}
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
