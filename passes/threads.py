"""How many threads linear algebra gets: more than one only where the matrices are large enough to gain by it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

WIDE = 2048
"""Size of a square matrix from which more threads pay: below, those of OpenBLAS wait for each other, and busily.

Measured on two cores, pruning a transformer with systems of 384 and 1536 inputs: 81 s and 159 CPU s with two threads,
71 and 74 with one. (The 1536 alone: 14.6 s with two, 19.9 with one.)
"""


@contextmanager
def threads_for(width: int) -> Iterator[None]:
    """Limit the threads of BLAS and LAPACK for the work inside.

    Args:
        width: rows and columns of the matrices that are factored.
    """
    with _controller().limit(limits=1, user_api="blas") if width < WIDE else nullcontext():
        yield


def threads_now() -> int:
    """How many BLAS and LAPACK have here."""
    return max((int(each["num_threads"]) for each in _controller().info() if each["user_api"] == "blas"), default=1)


@contextmanager
def threads_are(count: int) -> Iterator[None]:
    """Give BLAS and LAPACK as many threads as somewhere else: how sums are split, and so rounded, depends on it.

    Args:
        count: of threads, more than the cores here if need be.
    """
    with _controller().limit(limits=count, user_api="blas"):
        yield


@cache
def _controller() -> ThreadpoolController:
    """Knows the libraries that are loaded; looking for them takes milliseconds.

    SciPy brings a BLAS of its own, which has to be there before: what is loaded later is not limited.
    """
    from threadpoolctl import ThreadpoolController

    import_module("scipy.linalg")
    return ThreadpoolController()
