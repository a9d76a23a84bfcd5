"""Store weights in as few bytes as possible, in a file that stock ONNX Runtime decodes by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import ClassVar

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.base import Pass, Workbench
from onnxpress.passes.encode.channels import split
from onnxpress.passes.encode.channels import write as write_channels
from onnxpress.passes.encode.choose import choose
from onnxpress.passes.encode.evaluate import BATCH, decoded_weights, extract, is_decoding
from onnxpress.passes.encode.functions import OLDEST_OPSET
from onnxpress.passes.encode.options import Option, options
from onnxpress.passes.encode.parts import narrower, take_apart
from onnxpress.passes.encode.plans import LAYOUTS, MOST_DISTINCT, Facts
from onnxpress.passes.encode.writer import Writer, shared_costs
from onnxpress.passes.kernels.arrays import Array, bits_of
from onnxpress.passes.kernels.packing import survey
from onnxpress.passes.report import Report
from onnxpress.passes.selection import check_count, check_globs, wrong
from onnxpress.rewriter.edits import output_ids, redirect, sweep
from onnxpress.rewriter.evaluate import evaluate
from onnxpress.rewriter.invariants import InvariantError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites
from onnxpress.rewriter.walk import graphs
from onnxpress.rewriter.weights import SparseForm, element_bits, read, values_of

DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "uint16")
CHANNELS = 1024
"""Bytes below which a weight is not taken apart by channels."""
SMALL = 64
"""Bytes below which a weight is not looked at: a call of a function takes more."""
_NARROW = {"float32": ("float16", "bfloat16"), "float64": ("float32", "float16")}
_LOAD, _LOAD_WEIGHT = 1 << 31, 16
_BFLOAT16_OPSET = 13
"""From here on Gather and Cast take bfloat16."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A constant that may be encoded, with the graph that holds it and the names it is known by."""

    name: str
    constant: gs.Constant
    graph: gs.Graph
    names: tuple[str, ...]


@dataclass(slots=True)
class _Checker:
    """Compares what ONNX Runtime decodes with the weights, a batch at a time."""

    model: Model
    threads: int | None
    waiting: list[tuple[gs.Variable, Array]] = field(default_factory=list)

    def add(self, weight: gs.Variable, array: Array) -> None:
        """Check `weight` against `array`, now or with the next ones."""
        if self.waiting and self._bytes() + array.nbytes > BATCH:
            self.flush()
        self.waiting.append((weight, array))

    def flush(self) -> None:
        """Check all that wait.

        Raises:
            InvariantError: a weight comes out different.
        """
        batch, self.waiting = self.waiting, []
        if not batch:
            return
        small = sum(array.nbytes for _, array in batch) <= BATCH
        model = extract(self.model, [weight for weight, _ in batch])
        results = evaluate(model, optimise=small, threads=self.threads)
        for (weight, array), result in zip(batch, results, strict=True):
            if not _same(array, result):
                raise InvariantError(
                    f"weight '{weight.name}' decodes to something else: a bug in encode, please report"
                )

    def _bytes(self) -> int:
        return sum(array.nbytes for _, array in self.waiting)


