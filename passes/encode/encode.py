"""Store weights in as few bytes as possible, in a file that stock ONNX Runtime decodes by itself."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.base import Pass, Workbench
from onnxpress.passes.encode.books import split, write
from onnxpress.passes.encode.budget import Budget, load_limit
from onnxpress.passes.encode.candidates import (
    BFLOAT16_OPSET,
    SMALL,
    Candidate,
    constants,
    name_counts,
    skip_attributes,
)
from onnxpress.passes.encode.checking import Checker
from onnxpress.passes.encode.choose import Limits
from onnxpress.passes.encode.evaluate import decoded_weights
from onnxpress.passes.encode.measuring import opening, unfolded
from onnxpress.passes.encode.options import Option, options
from onnxpress.passes.encode.parts import narrower, take_apart
from onnxpress.passes.encode.plans import LAYOUTS, MOST_DISTINCT, Facts, Plan
from onnxpress.passes.encode.reasons import why_dense
from onnxpress.passes.encode.sparse import sparse_form, store_sparse
from onnxpress.passes.encode.writer import Writer, shared_costs
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.kernels.packing import survey
from onnxpress.passes.report import Report
from onnxpress.passes.selection import check_count, check_flag, check_globs, is_number, wrong
from onnxpress.rewriter.edits import output_ids, redirect, sweep
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.weights import SparseForm, read, values_of

BOOKS = 1024
"""Bytes below which a weight is not taken apart into codes and books."""
_NARROW = {"float32": ("float16", "bfloat16"), "float64": ("float32", "float16")}


@dataclass(frozen=True, kw_only=True)
class Encode(Pass):
    """Store each weight in its smallest lossless form; ONNX Runtime decodes it when a session is created.

    Codebooks, bit masks, relative indices (Han et al., 2016, section 2) and narrower floats, and combinations of them,
    for constants of any floating-point type and of 8- and 16-bit integers. Each is a call of a local function of
    standard operators on constant inputs, which ONNX Runtime inlines and folds: what runs is the dense graph. Where
    folding is switched off, the weights are decoded in every run. Bit for bit the same weights, which is checked. Comes
    last: other passes see no weights in an encoded model. Constants of any dtype with some dozens of elements that are
    not zero become sparse initializers, which ONNX Runtime makes dense while it reads the file.

    ONNX Runtime keeps intermediate results until it has folded everything. Measured with version 1.32 on float32
    weights of 16 MB, at the peak and from start to session:

        dense                                                        7 bytes and  6 ns a weight
        gaps, narrow floats, one value, codes of 1, 2, 4, 8 bits    15 bytes and 11 ns at most
        codes of 3, 5, 6 bits                                       31 bytes and 20 ns at most
        codes of 7 bits                                             47 bytes and 30 ns at most
        bit masks                                                   43 bytes and 30 ns at most
        books for channels                                          24 bytes and 35 ns at most, besides the codes
        sub-vectors                                                 23 bytes and 30 ns at most, besides the codes
        Huffman codes of values, of gaps, or of both, besides:
            for each bit of them                                   110 bytes at most and 0.06 to 0.2 µs
            for each value, and for each value or gap if sparse     48 and 100 bytes

    A stream of Huffman codes (Huffman, 1952) of at most 12 bits is decoded at all its bits at once: some 80 nodes,
    which take 4 ms however short it is, and 1.6 KB that a model stores once. With the places where blocks begin it
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
        max_load_seconds: that ONNX Runtime may take longer to load the model than the dense one, by the table above
            (one thread of a server with AVX2; `encode/loads.py`). What it took on this machine is in the report, with
            a warning where it is more. None sets no limit.
        least_saving: bytes that encoding a weight must save; each costs about 0.5 ms when a session is created.
        measure: whether to load both models, and to decode once as where nothing is folded, to report what that takes.
    """

    name: ClassVar[str] = "encode"
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    layouts: tuple[str, ...] = LAYOUTS
    huffman: bool = True
    max_load_bytes: int | None = None
    max_load_seconds: float | None = None
    least_saving: int = 64
    measure: bool = True

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
        if self.max_load_seconds is not None and not (is_number(self.max_load_seconds) and self.max_load_seconds >= 0):
            raise wrong(self, "max_load_seconds", "be a number of at least 0")
        check_flag(self, "huffman")
        check_flag(self, "measure")

    @property
    def times(self) -> bool:
        """See `Pass.times`."""
        return self.measure

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Survey every weight, choose for all of them together, then encode and check one after another."""
        report, before = self.report(), model.clone()
        for weight in decoded_weights(model):
            report.skip(weight.name, "is encoded already")
        writer, checker = Writer(model), Checker(model, bench.threads)
        taken = name_counts(model)
        candidates = self._candidates(model, report)
        budget = self._budget(candidates)
        candidates = self._by_books(model, candidates, budget, checker, report)
        tracked = bench.progress.track(candidates, label="survey weights")
        facts = [_facts(each.constant, model.opset) for each in tracked]
        layouts = [each.layouts(model, self.layouts) for each in candidates]
        pairs = zip(facts, layouts, strict=True)
        choices = [options(each, allowed, huffman=self.huffman) for each, allowed in pairs]
        costs = shared_costs({name for each in choices for option in each for name in option.needs}, model.opset)
        chosen = budget.choose(choices, costs, self.least_saving, report)
        work = list(zip(candidates, facts, chosen, choices, budget.free, strict=True))
        for candidate, fact, option, every, free in bench.progress.track(work, label="encode weights"):
            if option.plan is None or _is_stored_so(candidate.constant, option.plan):
                sparse = isinstance(values_of(candidate.constant), SparseForm)
                known = "is a sparse initializer already" if sparse else candidate.undecodable(model)
                report.skip(candidate.name, known or why_dense(fact, every, free, budget))
                continue
            weight, array = _encode(model, writer, candidate, option, taken)
            checker.add(weight, array)
            report.change(
                candidate.name, str(option.plan), bytes_before=fact.stored, bytes_after=option.nbytes, error=0.0
            )
        checker.flush()
        sweep(model)
        if self.measure and report.changes:
            self._tell(before, model, budget, bench, report)
        return report

    def _tell(self, before: Model, model: Model, budget: Budget, bench: Workbench, report: Report) -> None:
        """Load and run what was made, and say what that takes."""
        estimate = f"estimated {1000 * budget.seconds:,.1f}"
        if (more := opening(before, model, bench)) is None:
            report.notes.append(f"ONNX Runtime takes longer to load it, by {estimate} ms; that was not measured")
        else:
            memory = "" if more.nbytes is None else f", and up to {more.nbytes / 1e6:,.1f} MB more meanwhile"
            report.notes.append(
                f"ONNX Runtime takes {1000 * more.seconds:,.1f} ms longer to load it ({estimate}){memory}"
            )
            if self.max_load_seconds is not None and more.seconds > self.max_load_seconds:
                limit = f"max_load_seconds is {self.max_load_seconds:g}, by an estimate of {budget.seconds:.3g}"
                report.warnings.append(f"it takes {more.seconds:.3g} seconds longer to load, {limit}: set a lower one")
        if (each := unfolded(model, bench)) is not None:
            memory = "" if each[1] is None else f" and up to {each[1] / 1e6:,.1f} MB"
            report.notes.append(
                "where ONNX Runtime does not fold constants, every run decodes the weights, which takes "
                f"{1000 * each[0]:,.1f} ms{memory} more; `onnxpress decode` writes a model that needs no decoding"
            )

    def _budget(self, candidates: Sequence[Candidate]) -> Budget:
        most = load_limit(self.max_load_bytes, sum(math.prod(values_of(c.constant).shape) for c in candidates))
        return Budget(Limits(most, math.inf if self.max_load_seconds is None else self.max_load_seconds))

    def _by_books(
        self, model: Model, candidates: Sequence[Candidate], budget: Budget, checker: Checker, report: Report
    ) -> list[Candidate]:
        """Codes instead of weights for which there are books; what they come to is checked with the rest."""
        found, taken = [], name_counts(model)
        for each in candidates:
            array = read(each.constant)
            decoded = array.nbytes >= BOOKS and each.undecodable(model) is None
            parts = split(array, values_of(each.constant)) if decoded else None
            if parts is not None and (reason := budget.refused(parts.load)):
                report.skip(each.name, f"{parts.action} would take {reason}")
                parts = None
            if parts is None:
                found.append(each)
                continue
            budget.take(parts.load)
            name = each.constant.name if taken[each.constant.name] == 1 else model.names.fresh(each.constant.name)
            weight, streams = write(model, each.graph, each.constant, parts, name)
            stored = sum(values_of(stream).nbytes for stream in streams) + parts.book_bytes
            report.change(each.name, parts.action, bytes_before=array.nbytes, bytes_after=stored, error=0.0)
            checker.add(weight, array)
            for number, stream in enumerate(streams, start=1):
                what = f"codes {number}" if len(streams) > 1 else "codes"
                found.append(Candidate(f"{each.name} ({what})", stream, model.graph, (*each.names, stream.name)))
        checker.flush()
        return found

    def _candidates(self, model: Model, report: Report) -> list[Candidate]:
        """Constants that may be encoded; the others are skipped with a reason."""
        found, small, outputs = [], 0, output_ids(model)
        for each in constants(model):
            if values_of(each.constant).nbytes < SMALL:
                small += 1
            elif reason := self._excludes(each) or each.refused(model, outputs, self.layouts):
                report.skip(each.name, reason)
            else:
                found.append(each)
        if small:
            report.skip("graph", f"{small} constants below {SMALL} bytes: a decoding node takes more")
        skip_attributes(model, report)
        return found

    def _excludes(self, candidate: Candidate) -> str | None:
        if any(fnmatchcase(n, g) for n in candidate.names for g in self.include) and not any(
            fnmatchcase(n, g) for n in candidate.names for g in self.exclude
        ):
            return None
        return "excluded by the recipe"


