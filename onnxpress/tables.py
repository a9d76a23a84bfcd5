"""Results as tables for people."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

from onnxpress.benchmark import Benchmark
from onnxpress.outcome import CompressionResult
from onnxpress.parity import Verification
from onnxpress.passes.idle import WHOLE
from onnxpress.passes.registry import find
from onnxpress.passes.report import Report, Skip
from onnxpress.reasons import joint, words
from onnxpress.recipe import Recipe
from onnxpress.rewriter.errors import ConfigError
from onnxpress.search.memory import gain_of
from onnxpress.terminal import Table, brief


def size(nbytes: float) -> str:
    """Bytes as people read them: `1.73 MB`, of 1,000,000 bytes each; three digits."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= scale:
            return f"{_three(nbytes / scale)} {unit}"
    return f"{nbytes:.0f} B"


def duration(seconds: float) -> str:
    """Seconds as people read them: `3.42 ms`."""
    if 0 < seconds < 1e-4:
        return f"{_three(seconds * 1e6)} µs"
    return f"{_three(seconds)} s" if seconds >= 1 else f"{_three(seconds * 1e3)} ms"


def count(number: int | None) -> str:
    """A number as people read it: `1.60 M`."""
    if number is None:
        return "?"
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{_three(number / scale)} {unit}"
    return str(number)


def dims(shape: Iterable[int | str | None]) -> str:
    """A shape: `64×3×7×7`."""
    return "×".join(str(size or "?") for size in shape) or "scalar"


def trials(result: CompressionResult) -> Table:
    """What a search tried, in order."""
    rows = [
        [
            each.name,
            size(each.nbytes) if each.nbytes else "",
            "" if each.speedup is None else f"{each.speedup:.2f}",
            "" if each.sqnr is None else decibel(each.sqnr),
            "" if each.drop is None else number(each.drop),
            each.reason or "within the budget",
        ]
        for each in result.trials
    ]
    return Table("tried", ("plan", ">bytes", ">times as fast", ">SQNR", ">metric fell by", "verdict"), rows)


def verification(found: Verification) -> list[Table]:
    """Parity of each output, and the metric and the placement of nodes, on each provider."""
    parity = [
        [
            short(each.provider),
            output.name,
            decibel(output.sqnr) if output.equal is None else f"{output.equal:.2%} equal",
            f"{output.max_abs_error:.3g}",
            f"{output.cosine:.6f}" if output.equal is None else "",
            "" if output.agreement is None else f"{output.agreement:.2%}",
        ]
        for each in found.providers
        for output in each.outputs
    ]
    columns = ("provider", "output", ">SQNR", ">largest error", ">cosine", ">same argmax")
    batches = max((each.batches for each in found.providers), default=0)
    tables = [Table(f"outputs against the original, {batches} batches", columns, parity)]
    if found.metric:
        rows = [
            [short(each.provider), number(each.metric_before), number(each.metric_after), number(each.drop)]
            for each in found.providers
        ]
        tables.append(Table(f"metric {found.metric}", ("provider", ">before", ">after", ">drop"), rows))
    rows = [
        [short(each.provider), which, placement(nodes)]
        for each in found.providers
        for which, nodes in (("original", each.nodes_before), ("result", each.nodes_after))
    ]
    tables.append(Table("where nodes ran", ("asked for", "model", "nodes"), rows))
    return tables


def benchmarks(found: Sequence[Benchmark], *, names: tuple[str, str] = ("original", "result")) -> Table:
    """Latency of both models on each provider."""
    rows = []
    for each in found:
        for name, timing in zip(names, (each.first, each.second), strict=True):
            low, high = timing.quartiles
            spread = f"{duration(low)} – {duration(high)}"
            load, middle = duration(timing.load_seconds), duration(timing.median)
            rows.append([short(each.provider), name, size(timing.nbytes), load, middle, spread])
    notes = [
        f"{names[1]} is {each.speedup:.2f} times as fast on {short(each.provider)} (middle half of {each.pairs} pairs: "
        f"{each.quartiles[0]:.2f} – {each.quartiles[1]:.2f}; threads: {each.threads or 'all'}; batch: "
        f"{', '.join(f'{name} {dims(shape)}' for name, shape in each.shapes.items())})"
        for each in found
    ]
    columns = ("provider", "model", ">bytes", ">load", ">latency", ">middle half")
    return Table("latency, measured in turns", columns, rows, notes)


