"""Results as a notebook and a Python prompt show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onnxpress import tables
from onnxpress.benchmark import Benchmark
from onnxpress.outcome import CompressionResult
from onnxpress.parity import Verification
from onnxpress.passes.shown import frame, grid, printable
from onnxpress.terminal import Table


def of_result(result: CompressionResult) -> str:
    """A compression in a line: sizes, ratio, speed, SQNR, metric, and what does not hold."""
    before, after = tables.size(result.bytes_before), tables.size(result.bytes_after)
    parts = [f"{result.recipe.name}: {before} to {after}, {result.ratio:.2f} times smaller"]
    if result.version != "compressed":
        parts.append(f"the {result.version} model was delivered")
    if result.benchmarks:
        parts.append(f"{result.speedup:.2f} times as fast")
    parts.append(_judged(result.verification))
    parts += [f"limit not met: {each}" for each in result.unmet]
    return f"<{'; '.join(map(printable, parts))}>"


def of_verification(found: Verification) -> str:
    """A comparison in a line."""
    return f"<{printable(_judged(found))}>"


def of_benchmark(found: Benchmark) -> str:
    """A timing in a line."""
    first, second = tables.duration(found.first.median), tables.duration(found.second.median)
    low, high = found.quartiles
    on = tables.short(found.provider)
    return f"<{found.speedup:.2f} times as fast on {on}: {first} to {second}, middle half {low:.2f} to {high:.2f}>"


def result_html(result: CompressionResult) -> str:
    """A compression as a small table."""
    summary = tables.summary(result)
    notes = [f"limit not met: {each}" for each in result.unmet]
    notes += [f"warning: {each}" for each in result.warnings]
    return _framed([Table(summary.title, summary.columns, summary.rows, notes)])


def verification_html(found: Verification) -> str:
    """A comparison as small tables."""
    return _framed(tables.verification(found))


def benchmarks_html(found: Sequence[Benchmark]) -> str:
    """Timings as a small table."""
    return _framed([tables.benchmarks(found, names=("first", "second"))])


def _judged(found: Verification) -> str:
    parts = [f"SQNR {tables.decibel(found.sqnr)}" if found.providers else "not compared"]
    for each in found.providers:
        if each.metric_before is not None:
            before, after = tables.number(each.metric_before), tables.number(each.metric_after)
            parts.append(f"{tables.metric_name(found.metric)} {before} to {after} on {tables.short(each.provider)}")
    return ", ".join(parts)


def _framed(found: Iterable[Table]) -> str:
    return frame(*(grid(each.title, each.columns, each.rows, each.notes) for each in found))
