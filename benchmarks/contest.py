"""One model, many ways to change it by passes: each in a fresh interpreter, all judged alike and timed in turns."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from rich.console import Console

from benchmarks import samples
from benchmarks.judge import Judge
from benchmarks.peer_scripts.measure import Work
from benchmarks.peers import Bounds, FailedError, Script
from benchmarks.race import race, ratio
from onnxpress.artifact import Artifact
from onnxpress.calibration.feeds import open_feed
from onnxpress.calibration.metrics import load_metric
from onnxpress.calibration.session import Runner
from onnxpress.cost import multiply_adds
from onnxpress.models.zoo import ZOO, path
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import infer_shapes
from onnxpress.rewriter.sites import find_sites
from onnxpress.rewriter.walk import nodes

NORMALISED = "normalised"
"""The reference of all sizes and speeds: what onnxpress makes of the export before any pass."""

JUDGED = 8
"""Batches whose outputs are compared: 32 images of open_nsfw."""

TIMED = 4
"""Batches that are timed in turn, of those."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a figure of a row must be.

    Attributes:
        figure: key of `Row.figures`.
        least: it must not be below.
        most: it must not be above.
    """

    figure: str
    least: float = -math.inf
    most: float = math.inf

    def __str__(self) -> str:
        """As `metric ≥ 0.98`."""
        return f"{self.figure} ≥ {self.least:.3g}" if self.least > -math.inf else f"{self.figure} ≤ {self.most:.3g}"

    def met(self, figures: Mapping[str, float]) -> bool:
        """Whether the figure is there and holds."""
        return self.least <= figures.get(self.figure, math.nan) <= self.most


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to change one model.

    Attributes:
        name: in the table.
        model: in the zoo.
        passes: as a recipe has them; none where `script` does the work.
        script: of another tool.
        samples: rows for calibration, about; None for all that the model has, 0 for none.
        wishes: that must hold.
        rival: case of the same model that `gain` is measured against, in dB.
    """

    name: str
    model: str
    passes: Sequence[Mapping[str, Mapping[str, object]]] = ()
    script: Script | None = None
    samples: int | None = None
    wishes: tuple[Wish, ...] = ()
    rival: str | None = None