def _facts(constant: gs.Constant, opset: int) -> Facts:
    values, array = values_of(constant), read(constant)
    stored = values.tensor.ByteSize() if isinstance(values, SparseForm) else values.nbytes
    wanted = [name for name in _NARROW.get(values.dtype.name, ()) if name != "bfloat16" or opset >= BFLOAT16_OPSET]
    narrow = narrower(array, tuple(_dtype(name) for name in wanted))
    return Facts(tuple(values.shape), values.dtype, survey(array, limit=MOST_DISTINCT), narrow, stored)


def _dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def _is_stored_so(constant: gs.Constant, plan: Plan) -> bool:
    """Whether a constant that is to be a sparse initializer is one, and no larger than it would become."""
    values = values_of(constant)
    if not isinstance(values, SparseForm) or plan.layout != "sparse":
        return False
    return bool(values.tensor.ByteSize() <= sparse_form(read(constant)).tensor.ByteSize() + len(constant.name) + 2)


def _encode(
    model: Model, writer: Writer, candidate: Candidate, option: Option, taken: Counter[str]
) -> tuple[gs.Tensor, Array]:
    """Replace a constant by nodes that compute it, under its name unless a tensor elsewhere has it too."""
    constant = candidate.constant
    array = read(constant)
    if option.plan is None:
        raise ValueError("nothing to encode")
    if option.plan.layout == "sparse":
        store_sparse(model, constant)
        return constant, array
    name = constant.name if taken[constant.name] == 1 else model.names.fresh(constant.name)
    weight = gs.Variable(name, array.dtype, list(array.shape))
    writer.write(weight, option.plan, take_apart(array, option.plan))
    redirect(model, candidate.graph, constant, weight)
    return weight, array
