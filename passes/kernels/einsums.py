"""Einsum expressions of factors: what they give, how it depends on one of them, and how to balance them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxpress.passes.kernels.arrays import Array, Float64Array

_MANY = 6
"""Operands from which the best order is not looked for, only a good one."""

_MOST = 1 << 26
"""Numbers in an intermediate result, at most."""


@dataclass(frozen=True, slots=True)
class Form:
    """An einsum expression, read.

    Attributes:
        operands: letters of each factor.
        result: letters of the result: the output channel, then the columns.
    """

    operands: tuple[str, ...]
    result: str

    @classmethod
    def of(cls, expression: str) -> Form:
        """Read an expression such as "or,rik->oik".

        Raises:
            ValueError: no such expression, or one with a letter that is summed within one factor alone.
        """
        left, arrow, result = expression.partition("->")
        operands = tuple(left.split(","))
        if not (arrow and result and all(each.isalpha() and each.isascii() for each in (*operands, result))):
            raise ValueError(f"'{expression}' is no expression such as 'or,rik->oik'")
        for letters in (*operands, result):
            if len(set(letters)) != len(letters):
                raise ValueError(f"'{expression}' has a letter twice in '{letters}'")
        for letter in sorted(set(left) - {","} | set(result)):
            holders = sum(letter in each for each in (*operands, result))
            if holders < 2 or not any(letter in each for each in operands):
                raise ValueError(f"'{expression}' has '{letter}' in one place only")
        return cls(operands, result)

    @property
    def expression(self) -> str:
        """As it is written."""
        return f"{','.join(self.operands)}->{self.result}"

    @property
    def summed(self) -> str:
        """Letters that the result lacks, in the order in which they come."""
        return "".join(dict.fromkeys(letter for each in self.operands for letter in each if letter not in self.result))

    def holders(self, letter: str) -> list[int]:
        """The factors that have a letter."""
        return [index for index, letters in enumerate(self.operands) if letter in letters]

    def sizes(self, factors: Sequence[Array]) -> dict[str, int]:
        """The size of each letter.

        Raises:
            ValueError: other numbers of factors or of axes, sizes that differ, or values that are not finite.
        """
        if len(factors) != len(self.operands):
            raise ValueError(f"'{self.expression}' has {len(self.operands)} factors, got {len(factors)}")
        found: dict[str, int] = {}
        for letters, factor in zip(self.operands, factors, strict=True):
            if factor.ndim != len(letters) or factor.size == 0:
                raise ValueError(f"the factor '{letters}' cannot have the shape {list(factor.shape)}")
            for letter, size in zip(letters, factor.shape, strict=True):
                if found.setdefault(letter, size) != size:
                    raise ValueError(f"'{letter}' of '{self.expression}' is {found[letter]} and {size} long")
            if not np.isfinite(factor).all():
                raise ValueError(f"the factor '{letters}' is not finite")
        return found

    def dense(self, factors: Sequence[Array]) -> Float64Array:
        """The result."""
        return contract(self.expression, *factors)

    def adjoint(self, factors: Sequence[Array], index: int, given: Array) -> Float64Array:
        """What one factor gets of a result, whose linear map of it this is the adjoint of.

        ⟨dense(F), given⟩ = ⟨F, adjoint(given)⟩.
        """
        others = [number for number in range(len(factors)) if number != index]
        letters = ",".join([self.result, *(self.operands[other] for other in others)])
        return contract(f"{letters}->{self.operands[index]}", given, *(factors[other] for other in others))


def contract(expression: str, *operands: Array) -> Float64Array:
    """An einsum in float64, two operands at a time.

    Left to itself NumPy allows no intermediate result larger than operands and result, and else sums over all letters
    at once, which is many times slower.
    """
    whole = [each.astype(np.float64, copy=False) for each in operands]
    way = "optimal" if len(whole) < _MANY else "greedy"
    order = np.einsum_path(expression, *whole, optimize=(way, _MOST))[0]
    found: Float64Array = np.einsum(expression, *whole, optimize=order)
    return found


def norms_along(form: Form, factors: Sequence[Array], letter: str) -> Float64Array:
    """Norms of the slices of one letter in all factors that hold it, [holders, size of the letter]."""
    return np.stack(
        [
            np.sqrt(contract(f"{letters},{letters}->{letter}", factors[index], factors[index]))
            for index in form.holders(letter)
            for letters in (form.operands[index],)
        ]
    )


def balance(form: Form, factors: Sequence[Array]) -> list[Float64Array]:
    """The same result by factors whose slices of each summed letter have equal norms in all that hold it.

    Slices that are zero in one of the factors stay as they are: a fit may yet make use of the others.
    """
    found = [each.astype(np.float64) for each in factors]
    for letter in form.summed:
        norms, holders = norms_along(form, found, letter), form.holders(letter)
        with np.errstate(divide="ignore"):
            share = np.exp(np.log(norms).mean(axis=0))  # the geometric mean
        for norm, index in zip(norms, holders, strict=True):
            scale = np.divide(share, norm, out=np.ones_like(share), where=share > 0)
            letters = form.operands[index]
            found[index] *= scale.reshape([-1 if each == letter else 1 for each in letters])
    return found


def size_of(letters: str, sizes: dict[str, int]) -> int:
    """The product of the sizes of some letters."""
    return math.prod(sizes[letter] for letter in letters)