def passes(reports: Sequence[Report]) -> Table:
    """What each pass did."""
    rows = [
        [each.name, str(len(each.changes)), kinds(each), str(len(each.skips)), f"{each.seconds:.2f} s", _options(each)]
        for each in reports
    ]
    notes = [f"{each.name}: {note}" for each in reports for note in each.notes]
    return Table("passes", ("pass", ">changes", "to layers", ">skips", ">time", "options"), rows, notes)


def kinds(report: Report, *, most: int = 3) -> str:
    """What was done to layers, the same together: `12 int8 per channel, 4 int8 in the file`.

    Of a pass that changed none, what it did to the whole, which counts for itself: `53 nodes became 29`.
    """
    layers = [each.action for each in report.changes if each.site not in ("graph", WHOLE)]
    found = Counter(map(_kind, layers)).most_common() or [(each.action, 1) for each in report.changes]
    told = [f"{number} {kind}" if layers else kind for kind, number in found[:most]]
    more = [f"{sum(number for _, number in found[most:])} others"] if len(found) > most else []
    return ", ".join(told + more)


def _kind(action: str) -> str:
    """The words of an action without its figures: `zeros` of `90.0% zeros`, `rank` of `rank 96 of 512`.

    Of `16 of 64 channels removed`, `channels removed`.
    """
    words = re.sub(r"^[\d.,]+\s*(%|of \d+)?\s*", "", re.sub(r"'[^']*'", "…", action))
    return re.split(r"[,:;(]|\b\d", words)[0].strip().removesuffix(" of") or action


def skips(reports: Sequence[Report], *, most: int = 12) -> Table | None:
    """Why passes left sites alone, the same reasons together; None where they left none. The report lists each.

    Reasons that differ in figures and names alone are one, with the range of each figure.
    """
    grouped: dict[tuple[str, tuple[str, ...]], list[Skip]] = {}
    for report in reports:
        for skip in report.skips:
            grouped.setdefault((report.name, words(skip.reason)), []).append(skip)
    rows = [
        [name, _several([each.site for each in skips]), joint([each.reason for each in skips])]
        for (name, _), skips in grouped.items()
    ]
    notes = [f"and {len(rows) - most} more reasons, in the report (--json)"] if len(rows) > most else []
    return Table("left alone", ("pass", "site", "reason"), rows[:most], notes) if rows else None


def tensors(reports: Sequence[Report], *, most: int = 8) -> Table | None:
    """Why tensors carry codes or not, counted by reason; None where no pass placed codes. The report lists each.

    Reasons that differ in figures and names alone are one, with the range of each figure.
    """
    grouped: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for report in reports:
        for reason in report.tensors.values():
            grouped.setdefault((report.name, words(reason)), []).append(reason)
    ranked = sorted(grouped.items(), key=lambda each: -len(each[1]))
    rows = [[name, str(len(reasons)), joint(reasons)] for (name, _), reasons in ranked]
    notes = [f"and {len(rows) - most} more reasons, in the report (--json)"] if len(rows) > most else []
    return Table("tensors", ("pass", ">tensors", "codes or float, and why"), rows[:most], notes) if rows else None


def harms(reports: Sequence[Report], *, most: int = 8) -> Table | None:
    """Which tensors hurt the outputs most when they alone are codes, the worst first; None where none was tried."""
    found = [(report.name, each) for report in reports for each in report.harms]
    worst = found[:most]
    names, readers = brief([each.tensor for _, each in worst]), brief([each.reader or "" for _, each in worst])
    rows = [
        [of, each.kind, name, reader, decibel(each.sqnr)]
        for (of, each), name, reader in zip(worst, names, readers, strict=True)
    ]
    notes = [f"and {len(found) - most} more, in the report (--json)"] if len(found) > most else []
    headings = ("pass", "kind", "tensor", "read by what gives", ">outputs")
    return Table("what hurts most, each tensor alone on codes", headings, rows, notes) if rows else None


