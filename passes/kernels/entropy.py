"""Few values whose codes are short on average: entropy-constrained scalar quantization.

Minimises Σ h·(w − value)² + λ·Σ length, where a code's length is −log2 of how often it occurs (Chou, Lookabaugh and
Gray, "Entropy-Constrained Vector Quantization", 1989; for weights with importance h: Choi, El-Khamy and Lee, "Towards
the Limit of Network Quantization", 2017). As in Lloyd's iteration, weights go to values, values to means, and lengths
to frequencies by turns; none of them makes the sum larger. It starts from equal steps around zero, which are nearly
optimal where codes are long (Gish and Pierce, 1968).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.envelopes import STEPS, Part, cells_of, envelope, spans, steps_of
from onnxpress.passes.kernels.points import check_values
from onnxpress.passes.kernels.quantizers import Quantizer, entropy

LIMIT = 256
"""Values at most: codes are bytes before they are coded."""

_ROUNDS = 200
SETTLED = 1e-6
"""Part by which the sum that is minimised falls in a round from which on it has settled."""

_SEARCH = 24
"""Prices tried to meet a target."""

_NEAR = 0.999
"""Part of a target of error that is near enough."""

_CLOSE = 3e-3
"""Difference of two prices' logarithms that are one: between them the error leaps."""

_CROWDED = 0.9
"""Part of the values there may be from which on no price may reach an error."""

_MISSED = 0.02
_TRIED = 8

_PRICES = (-40.0, 3.0)
"""Logarithms to base 2 of the least and the greatest price, as parts of the mean square."""


