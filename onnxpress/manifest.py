"""The manifest beside a model: hashes of all that went in and came out, how it was made, and what was measured."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import JsonValue

from onnxpress.artifact import Artifact, sha256_of
from onnxpress.outcome import CompressionResult
from onnxpress.report import document, plain, to_json, write_text
from onnxpress.rewriter.errors import ConfigError

KIND = "manifest"


def beside(model: Path) -> Path:
    """Where the manifest of a model goes unless another place is named."""
    return model.with_name(f"{model.name}.manifest.json")


def write_manifest(
    result: CompressionResult,
    path: Path,
    *,
    seed: int = 0,
    sources: Mapping[str, object] | None = None,
) -> None:
    """Write the manifest of a result, whole or not at all.

    Args:
        result: that was delivered.
        path: of the manifest; files are named as seen from its folder.
        seed: of the run.
        sources: what else was read, by what it is for, as `data`, `test`, `metric`; of what lies on disk the hash is
            kept, of `module:function` the name.

    Raises:
        ConfigError: nothing was delivered, or the file cannot be written.
        ModelError: a file of the model cannot be read.
    """
    if result.path is None:
        raise ConfigError(f"manifest {path}: nothing was delivered that it could tell of")
    write_text(to_json(document(KIND, _content(result, path.parent, seed, sources or {}))) + "\n", path)


def _content(result: CompressionResult, folder: Path, seed: int, sources: Mapping[str, object]) -> dict[str, JsonValue]:
    assert result.path is not None
    packed = result.transport
    files = [] if packed is None else [(each, packed.sha256[each.name]) for each in packed.paths]
    return {
        "input": _model(result.source, result.hashes_before, folder),
        "output": {"version": result.version, **_model(result.path, result.hashes_after, folder)},
        "transport": None if packed is None else {"format": packed.format, "files": _files(files, folder)},
        "sources": {name: _source(each, folder) for name, each in sources.items() if each is not None},
        "recipe": {"name": result.recipe.name, **result.recipe.document()},
        "seed": seed,
        "measurements": _measurements(result),
    }


def _model(path: Path | None, hashes: Mapping[str, str], folder: Path) -> dict[str, JsonValue]:
    """A model with its files; one that was given in memory has none."""
    if path is None:
        return {"model": None, "files": {}}
    files = [(file, hashes.get(file.name) or sha256_of(file)) for file in Artifact.of(path).files]
    return {"model": _seen(path, folder), "files": _files(files, folder)}


def _source(source: object, folder: Path) -> dict[str, JsonValue]:
    """Samples and the like: files by hash, functions by name, other objects by their kind."""
    if not isinstance(source, str | Path):
        return {"name": f"a {type(source).__name__} in memory", "files": {}}
    path = Path(source)
    if not path.exists() and isinstance(source, str):
        return {"name": source, "files": {}}
    listed = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    return {"name": _seen(path, folder), "files": _files([(each, sha256_of(each)) for each in listed], folder)}


def _files(files: Iterable[tuple[Path, str]], folder: Path) -> dict[str, JsonValue]:
    return {_seen(file, folder): {"bytes": file.stat().st_size, "sha256": digest} for file, digest in files}


def _seen(path: Path, folder: Path) -> str:
    """A path as seen from a folder."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def _measurements(result: CompressionResult) -> dict[str, JsonValue]:
    found = result.verification
    parity = {
        each.provider: {
            "sqnr": each.sqnr,
            "batches": each.batches,
            "outputs": {output.name: output.sqnr for output in each.outputs},
            "metric": {"before": each.metric_before, "after": each.metric_after, "drop": each.drop},
        }
        for each in found.providers
    }
    timed = {
        each.provider: {
            "speedup": each.speedup,
            "quartiles": each.quartiles,
            "pairs": each.pairs,
            "slowed": each.slowed,
            "threads": each.threads,
            "before": {"median": each.first.median, "quartiles": each.first.quartiles, "load": each.first.load_seconds},
            "after": {
                "median": each.second.median,
                "quartiles": each.second.quartiles,
                "load": each.second.load_seconds,
            },
        }
        for each in result.benchmarks
    }
    sizes = {"before": result.bytes_before, "after": result.bytes_after, "ratio": result.ratio}
    return {
        "bytes": plain(sizes),
        "metric": found.metric,
        "gate": plain(result.gate),
        "parity": plain(parity),
        "latency": plain(timed),
        "seconds": result.seconds,
    }