def summary(result: CompressionResult) -> Table:
    """The run in one table: before, after."""
    before, after = size(result.bytes_before), size(result.bytes_after)
    rows = [["bytes", before, after, f"{result.ratio:.2f} times smaller"]]
    if (packed := result.transport) is not None:
        times = result.bytes_before / packed.bytes
        rows.append([f"bytes as {packed.format}", "", size(packed.bytes), f"{times:.2f} times smaller than the input"])
    if result.memory is not None:
        rows.append(["memory", *map(size, result.memory), f"{gain_of(*result.memory):.2f} times less"])
    for each in result.verification.providers:
        if each.metric_before is not None:
            name = f"{metric_name(result.verification.metric)}, {short(each.provider)}"
            rows.append([name, number(each.metric_before), number(each.metric_after), _gain(each.drop)])
        told = "worst output" if each.judged else "cannot be judged"
        rows.append([f"SQNR, {short(each.provider)}", "", decibel(each.sqnr), told])
    for timing in result.benchmarks:
        first, second = duration(timing.first.median), duration(timing.second.median)
        rows.append([f"latency, {short(timing.provider)}", first, second, f"{timing.speedup:.2f} times as fast"])
        load = [duration(each.load_seconds) for each in (timing.first, timing.second)]
        rows.append([f"load, {short(timing.provider)}", *load, ""])
    return Table(f"recipe {result.recipe.name}: {result.version} model", ("", ">before", ">after", "change"), rows)


def recipes(found: Sequence[Recipe]) -> Table:
    """Recipes and what they are good for."""
    rows = [
        [each.name, each.goal or "", "needed" if each.needs_data else "for the proof", _steps(each), each.description]
        for each in found
    ]
    notes = ["write your own: `onnxpress recipes NAME > mine.yaml`, edit, `onnxpress compress … --recipe mine.yaml`"]
    return Table("recipes", ("name", "goal", "samples", "passes", "what it does"), rows, notes)


def _steps(recipe: Recipe) -> str:
    return " → ".join(step.name for step in recipe.passes)


def short(provider: str) -> str:
    """A provider as the command line writes it."""
    return provider.removesuffix("ExecutionProvider").lower()


def metric_name(name: str | None) -> str:
    """A metric without the module it comes from."""
    return (name or "").rpartition(":")[2]


def _gain(drop: float | None) -> str:
    """The change of a metric; what rounds to nothing has no sign."""
    gain = round(-(drop or 0.0), 4)
    return f"{gain:+.4f}" if gain else "same"


def number(value: float | None) -> str:
    """A metric."""
    return "" if value is None else f"{round(value, 4) + 0.0:.4f}"  # -0.00001 is no -0.0000


def decibel(value: float) -> str:
    """A ratio in dB; equal outputs have an infinite one."""
    return "equal" if value == float("inf") else f"{value:.1f} dB"


def placement(nodes: Mapping[str, Mapping[str, int]]) -> str:
    """Which nodes ran where: `12 on cpu (2 Conv, …)`."""
    return "; ".join(f"{sum(ops.values())} on {short(where)}: {_ops(ops)}" for where, ops in nodes.items()) or "none"


def _ops(ops: Mapping[str, int], most: int = 8) -> str:
    ranked = sorted(ops.items(), key=lambda each: (-each[1], each[0]))
    more = [f"{sum(number for _, number in ranked[most:])} others"] if len(ranked) > most else []
    return ", ".join([f"{number} {op}" for op, number in ranked[:most]] + more)


def _several(sites: Sequence[str]) -> str:
    (first,) = brief(sites[:1])
    return first if len(sites) == 1 else f"{len(sites)} sites: {first}, …"


def _three(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def _options(report: Report) -> str:
    """The options that are not as the pass has them by itself."""
    try:
        usual = {each.name: each.default for each in fields(find(report.name))}
    except ConfigError:  # a pass that was given as an object
        usual = {}
    usual = {key: _listed(value) for key, value in usual.items()}
    chosen = {key: _listed(value) for key, value in report.options.items()}
    return ", ".join(f"{key} {text}" for key, text in chosen.items() if text and text != usual.get(key))


def _listed(value: object) -> str:
    """A value as text, the same for a tuple and for the list that a file has in its place."""
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
