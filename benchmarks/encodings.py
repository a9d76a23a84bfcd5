"""What each way of storing a weight takes: bytes beside the least that is possible, and what loading it costs.

    python -m benchmarks.encodings [--side N] [--only TEXT ...] [--threads N] [--no-models] [--json FILE]

One float32 weight [side, side] for each, decoded by ONNX Runtime while it opens the file. Seconds are those of files
in turns, the least of some; memory is that of a fresh interpreter for each; both less what the dense weight takes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from benchmarks.loading import opening, opening_memory
from onnxpress.calibration.feeds import open_feed
from onnxpress.host import cores, machine, versions
from onnxpress.models.zoo import ZOO, path
from onnxpress.passes.base import Workbench
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.encode.loads import load
from onnxpress.passes.encode.parts import Stream, take_apart
from onnxpress.passes.encode.plans import HUFFMAN, MOST_DISTINCT, Facts, Plan, entries
from onnxpress.passes.encode.writer import Writer
from onnxpress.passes.kernels.packing import survey
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.prune.zeros.second_order import PruneSecondOrder
from onnxpress.passes.share.kmeans import ShareKMeans
from onnxpress.passes.strip import Strip
from onnxpress.rewriter.edits import redirect, sweep
from onnxpress.rewriter.model import Model

Weight = NDArray[np.float32]

SIDE = 2000
WHOLE, PACKED, STORED = 0.1, 0.35, 0.3
"""Promised: µs a weight for codes of 2, 4 and 8 bits and for packed ones, µs a stored bit of Huffman codes."""
CLOSE, CLOSER = 1.05, 1.01
"""Promised: bytes by the bound, with Huffman codes and without."""
OVERHEAD = 3000
"""Promised: bytes of a small model's file besides what is stored of weights."""
LENETS = {"lenet300": (0.92, 4), "lenet5": (0.92, 4)}
"""Part of the weights that is zero, and bits of a shared value."""


@dataclass(frozen=True, slots=True)
class Case:
    """A plan and a weight that it suits.

    Attributes:
        plan: how the weight is stored.
        levels: distinct values that are not zero; 0 for as many as there are weights.
        density: part of the weights that is not zero.
        spread: of the levels that are drawn, from rounded normal numbers; 0 for all equally often.
        limit: promised µs a weight, or a stored bit; 0 where nothing is promised.
    """

    plan: Plan
    levels: int = 0
    density: float = 1.0
    spread: float = 0.0
    limit: float = 0.0

    @property
    def huffman(self) -> bool:
        """Whether there are Huffman codes."""
        return self.plan.coding == HUFFMAN or self.plan.layout == "gaps"

    def weight(self, side: int) -> Weight:
        """Drawn anew, always the same."""
        random = np.random.default_rng(0)
        found: NDArray[np.generic]
        if not self.levels:
            found = random.standard_normal((side, side))
        elif self.spread:
            middle = (self.levels - 1) / 2
            found = 1 + np.clip(np.round(random.standard_normal((side, side)) * self.spread + middle), 0, 2 * middle)
        else:
            found = 1 + random.integers(0, self.levels, (side, side))
        return np.where(random.random((side, side)) < self.density, found, 0).astype(np.float32)