class Source:
    """Weights that are to be quantized, sorted once, whatever is tried."""

    def __init__(self, values: Array, *, weights: Array | None = None, keep_zero: bool = False) -> None:
        """Sort the weights.

        Args:
            values: any shape and float dtype, finite.
            weights: importance h of each, same shape, finite and positive somewhere; it counts in steps of 41 %, and
                what has less than 2^-10 of the greatest counts as that. None counts all alike.
            keep_zero: weights that are zero stay exactly zero.

        Raises:
            ValueError: no values, ones that are not finite, or unfit `weights`.
        """
        check_values(values, weights, to="quantize")
        top = 1.0 if weights is None else float(weights.max())
        parts, levels = [values], [top]
        if weights is not None:
            steps = steps_of(weights, top)
            used = range(int(steps.max()) + 1)
            parts, levels = [values[steps == step] for step in used], [top * 2 ** (-step / STEPS) for step in used]
        self.levels = np.array(levels)
        self._parts = [Part.of(part, level, keep_zero=keep_zero) for part, level in zip(parts, levels, strict=True)]
        self.count = values.size
        self.zeros = sum(part.zeros for part in self._parts)
        self.keep_zero = keep_zero and self.zeros > 0
        self._parts = [part for part in self._parts if part.value.size] or self._parts[:1]
        self.energy = sum(part.level * float(part.square[-1]) for part in self._parts)
        self._plain = sum(float(part.square[-1]) for part in self._parts)

    def quantizer(self, price: float, *, limit: int = LIMIT, settled: float = SETTLED) -> Quantizer:
        """The values for one price of a bit.

        Args:
            price: λ as part of the mean of h·w², positive.
            limit: values at most, 2 to 256.
            settled: part by which the sum falls in the last round; more of it takes fewer rounds.

        Raises:
            ValueError: price or limit out of range.
        """
        if not (price > 0 and math.isfinite(price)):
            raise ValueError(f"price {price} must be positive")
        if not 2 <= limit <= LIMIT:
            raise ValueError(f"limit {limit} must lie in 2 to {LIMIT}")
        if not self.energy:
            return Quantizer(np.zeros(1), np.zeros(1), price, self.levels, 0, 0.0, 0.0, 0.0)
        cost = price * self.energy / self.count
        return self._account(self._settled(self._start(cost, limit), cost, settled), cost)

    def within_bits(self, bits: float, *, limit: int = LIMIT) -> Quantizer:
        """The values of the least error whose codes take no more bits on average, as nearly as prices give them.

        Args:
            bits: of a code on average, positive.
            limit: values at most.

        Raises:
            ValueError: as `quantizer`.
        """
        low, high = _PRICES
        best = self.quantizer(2**low, limit=limit)
        if best.bits <= bits:
            return best
        best = self.quantizer(2**high, limit=limit)
        for _ in range(_SEARCH):
            if bits - 0.001 <= best.bits <= bits or high - low < 1e-4:
                break
            middle = (low + high) / 2
            found = self.quantizer(2**middle, limit=limit)
            if found.bits <= bits:
                best = min(best, found, key=lambda each: each.loss)
                high = middle
            else:
                low = middle
        # between the numbers of values that suit a distribution with sharp ends, no price gives one
        return best if best.bits > bits - _MISSED else min([best, *self._plain_ones(bits, limit)], key=lambda e: e.loss)

    def within_error(self, error: float, *, limit: int = LIMIT) -> Quantizer:
        """The values of the shortest codes whose error ‖w − value‖ / ‖w‖ is no larger.

        Args:
            error: positive.
            limit: values at most.

        Returns:
            One with a larger error where `limit` values do not reach it.

        Raises:
            ValueError: as `quantizer`.
        """
        (low, high), best, reached = _PRICES, None, False
        place = math.log2(2 * math.log(2) * error**2)  # where codes are long, as `_start` has it
        for _ in range(_SEARCH):
            place = place if low < place < high else (low + high) / 2
            found = self.quantizer(2**place, limit=limit)
            if found.error <= error:
                best = found if best is None else min(best, found, key=lambda each: each.bits)
                low = place
            else:
                high = place
                if not (reached or best) and _CROWDED * limit <= found.values.size:
                    least = self.quantizer(2 ** _PRICES[0], limit=limit)
                    if least.error > error:
                        return least
                    reached = True
            if (best is not None and _NEAR * error <= best.error) or high - low < _CLOSE:
                break
            # error² goes with the price
            place += 2 * math.log2((1 + _NEAR) / 2 * error / found.error) if found.error else 1.0
        return best or self.quantizer(2 ** _PRICES[0], limit=limit)

    def _plain_ones(self, bits: float, limit: int) -> Iterator[Quantizer]:
        """Those with so many values that their codes just take no more bits, each weight going to the nearest."""
        least = min(part.value[0] for part in self._parts if part.value.size)
        most = max(part.value[-1] for part in self._parts if part.value.size)
        for count in range(max(2, int(2**bits)), min(limit, int(2**bits) + _TRIED) + 1):
            value = least + (most - least) * (np.arange(count) + 0.5) / count
            found = self._account(self._settled(self._held(value), 0.0, SETTLED), 0.0)
            if found.bits > bits:
                return
            yield found

    def _settled(self, state: _State, cost: float, settled: float) -> _State:
        """Where the iteration ends."""
        before = math.inf
        for _ in range(_ROUNDS):
            state = self._moved(state, cost)
            if before - state.cost <= settled * state.cost:
                break
            before = state.cost
        return state

    def _start(self, cost: float, limit: int) -> _State:
        """Values in equal steps, as wide as is best at that price where codes are long: λ = h·step²·ln 2 / 6."""
        mean = sum(part.level * float(part.number[-1]) for part in self._parts) / max(1, self.count - self.zeros)
        step = math.sqrt(6 * cost / math.log(2) / mean)
        while True:
            cells = np.unique(np.concatenate([cells_of(part.value, step) for part in self._parts]))
            if self.keep_zero:
                cells = np.union1d(cells, 0)
            if cells.size <= limit:
                break
            step *= max(1.1, 0.5 * cells.size / limit)  # twice as wide cells are at least half as many
        return self._held(cells * step)

    def _held(self, value: Float64Array) -> _State:
        """Ascending values with the weights that are nearest to each; unused ones go."""
        if self.keep_zero:
            value = np.union1d(value, 0.0)
        zero = int(np.searchsorted(value, 0)) if self.keep_zero else None
        borders = (value[1:] + value[:-1]) / 2
        held = np.zeros(value.size)
        for part in self._parts:
            held += spans(part.number, part.places(borders))
        if zero is not None:
            held[zero] += self.zeros
        some = held > 0
        return _State(value[some], held[some], math.inf, None if zero is None else int(some[:zero].sum()))

    def _moved(self, state: _State, cost: float) -> _State:
        """Weights to the cheapest values, values to the means of what they got; unused ones go."""
        lengths = -np.log2(state.held / self.count)
        held, mass, moment = np.zeros((3, state.value.size))
        total = 0.0
        for part in self._parts:
            lines, borders = envelope(state.value, cost / part.level * lengths)
            places = part.places(borders)
            number, first = spans(part.number, places), spans(part.moment, places)
            held[lines] += number
            mass[lines] += part.level * number
            moment[lines] += part.level * first
            total += part.level * float(part.square[-1])
        if state.zero is not None:
            held[state.zero] += self.zeros
        value = np.divide(moment, mass, out=state.value.copy(), where=mass > 0)
        if state.zero is not None:
            value[state.zero] = 0
        # Σ h·(w − v)² = Σ h·w² − 2·v·Σ h·w + v²·Σ h
        lost = total + float((value * (value * mass - 2 * moment)).sum())
        some = held > 0
        spent = -float((held[some] * np.log2(held[some] / self.count)).sum())
        # means over several importances need not keep their order, and may meet
        value, place = np.unique(value[some], return_inverse=True)
        zero = None if state.zero is None else int(np.searchsorted(value, 0))
        return _State(value, np.bincount(place, held[some]).astype(np.float64), max(0.0, lost) + cost * spent, zero)

    def _account(self, state: _State, cost: float) -> Quantizer:
        lengths = -np.log2(state.held / self.count)
        held, lost, plain = np.zeros(state.value.size), 0.0, 0.0
        for part in self._parts:
            lines, borders = envelope(state.value, cost / part.level * lengths)
            off = part.lost(state.value[lines], part.places(borders))
            held[lines] += spans(part.number, part.places(borders))
            lost, plain = lost + part.level * off, plain + off
        if state.zero is not None:
            held[state.zero] += self.zeros
        return Quantizer(
            state.value,
            lengths,
            cost,
            self.levels,
            state.zero,
            entropy(held),
            lost / self.energy,
            math.sqrt(plain / self._plain),
        )


@dataclass(frozen=True, slots=True)
class _State:
    """Values, how many weights each has, the sum that is minimised, and the number of the value that is zero."""

    value: Float64Array
    held: Float64Array
    cost: float
    zero: int | None
