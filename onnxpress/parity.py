"""How close the outputs of two models are, on each provider."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from onnxpress.calibration.batches import Array
from onnxpress.calibration.metrics import Comparison
from onnxpress.rewriter.errors import ModelError


@dataclass(frozen=True, slots=True)
class OutputParity:
    """How close one output is to the original's, over all batches.

    Attributes:
        name: of the output.
        sqnr: 10·log10(Σ r² / Σ (r − t)²) in dB; inf where equal. NaN where it cannot be judged: one is NaN or infinite
            and the other is not the same, shapes differ, or unequal integers, whose distance means nothing.
        max_abs_error: max |r − t|.
        cosine: −1 to 1; NaN as `sqnr`.
        agreement: share of rows whose argmax along the last axis agrees; None where there is none to take.
        equal: share of entries that are equal, of integers and booleans; None for floats.
        reshaped: batches in which the two have different shapes.
    """

    name: str
    sqnr: float
    max_abs_error: float
    cosine: float
    agreement: float | None
    equal: float | None = None
    reshaped: int = 0


@dataclass(frozen=True, slots=True)
class ProviderParity:
    """Original against result on one provider.

    Attributes:
        provider: by full name.
        outputs: one for each output that can be compared.
        metric_before: of the original; None without a metric.
        metric_after: of the result.
        nodes_before: where the original's nodes ran: their number by op type, by provider.
        nodes_after: the same of the result.
        batches: that were compared.
        seconds: that it took.
    """

    provider: str
    outputs: tuple[OutputParity, ...]
    metric_before: float | None
    metric_after: float | None
    nodes_before: Mapping[str, Counter[str]]
    nodes_after: Mapping[str, Counter[str]]
    batches: int
    seconds: float

    @property
    def sqnr(self) -> float:
        """Of the worst output of floats, in dB; NaN where that of one cannot be judged.

        Where all outputs are integers it is inf if they are equal, else NaN.
        """
        judged = [each for each in self.outputs if each.equal is None or each.reshaped] or self.outputs
        values = [each.sqnr for each in judged]
        return math.nan if any(map(math.isnan, values)) else min(values, default=math.inf)

    @property
    def judged(self) -> bool:
        """Whether the SQNR says something: there are floats, and no output has another shape."""
        return any(each.equal is None for each in self.outputs) and not any(each.reshaped for each in self.outputs)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Which outputs SQNR cannot judge."""
        lines = [
            f"output {each.name!r} has another shape on {each.reshaped} of {self.batches} batches; its SQNR cannot be "
            "judged: judge by a metric (--metric)"
            for each in self.outputs
            if each.reshaped
        ]
        if self.outputs and all(each.equal is not None for each in self.outputs):
            equal = ", ".join(f"{each.equal:.2%} of {each.name!r}" for each in self.outputs)
            lines.append(
                f"all outputs are integers, which SQNR cannot judge; equal entries: {equal}: judge by a metric "
                "(--metric)"
            )
        return tuple(lines)

    @property
    def drop(self) -> float | None:
        """How far the metric fell."""
        if self.metric_before is None or self.metric_after is None:
            return None
        return self.metric_before - self.metric_after


@dataclass(frozen=True, slots=True)
class Verification:
    """The comparison on every provider.

    Attributes:
        metric: its name, None without.
        providers: in the order asked for.
        warnings: what the user must know about the samples, and about outputs that cannot be judged.
    """

    metric: str | None
    providers: tuple[ProviderParity, ...]
    warnings: tuple[str, ...] = ()

    @property
    def sqnr(self) -> float:
        """Of the worst output on the worst provider, in dB."""
        values = [each.sqnr for each in self.providers]
        return math.nan if any(map(math.isnan, values)) else min(values, default=math.inf)

    @property
    def drop(self) -> float | None:
        """How far the metric fell on the worst provider; NaN where it is none on one."""
        drops = [each.drop for each in self.providers if each.drop is not None]
        return math.nan if any(map(math.isnan, drops)) else max(drops, default=None)

    def __repr__(self) -> str:
        from onnxpress import notebook  # which shows comparisons, so it imports this module

        return notebook.of_verification(self)

    def _repr_html_(self) -> str:
        from onnxpress import notebook

        return notebook.verification_html(self)


@dataclass(slots=True)
class OutputSum:
    """What the batches so far say about one output.

    Attributes:
        same: entries of integers that are equal.
        entries: of integers, all; where shapes differ those of the larger one.
        reshaped: batches with different shapes.
        floats: whether the output is made of floats.
    """

    name: str
    comparison: Comparison = field(default_factory=Comparison)
    same: int = 0
    entries: int = 0
    reshaped: int = 0
    floats: bool = False

    def add(self, reference: Array, test: Array) -> None:
        """Compare one batch.

        Raises:
            ModelError: the ranks differ.
        """
        if reference.ndim != test.ndim:
            raise ModelError(
                f"output {self.name!r} came out in {reference.ndim} and in {test.ndim} dimensions; the models are not "
                "the same"
            )
        self.floats |= reference.dtype.kind == "f"
        self.entries += max(reference.size, test.size)
        if reference.shape != test.shape:  # as of boxes found, which depend on values
            self.reshaped += 1
            self.comparison.unlike += max(1, reference.size, test.size)
            return
        self.comparison.update(reference, test)
        self.same += int(np.count_nonzero(reference == test))

    def parity(self) -> OutputParity:
        """The account of the output."""
        found = self.comparison
        if self.floats:
            return OutputParity(
                self.name, found.sqnr, found.max_abs_error, found.cosine, found.agreement, reshaped=self.reshaped
            )
        sqnr, cosine = (math.nan, math.nan) if self.reshaped or self.same < self.entries else (math.inf, 1.0)
        equal = self.same / self.entries if self.entries else 1.0
        return OutputParity(self.name, sqnr, found.max_abs_error, cosine, None, equal, self.reshaped)