def cases() -> Iterator[Case]:
    """All that is measured."""
    yield Case(Plan("fill"), 1)
    for bits in range(1, 9):
        yield Case(Plan("plain", bits), 1 << bits, limit=WHOLE if bits in (2, 4, 8) else PACKED)
    yield Case(Plan("mask"), 0, 0.5)
    yield Case(Plan("mask", 4), 16, 0.5)
    yield Case(Plan("gaps8"), 0, 0.05)
    yield Case(Plan("gaps8", 8), 256, 0.05)
    yield Case(Plan("gaps4", 4), 15, 0.15)
    for levels, spread in ((4, 1.1), (16, 2.5), (64, 8.0), (256, 40.0)):
        yield Case(Plan("plain", HUFFMAN), levels, 1.0, spread, STORED)
    yield Case(Plan("mask", HUFFMAN), 16, 0.5, 2.5, STORED)
    yield Case(Plan("gaps", None, 7), 0, 0.05, 0.0, STORED)
    yield Case(Plan("gaps", 4, 6), 15, 0.1, 0.0, STORED)
    yield Case(Plan("gaps", HUFFMAN, 6), 15, 0.1, 2.5, STORED)


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured.

    Attributes:
        name: of the plan.
        bound: bytes that the entropy of the weight asks for; of codes of whole bits, their bits.
        nbytes: that are stored of it, names and functions apart.
        bits: of Huffman codes among that.
        seconds: until a session is there, beyond dense.
        memory: bytes at the peak, beyond dense.
        estimate: the same, as `encode` reckons with.
        limit: promised µs a weight, or a stored bit.
        weights: elements.
    """

    name: str
    bound: float
    nbytes: int
    bits: int
    seconds: float
    memory: int
    estimate: int
    limit: float
    weights: int

    @property
    def rate(self) -> float:
        """µs a weight, or a stored bit of Huffman codes."""
        return 1e6 * self.seconds / (self.bits or self.weights)

    @property
    def broken(self) -> list[str]:
        """Promises that do not hold."""
        found = []
        if self.limit and self.rate > self.limit:
            found.append(f"{self.name}: {self.rate:.3f} µs, {self.limit:g} promised")
        close = CLOSE if self.bits else CLOSER
        if self.nbytes > close * self.bound + 1024:  # the books
            found.append(f"{self.name}: {self.nbytes / self.bound:.3f} of the bound, {close:g} promised")
        if self.memory > 1.1 * self.estimate + (1 << 24):
            found.append(f"{self.name}: {self.memory:,} bytes of memory, {self.estimate:,} by the estimate")
        return found


def measure(case: Case, side: int, threads: int) -> Row:
    """One case, in a temporary folder."""
    weight = case.weight(side)
    parts = take_apart(weight, case.plan)
    streams = [each for each in (parts.steps, parts.stream) if each is not None]
    stored = [parts.mask, parts.gaps, parts.rest, *(array for each in streams for array in _arrays(each))]
    with tempfile.TemporaryDirectory(prefix="encodings-") as folder:
        files = {name: Path(folder) / f"{name}.onnx" for name in ("dense", "encoded")}
        model = _model(weight)
        model.save(files["dense"])
        constant = next(iter(model.constants()))
        variable = gs.Variable("w", weight.dtype, list(weight.shape))
        Writer(model).write(variable, case.plan, parts)
        redirect(model, model.graph, constant, variable)
        sweep(model)
        model.save(files["encoded"])
        seconds = opening(files, threads)
        memory = [opening_memory(files[name], threads) for name in ("encoded", "dense")]
    facts = Facts(weight.shape, weight.dtype, survey(weight, limit=MOST_DISTINCT), (), weight.nbytes)
    return Row(
        name=str(case.plan),
        bound=_bound(case, facts, weight),
        nbytes=sum(each.nbytes for each in stored if each is not None),
        bits=sum(8 * each.stored.nbytes for each in streams if each.blocks is not None),
        seconds=seconds["encoded"] - seconds["dense"],
        memory=memory[0] - memory[1],
        estimate=load(facts, case.plan).nbytes,
        limit=case.limit,
        weights=weight.size,
    )


def _arrays(stream: Stream) -> list[NDArray[np.generic] | None]:
    return [stream.stored, stream.book, *stream.high, stream.blocks, stream.lengths]


def _bound(case: Case, facts: Facts, weight: Weight) -> float:
    """The entropy of independent weights, values that all differ counted in full; without Huffman codes, their bits."""
    plan, values = case.plan, weight[weight != 0]
    if plan.layout == "fill":
        return float(weight.itemsize)
    if not case.huffman:
        listed = entries(facts, plan)
        where = {"mask": weight.size, "gaps4": 4 * listed, "gaps8": 8 * listed}.get(plan.layout, 0)
        return (where + listed * (plan.coding if isinstance(plan.coding, int) else 8 * weight.itemsize)) / 8
    bits = weight.size * _entropy(np.array([values.size, weight.size - values.size]))
    if not case.levels:
        return bits / 8 + values.nbytes
    each = plan.coding if isinstance(plan.coding, int) else _entropy(np.unique(values, return_counts=True)[1])
    return bits / 8 + values.size * each / 8


def _entropy(counts: NDArray[np.int64]) -> float:
    """Bits a symbol."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


