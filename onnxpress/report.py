"""The account of a run as JSON: what was made of what, how, where, and what was measured."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, JsonValue

from onnxpress.host import machine, versions
from onnxpress.outcome import CompressionResult
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.save import replacing

FORMAT = 1
"""Raised when a field changes its meaning or goes."""


def document(kind: str, content: object) -> dict[str, JsonValue]:
    """What a command found, with the versions and the machine it was found with.

    Args:
        kind: the command.
        content: a dataclass, or plain values.
    """
    return {
        "format": FORMAT,
        "kind": kind,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": plain(versions()),
        "machine": plain(machine()),
        kind: plain(content),
    }


def account(result: CompressionResult) -> dict[str, object]:
    """The account of a compression, by subject."""
    return {
        "input": {"path": result.source, "bytes": result.bytes_before, "sha256": result.hashes_before},
        "output": {
            "path": result.path,
            "bytes": result.bytes_after,
            "sha256": result.hashes_after,
            "version": result.version,
        },
        "transport": result.transport,
        "recipe": {"name": result.recipe.name, **result.recipe.document()},
        "ratio": result.ratio,
        "speedup": result.speedup,
        "passes": result.reports,
        "stages": result.stages,
        "trials": result.trials,
        "gate": result.gate,
        "memory": result.memory,
        "verification": result.verification,
        "benchmarks": result.benchmarks,
        "unmet": result.unmet,
        "warnings": result.warnings,
        "seconds": result.seconds,
    }


def plain(value: object) -> JsonValue:
    """Results as JSON knows them; numbers that are not finite become `"Infinity"`, `"-Infinity"` or `"NaN"`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def to_json(content: Mapping[str, JsonValue]) -> str:
    """As text, indented."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


def write_text(text: str, path: Path) -> None:
    """Write a report, whole or not at all.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        with replacing(path) as stream:
            stream.write(text.encode())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
