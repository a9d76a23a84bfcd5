"""Is what lies on disk still what its manifest says?"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from onnxpress.artifact import sha256_of
from onnxpress.calibration.plugins import is_reference
from onnxpress.documents import read_text
from onnxpress.options import Complaint
from onnxpress.parity import Verification
from onnxpress.rewriter.errors import ConfigError, ModelError

EXACT = 100.0
"""SQNR in dB beyond which outputs differ by rounding alone, which is another on every machine."""
PART = 0.01
"""Of a metric's value, that it may fall by more than is stated."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class _File(_Part):
    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Files(_Part):
    files: dict[str, _File]


class _Model(_Files):
    model: str | None


class _Metric(_Part):
    drop: float | None


class _Parity(_Part):
    sqnr: float
    batches: Annotated[int, Field(gt=0)]
    metric: _Metric


class _Gate(_Part):
    high: float | None


class _Measurements(_Part):
    metric: str | None
    gate: _Gate | None = None
    parity: dict[str, _Parity]


class _Content(_Part):
    input: _Model
    output: _Model
    transport: _Files | None
    sources: dict[str, _Files]
    measurements: _Measurements


class _Manifest(_Part):
    format: Literal[1]
    kind: Literal["manifest"]
    manifest: _Content


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that was read.

    Attributes:
        path: of its file, from whose folder the files are seen.
        content: what it says.
    """

    path: Path
    content: _Content

    @property
    def original(self) -> Path:
        """The input model.

        Raises:
            ConfigError: it was given in memory.
        """
        return self._place(self.content.input.model, "input")

    @property
    def result(self) -> Path:
        """The output model."""
        return self._place(self.content.output.model, "output")

    @property
    def metric(self) -> str | None:
        """The metric that was measured, where its name is enough to find it again."""
        name = self.content.measurements.metric
        return name if name is not None and (name == "top1" or is_reference(name)) else None

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers on which it was measured."""
        return tuple(self.content.measurements.parity)

    def check_stated(self, providers: Sequence[str]) -> None:
        """Refuse execution providers, by full name, on which nothing was measured that they could be held against.

        Raises:
            ConfigError: names them.
        """
        if strange := [each for each in providers if each not in self.providers]:
            raise ConfigError(
                f"{self.path} states nothing of {', '.join(strange)}; it was measured on {', '.join(self.providers)}"
            )

    @property
    def batches(self) -> int:
        """Batches that were compared."""
        return max((each.batches for each in self.content.measurements.parity.values()), default=1)

    def files(self, *, output_only: bool = False) -> dict[str, _File]:
        """The files it names: those of the result, then all others.

        Args:
            output_only: leave out the input and what else was read.
        """
        groups: list[_Files] = [self.content.output]
        groups += [] if self.content.transport is None else [self.content.transport]
        groups += [] if output_only else [self.content.input, *self.content.sources.values()]
        return {name: file for each in groups for name, file in each.files.items()}

    def differing(self, *, output_only: bool = False) -> list[str]:
        """Which files are not what they were, a line each.

        Raises:
            ModelError: a file is missing or cannot be read.
        """
        return [
            line for name, file in self.files(output_only=output_only).items() for line in self._differs(name, file)
        ]

    def worse(self, found: Verification, *, tolerance: float) -> list[str]:
        """What is worse than the manifest states, a line each.

        Of the metric it is the drop that counts: how well both models do depends on the samples, which may be others;
        so does the drop, which is held against what the bootstrap said of it, where there was one.

        Args:
            found: measured now, on samples of the same kind.
            tolerance: in dB.
        """
        return [line for each in found.providers for line in self._worse(each.provider, found, tolerance)]

    def _differs(self, name: str, file: _File) -> Iterator[str]:
        path = self.path.parent / name
        if not path.is_file():  # what is no file, such as a pipe, would be read for ever
            raise ModelError(f"{path}: the manifest {self.path.name} names this file, which is not there")
        try:
            size, digest = path.stat().st_size, sha256_of(path)
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror}") from error
        if size != file.bytes:
            yield f"{path} has {size:,} bytes, {file.bytes:,} in the manifest"
        elif digest != file.sha256:
            yield f"{path} has the SHA-256 {digest[:12]}…, {file.sha256[:12]}… in the manifest"

    def _worse(self, provider: str, found: Verification, tolerance: float) -> Iterator[str]:
        stated = self.content.measurements.parity.get(provider)
        if stated is None:
            return
        (now,) = (each for each in found.providers if each.provider == provider)
        least = min(stated.sqnr, EXACT + tolerance) - tolerance
        if not (now.sqnr >= least or math.isnan(stated.sqnr)):
            yield f"SQNR on {provider} is {now.sqnr:.1f} dB, {stated.sqnr:.1f} in the manifest"
        drop, before, gate = stated.metric.drop, now.metric_before, self.content.measurements.gate
        if drop is None or now.drop is None or before is None:
            return
        most = drop if gate is None or gate.high is None else max(drop, gate.high)
        if not (now.drop <= most + PART * abs(before) or math.isnan(drop)):
            yield f"{found.metric} on {provider} falls by {now.drop:.4g}, by at most {most:.4g} in the manifest"

    def _place(self, name: str | None, which: str) -> Path:
        if name is None:
            raise ConfigError(f"{self.path}: the {which} was a model in memory, so it cannot be measured again")
        return self.path.parent / name


def read_manifest(path: str | Path) -> Manifest:
    """Read a manifest.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    path = Path(path)
    text = read_text(path, "manifest")
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: no manifest: it is not JSON: {error}") from error
    try:
        return Manifest(path, _Manifest.model_validate(raw).manifest)
    except ValidationError as error:
        found = Complaint.of(error)
        raise ConfigError(f"{path}: no manifest: {'.'.join(map(str, found.field)) or 'it'}: {found.wish}") from error
