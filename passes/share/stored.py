"""What `encode` will take for weights with few values, by the estimates it chooses by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from onnxpress.passes.base import Workbench
from onnxpress.passes.encode.candidates import constants
from onnxpress.passes.encode.choose import choose
from onnxpress.passes.encode.costs import NAMED
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.encode.options import Option, options
from onnxpress.passes.encode.plans import DECODED, MOST_DISTINCT, Facts
from onnxpress.passes.encode.writer import shared_costs
from onnxpress.passes.kernels.arrays import Array
from onnxpress.passes.kernels.packing import Survey, survey
from onnxpress.rewriter.edits import output_ids
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site


def stored_as(array: Array, *, huffman: bool, whole: Sequence[int] | None = None) -> list[Option]:
    """Dense, and every way to store a weight.

    Args:
        array: the weight, or a part of it that tells for all.
        huffman: whether Huffman codes may be taken.
        whole: sizes of the weight where the array is a part.
    """
    shape = tuple(array.shape if whole is None else whole)
    size, seen = int(np.prod(shape, dtype=np.int64)), survey(array, limit=MOST_DISTINCT)
    seen = seen if size == array.size else _scaled(seen, size)
    return options(
        Facts(shape, array.dtype, seen, (), size * array.dtype.itemsize), DECODED, huffman=huffman, brief=True
    )


def least(found: Sequence[Option]) -> Option:
    """The smallest, what is stored once for all left aside."""
    return min(found, key=lambda each: each.nbytes)


def distinct_plans(found: Sequence[Option]) -> tuple[Option, ...]:
    """Dense, and the smallest of those that share the same with other weights, where no other does with less of it."""
    kept: list[Option] = []
    for each in sorted(found[1:], key=lambda option: (option.nbytes, len(option.needs))):
        if not any(other.needs <= each.needs for other in kept):
            kept.append(each)
    return (found[0], *kept)


def total(weights: Sequence[Sequence[Option]], opset: int) -> int:
    """Bytes of weights that `encode` stores together, with what they share.

    Args:
        weights: the options of each.
        opset: of the model.
    """
    costs = shared_costs({name for each in weights for option in each for name in option.needs}, opset)
    chosen = choose(weights, costs=costs)
    return sum(each.nbytes for each in chosen) + sum(costs[n] for n in {n for each in chosen for n in each.needs})


def refusals(model: Model, sites: Sequence[Site]) -> dict[str, str]:
    """Why `encode` leaves some weights as they are, whatever they hold; by the name of the site."""
    outputs, wanted = output_ids(model), {id(site.weight) for site in sites}
    found = {
        each.name: each.refused(model, outputs, DECODED) for each in constants(model) if id(each.constant) in wanted
    }
    return {name: reason for name, reason in found.items() if reason is not None}


def rest_of(model: Model, sites: Sequence[Site], *, huffman: bool) -> int:
    """Bytes that the encoded file takes besides some weights.

    Args:
        model: is not changed.
        sites: of the model, whose weights do not count.
        huffman: whether Huffman codes may be taken.
    """
    copy = model.clone()
    names = tuple(escape(site.weight.name) for site in sites)
    Encode(huffman=huffman, exclude=names, measure=False).apply(copy, Workbench())
    with TemporaryDirectory(prefix="onnxpress-") as folder:
        copy.save(Path(folder) / "model.onnx")
        nbytes = sum(each.stat().st_size for each in Path(folder).iterdir())
    return nbytes - sum(site.nbytes + NAMED + 3 * len(site.shape) for site in sites)


def _scaled(seen: Survey, size: int) -> Survey:
    """A survey of a part as if it were one of so many elements."""
    factor = size / seen.count
    lengths, times = seen.gaps
    times = _times(times, factor)
    counts = None if seen.counts is None else _times(seen.counts, factor)
    nonzeros = size if seen.nonzeros == seen.count else min(size - 1, int(times.sum()))
    return replace(seen, count=size, nonzeros=nonzeros, counts=counts, gaps=(lengths, times))


def _times(counts: Array, factor: float) -> Array:
    return np.maximum(1, np.rint(factor * counts)).astype(np.int64)
