"""Built-in recipes on real models with labelled samples: bytes, metric, latency, SQNR.

    python -m benchmarks.recipes [--models NAME ...] [--recipes NAME|FILE ...] [--threads N] [--json FILE]

Models are those of onnxpress.models. Each runs against the float model on samples that calibration never saw.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

import onnxpress
from onnxpress.models.zoo import ZOO, path
from onnxpress.recipe import load

MODELS = ("lenet5", "ppocr-rec", "ppocr-cls", "silero-vad", "open-nsfw", "minilm", "effnet-lite0", "textgen")
RECIPES = ("balanced", "smallest", "int8", "fastest")


def measure(model: str, recipe: str, *, threads: int, seconds: float) -> dict[str, object]:
    """Compress one model by one recipe."""
    entry = ZOO[model]
    with tempfile.TemporaryDirectory() as folder:
        result = onnxpress.compress(
            path(model),
            Path(folder) / "out.onnx",
            recipe=load(recipe),
            data=entry.calibration,
            test=entry.feed,
            metric=entry.metric,
            threads=threads,
            bench_seconds=seconds,
        )
    parity = result.verification.providers[0]
    return {
        "model": model,
        "recipe": recipe,
        "delivered": result.version,
        "bytes": [result.bytes_before, result.bytes_after],
        "metric": [parity.metric_before, parity.metric_after],
        "sqnr": result.verification.sqnr,
        "speedup": [result.speedup, *result.benchmarks[0].quartiles],
        "seconds": result.seconds,
        "warnings": result.warnings,
    }


def main() -> None:
    """Print a table with a row for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=list(ZOO))
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    table = Table("model", "recipe", "bytes", "smaller", "metric", "SQNR dB", "times as fast", "delivered")
    rows = []
    for model in options.models:
        for recipe in options.recipes:
            row = measure(model, recipe, threads=options.threads, seconds=options.seconds)
            rows.append(row)
            (before, after), metric = row["bytes"], row["metric"]
            table.add_row(
                model,
                recipe,
                f"{after:,}",
                f"{before / after:.1f}",
                "–" if metric[0] is None else f"{metric[0]:.4f} → {metric[1]:.4f}",
                f"{row['sqnr']:.1f}",
                f"{row['speedup'][0]:.2f}",
                row["delivered"],
            )
            print(json.dumps(row), flush=True)
    Console(width=140).print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
