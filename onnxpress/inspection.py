"""What a model is made of, and what each family of passes could do with it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxpress.artifact import Artifact
from onnxpress.calibration.batches import Array
from onnxpress.cost import Cost, multiply_adds
from onnxpress.passes.base import Workbench
from onnxpress.passes.encode.evaluate import decoded_weights
from onnxpress.passes.kernels.packing import distinct
from onnxpress.passes.normalise import Normalise
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import Shapes, infer_shapes
from onnxpress.rewriter.sites import Site, find_sites
from onnxpress.rewriter.specs import InputSpec
from onnxpress.rewriter.walk import nodes
from onnxpress.rewriter.weights import SparseForm, values_of
from onnxpress.structure import Coupling, couplings_of

FAMILIES = ("prune", "share", "factorize", "quantize", "encode")
CODEBOOK = 256
"""Distinct values that 8-bit codes can tell apart; more are not counted."""
_SMALL = 256
"""Weights below which a codebook, or an index, takes more room than it saves."""


@dataclass(frozen=True, slots=True)
class Option:
    """What one family could do with a layer.

    Attributes:
        possible: whether anything.
        text: what, or why not; short.
    """

    possible: bool
    text: str


@dataclass(frozen=True, slots=True)
class Layer:
    """A weight with the nodes that use it.

    Attributes:
        name: by which recipes choose it.
        op: operator of the first node.
        shape: as stored.
        dtype: of its elements.
        weights: how many.
        nbytes: stored.
        multiply_adds: of one run over all its nodes; None where a shape is unknown.
        zeros: share of zeros.
        distinct: number of different values; None where there are more than 256.
        options: what each of `FAMILIES` could do.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    dtype: str
    weights: int
    nbytes: int
    multiply_adds: int | None
    zeros: float
    distinct: int | None
    options: Mapping[str, Option]