@dataclass(frozen=True, kw_only=True)
class Encode(Pass):
    """Store each weight in its smallest lossless form; ONNX Runtime decodes it when a session is created.

    Codebooks, bit masks, relative indices (Han et al., 2016, section 2) and narrower floats, and combinations of them,
    for constants of any floating-point type and of 8- and 16-bit integers. Each is a call of a local function of
    standard operators on constant inputs, which ONNX Runtime inlines and folds: what runs is the dense graph. Where
    folding is switched off, the weights are decoded in every run. Bit for bit the same weights, which is checked. Comes
    last: other passes see no weights in an encoded model.

    ONNX Runtime keeps intermediate results until it has folded everything. Measured with version 1.32 on float32
    weights of 16 MB, at the peak and from start to session:

        dense                                                        7 bytes and  6 ns a weight
        gaps, narrow floats, one value, codes of 1, 2, 4, 8 bits    15 bytes and 11 ns at most
        codes of 3, 5, 6 bits                                       27 bytes and 18 ns at most
        bit masks                                                   35 bytes and 30 ns at most
        Huffman codes of values, of gaps, or of both, besides:
            for each bit of them                                    58 bytes and 0.06 to 0.2 µs
            for each value, and for each value or gap if sparse     48 and 100 bytes

    A stream of Huffman codes (Huffman, 1952) of at most 12 bits is decoded at all its bits at once: some 100 nodes,
    which take 5 ms however short it is, and 2.6 KB that a model stores once. With the places where blocks begin it
    takes 1 to 3 % more than the entropy of its symbols.

    Once loaded, the graph is the dense one; the C library may hold on to what ONNX Runtime has freed.

    Attributes:
        include: globs on the names of weights, of the nodes that read them, or of operators.
        exclude: the same; these stay as they are.
        layouts: those to choose from.
        huffman: whether Huffman codes are among the choices.
        max_load_bytes: of memory that ONNX Runtime may take while it loads the model, beyond what the dense model
            takes, by the table above; where the smallest plans would take more, others are chosen. None: 2 GiB, or
            16 bytes a weight where that is more.
        least_saving: bytes that encoding a weight must save; each costs about 0.5 ms when a session is created.
    """

    name: ClassVar[str] = "encode"
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    layouts: tuple[str, ...] = LAYOUTS
    huffman: bool = True
    max_load_bytes: int | None = None
    least_saving: int = 64

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigError: one of them means nothing.
        """
        check_globs(self, "include")
        check_globs(self, "exclude")
        if not set(self.layouts) <= set(LAYOUTS):
            raise wrong(self, "layouts", f"be of {', '.join(LAYOUTS)}")
        check_count(self, "least_saving", least=0)
        if self.max_load_bytes is not None:
            check_count(self, "max_load_bytes", least=0)

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Survey every weight, choose for all of them together, then encode and check one after another."""
        report = self.report()
        for weight in decoded_weights(model):
            report.skip(weight.name, "is encoded already")
        writer, checker = Writer(model), _Checker(model, bench.threads)
        taken = _name_counts(model)
        candidates = self._by_channels(model, self._candidates(model, report), checker, report)
        tracked = bench.progress.track(candidates, label="survey weights")
        facts = [_facts(each.constant, model.opset) for each in tracked]
        choices = [options(each, self.layouts, huffman=self.huffman) for each in facts]
        chosen = self._choose(facts, choices, model.opset, report)
        work = list(zip(candidates, facts, chosen, choices, strict=True))
        for candidate, fact, option, every in bench.progress.track(work, label="encode weights"):
            if option.plan is None:
                report.skip(candidate.name, _why_not(fact, every))
                continue
            weight, array = _encode(model, writer, candidate, option, taken)
            checker.add(weight, array)
            report.change(
                candidate.name, str(option.plan), bytes_before=fact.stored, bytes_after=option.nbytes, error=0.0
            )
        checker.flush()
        sweep(model)
        return report

    def _by_channels(
        self, model: Model, candidates: Sequence[_Candidate], checker: _Checker, report: Report
    ) -> list[_Candidate]:
        """Codes instead of weights whose channels have few values each; what they come to is checked with the rest."""
        found, taken = [], _name_counts(model)
        for each in candidates:
            array = read(each.constant)
            parts = split(array) if array.nbytes >= CHANNELS else None
            if parts is None:
                found.append(each)
                continue
            name = each.constant.name if taken[each.constant.name] == 1 else model.names.fresh(each.constant.name)
            codes = write_channels(model, each.graph, each.constant, parts, name)
            report.change(
                each.name,
                f"{len(parts.books)} values a channel",
                bytes_before=array.nbytes,
                bytes_after=parts.codes.nbytes + parts.books.nbytes,
                error=0.0,
            )
            checker.add(codes.outputs[0].outputs[0], array)
            found.append(_Candidate(f"{each.name} (codes)", codes, model.graph, (*each.names, codes.name)))
        checker.flush()
        return found

    def _choose(
        self, facts: Sequence[Facts], choices: Sequence[Sequence[Option]], opset: int, report: Report
    ) -> list[Option]:
        """An option for each weight, that together they can be loaded in the memory that they may take."""
        costs = shared_costs({name for each in choices for option in each for name in option.needs}, opset)
        most = self.max_load_bytes
        if most is None:
            most = max(_LOAD, _LOAD_WEIGHT * sum(each.survey.count for each in facts))
        chosen = choose(choices, costs=costs, least=self.least_saving, most_load=most)
        smallest = choose(choices, costs=costs, least=self.least_saving)
        if chosen != smallest:
            more = sum(o.nbytes for o in chosen) - sum(o.nbytes for o in smallest)
            load = sum(o.load for o in smallest)
            report.skip(
                "graph",
                f"{more:,} bytes less would take {load:,} bytes of memory to load, of max_load_bytes = {most:,}",
            )
        return chosen

    def _candidates(self, model: Model, report: Report) -> list[_Candidate]:
        """Constants that may be encoded; the others are skipped with a reason."""
        found, small, outputs = [], 0, output_ids(model)
        for each in _constants(model):
            if values_of(each.constant).nbytes < SMALL:
                small += 1
            elif reason := self._refuse(model, each, outputs):
                report.skip(each.name, reason)
            else:
                found.append(each)
        if small:
            report.skip("graph", f"{small} constants below {SMALL} bytes: a decoding node takes more")
        _skip_attributes(model, report)
        return found

    def _refuse(self, model: Model, candidate: _Candidate, outputs: set[int]) -> str | None:
        values = values_of(candidate.constant)
        if not any(fnmatchcase(n, g) for n in candidate.names for g in self.include) or any(
            fnmatchcase(n, g) for n in candidate.names for g in self.exclude
        ):
            return "excluded by the recipe"
        if element_bits(values.element_type) < 8:
            return f"{values.dtype.name} is packed already"
        if id(candidate.constant) in outputs:
            return "is an output of the graph"
        if any(t is candidate.constant for t in model.graph.inputs):
            return "a caller may override it: normalise with fix_defaults first"
        oldest = _BFLOAT16_OPSET if values.dtype.name == "bfloat16" else OLDEST_OPSET
        if model.opset < oldest:
            return f"opset {model.opset} lacks operators that decode {values.dtype.name}: raise it to {oldest}"
        return None


