"""Normalisation beside onnxsim: nodes, bytes, error, and latency in one interleaved run.

    python -m benchmarks.normalise [MODEL ...] [--threads N] [--seconds S] [--json FILE]

A MODEL is a name of onnxpress.models or a path; open-nsfw by default.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import onnx
from rich.console import Console
from rich.table import Table

import onnxpress
from benchmarks import peers
from onnxpress.models.zoo import ZOO, path


def measure(source: Path, feed: str | None, *, threads: int, seconds: float) -> dict[str, object]:
    """Normalise one model by both tools and compare the results."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "ours.onnx", Path(folder) / "theirs.onnx"
        onnxpress.Pipeline([])(onnxpress.Model.load(source)).model.save(ours)
        peers.onnxsim(source, theirs)
        parity = onnxpress.verify(source, ours, data=feed)
        versus = [
            onnxpress.bench(each, ours, data=feed, threads=threads, seconds=seconds)[0] for each in (source, theirs)
        ]
        return {
            "model": source.name,
            "nodes": [len(onnx.load(each).graph.node) for each in (source, theirs, ours)],
            "bytes": [each.stat().st_size for each in (source, theirs, ours)],
            "sqnr": min(output.sqnr for provider in parity.providers for output in provider.outputs),
            "speedup": [(each.speedup, *each.quartiles) for each in versus],
        }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["open-nsfw"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for name in options.models:
        recipe = ZOO.get(name)
        source = path(name) if recipe else Path(name)
        row = measure(source, recipe.feed if recipe else None, threads=options.threads, seconds=options.seconds)
        rows.append(row)
        table = Table("", "as exported", "onnxsim", "onnxpress", title=name)
        for what in ("nodes", "bytes"):
            table.add_row(what, *(f"{count:,}" for count in row[what]))
        ratios = [f"{middle:.2f} ({low:.2f}–{high:.2f})" for middle, low, high in row["speedup"]]
        table.add_row("onnxpress is times as fast (quartiles)", *ratios, "")
        table.add_row("SQNR, dB", "", "", f"{row['sqnr']:.1f}")
        Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