@dataclass(frozen=True, slots=True)
class Inspection:
    """A model, as passes see it: normalised.

    Attributes:
        path: of the file.
        nbytes: of all its files.
        opset: of the standard operators.
        inputs: what it must be given.
        outputs: names.
        nodes: number by op type.
        nodes_before: number before normalisation.
        layers: weights that passes can work on, in graph order.
        other_bytes: of all other constants.
        other_multiply_adds: of products that involve no weight, and of nodes whose weights are encoded or quantized.
        encoded: weights that are stored encoded, which passes do not see.
        sparse: weights that are sparse initializers, which passes see dense.
        couplings: groups of axes that are one dimension, in graph order.
        open_dims: sizes that a caller chooses, counted as 1 in multiply-adds: by name, or `input:axis` without one.
    """

    path: Path
    nbytes: int
    opset: int
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    nodes: Mapping[str, int]
    nodes_before: int
    layers: tuple[Layer, ...]
    other_bytes: int
    other_multiply_adds: int
    encoded: int
    sparse: int
    couplings: tuple[Coupling, ...]
    open_dims: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A model that is looked at.

    Attributes:
        path: of the file.
        nodes_before: number before normalisation.
        model: normalised.
    """

    path: Path
    nodes_before: int
    model: Model

    @classmethod
    def of(cls, path: str | Path) -> Subject:
        """Load and normalise.

        Raises:
            ModelError: it cannot be read.
        """
        raw = Model.load(path)
        return cls(Path(path), sum(1 for _ in nodes(raw.graph)), Normalise()(raw, Workbench()).model)


def inspect(path: str | Path) -> Inspection:
    """Look at a model; its weights are read once, nothing is run.

    Raises:
        ModelError: it cannot be read.
    """
    return examine(Subject.of(path))


def examine(subject: Subject) -> Inspection:
    """Look at a model that is loaded."""
    model = subject.model
    shapes, sites = infer_shapes(model), find_sites(model)
    couplings = couplings_of(model, sites)
    costs = {id(site): _cost(site, shapes) for site in sites}
    used = {id(use.node) for site in sites for use in site.uses}
    others = [multiply_adds(node, shapes) for _, node in nodes(model.graph) if id(node) not in used]
    every = [each for each in [*costs.values(), *others] if each is not None]
    return Inspection(
        path=subject.path,
        nbytes=Artifact.of(subject.path).nbytes,
        opset=model.opset,
        inputs=model.inputs,
        outputs=model.outputs,
        nodes=Counter(node.op for _, node in nodes(model.graph)),
        nodes_before=subject.nodes_before,
        layers=tuple(_layer(site, costs[id(site)], couplings) for site in sites),
        other_bytes=model.weight_bytes() - sum(values_of(site.weight).stored_bytes for site in sites),
        other_multiply_adds=sum(each.count for each in others if each is not None),
        encoded=len(decoded_weights(model)),
        sparse=len(model.sparse_weights()),
        couplings=couplings,
        open_dims=_open_dims(model.inputs) if any(each.open_dims for each in every) else (),
    )


def _open_dims(inputs: Sequence[InputSpec]) -> tuple[str, ...]:
    """Sizes that the inputs leave open."""
    found = (
        dim if isinstance(dim, str) and dim.isidentifier() else f"{spec.name}:{axis}"
        for spec in inputs
        for axis, dim in enumerate(spec.shape or ())
        if not isinstance(dim, int)
    )
    return tuple(dict.fromkeys(found))


def _cost(site: Site, shapes: Shapes) -> Cost | None:
    """Multiply-adds of all nodes that use a weight."""
    found = [multiply_adds(use.node, shapes, use.index) for use in site.uses]
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return None
    return Cost(sum(each.count for each in known), frozenset().union(*(each.open_dims for each in known)))


def _layer(site: Site, cost: Cost | None, couplings: Sequence[Coupling]) -> Layer:
    array = site.array()
    zeros = 1 - np.count_nonzero(array) / site.size if site.size else 0.0
    distinct = count_distinct(array)
    return Layer(
        name=site.name,
        op=site.op,
        shape=site.shape,
        dtype=array.dtype.name,
        weights=site.size,
        nbytes=site.nbytes,
        multiply_adds=None if cost is None else cost.count,
        zeros=float(zeros),
        distinct=distinct,
        options=_options(site, float(zeros), distinct, couplings),
    )


def count_distinct(array: Array, most: int = CODEBOOK) -> int | None:
    """Number of elements that differ in their bits, as `encode` tells them apart; None where it is above `most`."""
    found = distinct(array, most)
    return None if found is None else int(found.size)


def _options(site: Site, zeros: float, distinct: int | None, couplings: Sequence[Coupling]) -> dict[str, Option]:
    small = Option(False, f"{site.size} weights")
    return {
        "prune": _prune(site, couplings),
        "share": small if site.size < _SMALL else _share(distinct),
        "factorize": _factorize(site),
        "quantize": _quantize(site),
        "encode": small if site.size < _SMALL else _encode(site, zeros, distinct),
    }


def _prune(site: Site, couplings: Sequence[Coupling]) -> Option:
    """Zeros, and units that its groups allow to remove."""
    free = [each for each in couplings if each.frozen is None and site.name in each.producers]
    made = Counter(f"{each.units} {each.kind}" for each in free)
    units = [text if times == 1 else f"{times} × {text}" for text, times in made.items()]
    ways = (["zeros"] if site.size >= _SMALL else []) + units
    return Option(True, ", ".join(ways)) if ways else Option(False, f"{site.size} weights")


def _share(distinct: int | None) -> Option:
    return Option(True, "yes") if distinct is None else Option(False, f"{distinct} values")


def _factorize(site: Site) -> Option:
    """The largest rank r at which two factors, r·(out + in·kernel) weights, are fewer than out·in·kernel."""
    recurrent = site.op in ("LSTM", "GRU", "RNN")
    if not recurrent and site.op not in ("Conv", "Gemm", "MatMul", "Gather", "FusedConv", "FusedGemm", "FusedMatMul"):
        return Option(False, "no product")
    if recurrent and site.uses[0].index != 1:
        return Option(False, "reads the state")
    if site.groups > 1:
        return Option(False, "grouped")
    if "batch" in site.axes and not recurrent:
        return Option(False, "stacked")
    out = math.prod(size for size, axis in zip(site.shape, site.axes, strict=True) if axis in ("batch", "out"))
    inside = site.size // out
    rank = math.ceil(site.size / (out + inside)) - 1
    return Option(True, f"rank ≤ {rank}") if rank >= 1 else Option(False, "too thin")


def _quantize(site: Site) -> Option:
    if site.array().dtype != np.float32:
        return Option(False, f"is {site.array().dtype.name}")
    if site.op in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return Option(True, "int8")
    if site.op in ("Gather", "LSTM"):
        return Option(True, "weights")
    return Option(False, f"no int8 {site.op}")


def _encode(site: Site, zeros: float, distinct: int | None) -> Option:
    if isinstance(values_of(site.weight), SparseForm):
        return Option(True, "sparse")
    if distinct is not None:
        bits = next(b for b in (1, 2, 4, 8) if distinct <= 2**b)
        return Option(True, f"{bits}-bit codes")
    width = 8 * site.array().dtype.itemsize
    if zeros * width > 1:  # a mask takes one bit a weight
        return Option(True, "mask")
    return Option(False, "dense")