def _constants(model: Model) -> Iterator[_Candidate]:
    """Constants of the dtypes in question that ordinary nodes read, in every graph."""
    sites = {id(site.weight): site.name for site in find_sites(model)}
    for graph in graphs(model.graph):
        for constant in model.constants() if graph is model.graph else graph.constants:
            values = values_of(constant)
            known = values.dtype.name in DTYPES or (values.nbytes >= SMALL and element_bits(values.element_type) < 8)
            readers = [reader for reader in constant.outputs if is_decoding(reader)]
            if not known or any(reader.op not in ("Widen", "Channels") for reader in readers):
                continue
            name = sites.get(id(constant), constant.name)
            readers = [each for node in constant.outputs for each in (node.name, str(node.op)) if each]
            yield _Candidate(name, constant, graph, (name, constant.name, *readers))


def _skip_attributes(model: Model, report: Report) -> None:
    for graph in graphs(model.graph):
        for node in graph.nodes:
            for value in node.attrs.values():
                if isinstance(value, gs.Constant) and values_of(value).nbytes >= SMALL:
                    report.skip(node.name or node.outputs[0].name, f"inside a {node.op} node: normalise first")


def _facts(constant: gs.Constant, opset: int) -> Facts:
    values, array = values_of(constant), read(constant)
    stored = values.tensor.ByteSize() if isinstance(values, SparseForm) else values.nbytes
    wanted = [name for name in _NARROW.get(values.dtype.name, ()) if name != "bfloat16" or opset >= _BFLOAT16_OPSET]
    narrow = narrower(array, tuple(_dtype(name) for name in wanted))
    return Facts(tuple(values.shape), values.dtype, survey(array, limit=MOST_DISTINCT), narrow, stored)


def _dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def _why_not(facts: Facts, choices: Sequence[Option]) -> str:
    """Say what the smallest encoding would have taken."""
    encoded = [each for each in choices if each.plan is not None]
    if not encoded:
        return f"saves nothing: {facts.survey.count} elements, too many of them distinct, and too few zeros"
    best = min(encoded, key=lambda each: each.nbytes)
    dense = choices[0].nbytes
    if best.nbytes >= dense:
        return f"saves nothing: {best.plan} would take {best.nbytes:,} bytes, dense {dense:,}"
    return f"saves too little: {best.plan} would take {best.nbytes:,} of {dense:,} bytes, and functions besides"


def _encode(
    model: Model, writer: Writer, candidate: _Candidate, option: Option, taken: Counter[str]
) -> tuple[gs.Variable, Array]:
    """Replace a constant by nodes that compute it, under its name unless a tensor elsewhere has it too."""
    constant = candidate.constant
    array = read(constant)
    if option.plan is None:
        raise ValueError("nothing to encode")
    name = constant.name if taken[constant.name] == 1 else model.names.fresh(constant.name)
    weight = gs.Variable(name, array.dtype, list(array.shape))
    writer.write(weight, option.plan, take_apart(array, option.plan))
    redirect(model, candidate.graph, constant, weight)
    return weight, array


def _name_counts(model: Model) -> Counter[str]:
    """How many tensors of the model have a name."""
    tensors: dict[int, str] = {id(c): c.name for c in model.constants()}
    for graph in graphs(model.graph):
        seen = [*graph.constants, *graph.inputs, *(t for n in graph.nodes for t in [*n.inputs, *n.outputs])]
        tensors |= {id(t): t.name for t in seen}
    return Counter(tensors.values())


def _same(one: Array, other: Array) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and np.array_equal(bits_of(one), bits_of(other))
