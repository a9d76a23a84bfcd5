"""Factors whose outputs are right behind the activation that reads them, rather than before it.

Of the rows that a layer reads, t tells what it should give instead of u for a Relu, say, to give what it did
(`kernels.asymmetric`). What is wanted by the equations is corrected by Σ (t − u)·xᵀ, and factors of any scheme are
fitted to that, round by round, as long as rows held out gain by it (Zhang et al., "Accelerating Very Deep Convolutional
Networks for Classification and Detection", 2016, sections 3.2 and 3.3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from onnxpress.passes.activations import Behind, activation_behind
from onnxpress.passes.aims import shift_for
from onnxpress.passes.equations import Pair
from onnxpress.passes.factorize.schemes.base import Factors, Ranks, Scheme
from onnxpress.passes.factorize.wanted import Wanted
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.asymmetric import Correction
from onnxpress.passes.kernels.normal import Normal
from onnxpress.passes.row_samples import Floats, Rows
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site

_ROUNDS = 4
"""Corrections at most; twice as many gain less than 0.1 dB more behind any layer of open_nsfw."""

_PATIENCE = 2
"""Of them, how many may do worse on rows held out than the best before."""

_STEP = 1.5
"""How far each goes beyond what is wished, which takes fewer of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Bend:
    """A layer with what reads its outputs.

    Attributes:
        behind: the activation.
        offset: the bias of the layer, zeros without, [out].
        pair: its equations, with rows.
    """

    behind: Behind
    offset: Float64Array
    pair: Pair

    def trial(
        self, wanted: Wanted, form: tuple[Scheme, Ranks], start: Factors, *, rival: Factors | None
    ) -> Trial | None:
        """Correct by the rows to fit, and look what that does on those held out; None where it does no better.

        Args:
            wanted: by the equations to fit.
            form: scheme and ranks.
            start: factors fitted to what is wanted.
            rival: others, for the bias that is there, that they must do better than; None for `start` itself.
        """
        normal = self.pair.fit
        before = self._error(start, self._shift(normal, start)) if rival is None else self._error(rival, 0.0)
        found, least = None, before
        for count, (factors, moved) in enumerate(self.rounds(wanted, form, start, normal, self.pair.rows[0]), start=1):
            after = self._error(factors, self._shift(normal, factors, moved))
            if after < least:
                found, least = Trial(self, count, before, after), after
            if count >= _ROUNDS or count - (found.rounds if found else 0) >= _PATIENCE:
                break
        return found

    def rounds(
        self, wanted: Wanted, form: tuple[Scheme, Ranks], start: Factors, normal: Normal, rows: Sequence[Rows]
    ) -> Iterator[tuple[Factors, Float64Array]]:
        """Factors, and what the mean of the outputs gains, round by round, as long as factors are found.

        Args:
            wanted: by the equations of the same samples.
            form: scheme and ranks.
            start: factors fitted to what is wanted.
            normal: the equations.
            rows: some of those that they were summed from.
        """
        count = sum(len(each.outputs) for each in rows)
        factors, moved = start, np.zeros(len(self.offset))
        try:
            correction = Correction(
                np.asarray(wanted.metric), normal.input_sum / normal.count if self._fitted else None
            )
            while True:
                dense, shift = factors.dense(), self._shift(normal, factors, moved)
                differences = [self._difference(each, dense, shift) for each in rows]
                gained = correction.of((each.inputs for each in rows), differences) * (normal.count / count)
                factors = replace(wanted, target=wanted.target + gained).fit(*form, factors)
                moved = np.sum([each.sum(axis=0, dtype=np.float64) for each in differences], axis=0) / count
                yield factors, moved
        except (RefusalError, ValueError):  # factors diverge, or rounding made the metric indefinite
            return

    def _difference(self, rows: Rows, dense: Array, shift: Array | float) -> Array:
        """What should be wanted of rows more than is: t − u."""
        outputs, given = self._read(rows, rows.outputs), self._read(rows, rows.product(dense), shift)
        wished = self.behind.activation.wished(outputs, given)
        return given + np.float32(_STEP) * (wished - given) - outputs

    @property
    def _fitted(self) -> bool:
        """Whether there is a bias to fit."""
        return self.behind.intercept is not None

    def _shift(self, normal: Normal, factors: Factors, moved: Array | float = 0.0) -> Array | float:
        """What the bias gains."""
        shift = shift_for(normal, factors.dense(), bias=self._fitted)
        return 0.0 if shift is None else shift + moved

    def _read(self, rows: Rows, product: Floats, shift: Array | float = 0.0) -> Floats:
        """What the activation reads where the layer's product and bias are others."""
        given = product + (self.offset + shift).astype(np.float32)
        return given if rows.added is None else given + rows.added

    def _error(self, factors: Factors, shift: Array | float) -> float:
        """‖f(u) − f(z)‖ / ‖f(u)‖ of rows held out."""
        activation, dense, whole, lost = self.behind.activation, factors.dense(), 0.0, 0.0
        for rows in self.pair.rows[1]:
            wanted = activation.of(self._read(rows, rows.outputs))
            found = activation.of(self._read(rows, rows.product(dense), shift))
            whole += float(np.square(wanted, dtype=np.float64).sum())
            lost += float(np.square(wanted - found, dtype=np.float64).sum())
        return math.sqrt(lost / whole) if whole else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """Corrections that do better on rows held out.

    Attributes:
        bend: the layer.
        rounds: how many of them do best.
        before: the error behind the activation without, ‖f(u) − f(z)‖ / ‖f(u)‖.
        after: with them.
    """

    bend: Bend
    rounds: int
    before: float
    after: float

    def repeat(self, wanted: Wanted, form: tuple[Scheme, Ranks], start: Factors) -> tuple[Factors, Float64Array | None]:
        """Factors after as many corrections by all rows, and what the bias gains besides.

        Args:
            wanted: by all equations.
            form: scheme and ranks.
            start: factors fitted to what is wanted.
        """
        pair = self.bend.pair
        every = self.bend.rounds(wanted, form, start, pair.total, pair.rows[0] + pair.rows[1])
        return [(start, None), *islice(every, self.rounds)][-1]


def bend_of(model: Model, site: Site, pair: Pair) -> Bend | None:
    """How outputs of a layer are made right behind the activation that reads them; None where that is not known.

    Args:
        model: holds the site, with weights and biases as they were when the equations were summed.
        site: of the weight.
        pair: its equations.
    """
    behind = activation_behind(model, site) if all(pair.rows) else None
    if behind is None or (behind.added and any(rows.added is None for part in pair.rows for rows in part)):
        return None
    bias = behind.intercept
    return Bend(behind, np.zeros(pair.rows[0][0].outputs.shape[1]) if bias is None else bias.read(model), pair)