@dataclass(slots=True)
class Row:
    """What one case came to.

    Attributes:
        case: its name.
        figures: by name: `bytes`, `smaller` (part of the bytes gone), `kept` (part of all weights that is not zero),
            `multiply_adds` of one run with open dimensions as 1, `less_work` (times fewer), `sqnr` and `logits` of the
            worst output in dB, `gain` over the rival's (in that of logits, else of outputs), `metric`, `metric_drop`,
            `faster` with its quartiles, `seconds`, `cpu_seconds`, `peak`.
        wishes: that must hold.
        notes: what the tool said.
        failed: why there is no result.
    """

    case: str
    figures: dict[str, float] = field(default_factory=dict)
    wishes: tuple[Wish, ...] = ()
    notes: list[str] = field(default_factory=list)
    failed: str | None = None

    def plain(self) -> dict[str, object]:
        """As JSON holds it."""
        figures = {name: each if math.isfinite(each) else str(each) for name, each in self.figures.items()}
        wishes = {str(wish): wish.met(self.figures) for wish in self.wishes}
        return {"case": self.case, **figures, "wishes": wishes, "notes": self.notes, "failed": self.failed}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """One model, and all that is tried on it.

    Attributes:
        model: in the zoo.
        cases: all of this model.
        threads: inside an operator.
        seconds: of timing, for each result.
        bounds: of one piece of work.
        batches: rows of the batches that are timed, each by itself: figures `faster_1`, `faster_32`, and `faster` is
            the least of them. None times batches as the test feed has them.
        judged: batches whose outputs are compared.
    """

    model: str
    cases: Sequence[Case]
    threads: int
    seconds: float
    bounds: Bounds
    batches: tuple[int, ...] = ()
    judged: int = JUDGED

    def run(self, console: Console) -> list[Row]:
        """Do every case, judge every result, time them all."""
        with tempfile.TemporaryDirectory(prefix="contest-") as name:
            folder = Path(name)
            source = folder / "normalised.onnx"
            work = self._started(_press(folder, ()), path(self.model), source, self._given(None, folder))
            judge = self._judge(source)
            rows, made = [_judged(Row(NORMALISED), source, work, judge)], {NORMALISED: source}
            for case in self.cases:
                with console.status(f"{self.model}: {case.name}"):
                    rows.append(self._make(case, folder, judge, made))
                console.print(f"[dim]{self.model}: {case.name}: {rows[-1].failed or 'done'}", highlight=False)
            self._time(rows, made, judge)
        compare(rows, self.cases)
        return rows

    def _judge(self, source: Path) -> Judge:
        entry = ZOO[self.model]
        with Runner(source, threads=self.threads) as runner:
            test = open_feed(entry.feed, inputs=runner.input_specs)
        metric = load_metric(entry.metric) if entry.metric else None
        return Judge.of(source, samples.spread(test, self.judged), test, metric, self.threads)

    def _make(self, case: Case, folder: Path, judge: Judge, made: dict[str, Path]) -> Row:
        """Do one case; a result that runs joins `made`."""
        row = Row(case.name, wishes=case.wishes)
        result = folder / f"{len(list(folder.iterdir())):02}.onnx"
        try:
            given = self._given(case.samples, folder)
            work = self._started(case.script or _press(folder, case.passes), made[NORMALISED], result, given)
            _judged(row, result, work, judge)
            made[case.name] = result
        except FailedError as error:
            row.failed = str(error)
        except Exception as error:  # a file of another tool may be broken in any way
            row.failed = "the file does not run: " + re.sub(r"^.*? failed: ?", "", str(error).partition("\n")[0])[:300]
        return row

    def _given(self, count: int | None, folder: Path) -> Path:
        """A folder of about so many calibration samples, or of all, or of none."""
        given = folder / f"samples-{'all' if count is None else count}"
        if not given.exists():
            feed = open_feed(ZOO[self.model].calibration, inputs=Model.load(path(self.model)).inputs)
            samples.write(list(feed) if count is None else samples.calibration(feed, count) if count else [], given)
        return given

    def _started(self, script: Script, source: Path, target: Path, given: Path) -> Work:
        return script.run(source, target, samples=given, threads=self.threads, bounds=self.bounds)

    def _time(self, rows: Sequence[Row], made: Mapping[str, Path], judge: Judge) -> None:
        """Add how many times as fast as the normalised model each result is."""
        batches = judge.batches[:: max(1, len(judge.batches) // TIMED)][:TIMED]
        for size in self.batches or (None,):
            cut = batches if size is None else [samples.cut(batch, size) for batch in batches]
            times = race(made, cut, threads=self.threads, seconds=self.seconds / max(1, len(self.batches)))
            for row in rows:
                if row.case in times:
                    _add_ratio(row.figures, ratio(times[NORMALISED], times[row.case]), size)


def _add_ratio(figures: dict[str, float], found: tuple[float, float, float], size: int | None) -> None:
    """Note median and quartiles; `faster` is that of the batch on which least is gained."""
    names = ("faster", "faster_quartile_1", "faster_quartile_3")
    if size is not None:
        figures |= {name.replace("faster", f"faster_{size}"): each for name, each in zip(names, found, strict=True)}
    if found[0] < figures.get("faster", math.inf):
        figures |= dict(zip(names, found, strict=True))


def _press(folder: Path, passes: Sequence[object]) -> Script:
    """Onnxpress with a recipe of these passes."""
    recipe = folder / f"{len(list(folder.iterdir())):02}.yaml"
    recipe.write_text(yaml.safe_dump({"passes": list(passes)}))
    return Script(file="press.py", options={"recipe": str(recipe)})


def _judged(row: Row, result: Path, work: Work, judge: Judge) -> Row:
    """The figures of a result that runs."""
    verdict, model = judge(result), Model.load(result)
    row.notes += work.notes
    row.figures |= {
        "bytes": Artifact.of(result).nbytes,
        "weights": sum(int(np.count_nonzero(site.array())) for site in find_sites(model)),
        "multiply_adds": _work(model),
        "sqnr": min(verdict.sqnr.values()),
        "seconds": work.seconds,
        "cpu_seconds": work.cpu_seconds,
        "peak": work.peak,
    }
    if verdict.logits:
        row.figures["logits"] = min(verdict.logits.values())
    if verdict.metric is not None:
        row.figures["metric"] = verdict.metric
    return row


def _work(model: Model) -> int:
    """Multiply-adds of one run, as far as shapes tell, with open dimensions as 1."""
    shapes = infer_shapes(model)
    costs = [multiply_adds(node, shapes) for _, node in nodes(model.graph)]
    return sum(each.count for each in costs if each is not None)


def compare(rows: Sequence[Row], cases: Sequence[Case]) -> None:
    """Add figures that are those of a row beside another's: the normalised model's, and a rival's."""
    first, by_name = rows[0].figures, {row.case: row.figures for row in rows}
    for row in rows:
        if "bytes" in row.figures:
            row.figures["smaller"] = 1 - row.figures["bytes"] / first["bytes"]
            row.figures["kept"] = row.figures["weights"] / first["weights"]
        if row.figures.get("multiply_adds"):
            row.figures["less_work"] = first["multiply_adds"] / row.figures["multiply_adds"]
        if "metric" in row.figures:
            row.figures["metric_drop"] = first["metric"] - row.figures["metric"]
    for case in cases:
        rival = by_name.get(case.rival or "", {})
        figure = "logits" if "logits" in rival else "sqnr"  # a sure Softmax hides what is lost before it
        if figure in by_name[case.name] and figure in rival:
            by_name[case.name]["gain"] = by_name[case.name][figure] - rival[figure]