def _model(weight: Weight) -> Model:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "graph",
        [value("x", TensorProto.FLOAT, ["n", weight.shape[0]])],
        [value("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    return Model.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def overhead(file: Path) -> int:
    """Bytes of a file besides what is stored of its weights: nodes, functions, names, sizes."""
    model = onnx.load(file)
    shapes = [each for each in model.graph.initializer if each.data_type == TensorProto.INT64]
    stored = sum(len(each.raw_data) for each in model.graph.initializer)
    return file.stat().st_size - stored + sum(len(each.raw_data) for each in shapes)


def small(name: str, threads: int, folder: Path) -> tuple[int, int]:
    """Bytes of the file of a pruned and shared LeNet, and of those its overhead."""
    (sparsity, bits), model = LENETS[name], Pipeline([])(Model.load(path(name))).model
    bench = Workbench(feed=open_feed(ZOO[name].calibration, inputs=model.inputs), threads=threads)
    passes = [PruneSecondOrder(sparsity=sparsity), ShareKMeans(bits=bits, refit=True), Encode(measure=False), Strip()]
    file = folder / f"{name}.onnx"
    Pipeline(passes, normalise=False)(model, bench).model.save(file)
    return file.stat().st_size, overhead(file)


def table(rows: Sequence[Row]) -> Table:
    """What was measured, and what was promised of it."""
    columns = ["stored as", "bytes a weight", "of the bound", "µs a weight", "µs a bit"]
    columns += ["promised", "memory", "estimate"]
    result = Table(*columns, title=f"float32, {rows[0].weights:,} weights; load beyond dense, memory in bytes a weight")
    for each in rows:
        whole = f"{1e6 * each.seconds / each.weights:.4f}"
        result.add_row(
            each.name,
            f"{each.nbytes / each.weights:.3f}",
            f"{each.nbytes / each.bound:.3f}",
            whole,
            f"{each.rate:.3f}" if each.bits else "",
            f"{each.limit:g} a {'bit' if each.bits else 'weight'}" if each.limit else "",
            f"{each.memory / each.weights:.1f}",
            f"{each.estimate / each.weights:.1f}",
        )
    return result


def main() -> int:
    """Print the table; 1 where a promise does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=SIDE)
    parser.add_argument("--only", nargs="+", default=[""], help="texts that names of plans hold")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--no-models", action="store_true", help="leave the overhead of the LeNets out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console, rows, files = Console(width=140), [], {}
    for case in cases():
        if any(text in str(case.plan) for text in options.only):
            with console.status(str(case.plan)):
                rows.append(measure(case, options.side, options.threads))
    broken = [each for row in rows for each in row.broken]
    if rows:
        console.print(table(rows))
    with tempfile.TemporaryDirectory(prefix="encodings-") as folder:
        for name in () if options.no_models else LENETS:
            files[name] = small(name, options.threads, Path(folder))
            console.print(f"{name}: {files[name][0]:,} bytes, {files[name][1]:,} of them overhead", highlight=False)
            if files[name][1] > OVERHEAD:
                broken.append(f"{name}: {files[name][1]:,} bytes of overhead, {OVERHEAD:,} promised")
    if options.json:
        told = {name: {"bytes": size, "overhead": more} for name, (size, more) in files.items()}
        content = {"machine": machine(), "versions": versions(), "rows": list(map(asdict, rows)), "models": told}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    for each in broken:
        console.print(f"[red]does not hold: {each}", highlight=False)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
