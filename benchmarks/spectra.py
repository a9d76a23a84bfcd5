"""What ranks would allow: singular values of the layers of a model, of the weights alone and of what they give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from onnxpress.calibration.feeds import open_feed
from onnxpress.cost import multiply_adds
from onnxpress.models.zoo import ZOO, path
from onnxpress.passes.base import Workbench
from onnxpress.passes.inputs import moments_of
from onnxpress.passes.kernels.whitened import whitened_svd
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import Shapes, infer_shapes
from onnxpress.rewriter.sites import Site, find_sites

PARTS = (1 / 8, 1 / 4, 1 / 2)
"""Of the full rank."""

SHOWN = 16
"""Layers, those of most work."""

_WANTED = 20.0  # dB


@dataclass(frozen=True, slots=True)
class Spectrum:
    """One layer as a matrix in two factors.

    Attributes:
        site: its name.
        out: outputs.
        inputs: of each output.
        work: multiply-adds of one run, open dimensions as 1.
        weights: dB that the weight keeps at `PARTS` of the full rank.
        outputs: dB that the layer's outputs keep at these on calibration samples, apart from their mean, which is the
            bias's.
        rank: the least that keeps 20 dB of the outputs.
        even: the rank from which on two factors save nothing, out·inputs / (out + inputs).
    """

    site: str
    out: int
    inputs: int
    work: int
    weights: tuple[float, ...]
    outputs: tuple[float, ...]
    rank: int
    even: float

    @property
    def left(self) -> float:
        """Part of the multiply-adds that is left at `rank`; 1 where nothing is saved."""
        return min(1.0, self.rank / self.even)


def spectra(model: str, threads: int) -> list[Spectrum]:
    """Of all plain layers of a model that multiply rows by a matrix, as it is before any pass."""
    normal = Pipeline([])(Model.load(path(model))).model
    bench = Workbench(feed=open_feed(ZOO[model].calibration, inputs=normal.inputs), threads=threads)
    sites = [site for site in find_sites(normal) if site.op in ("Conv", "Gemm", "MatMul") and site.groups == 1]
    shapes = infer_shapes(normal)
    found = []
    for site, moment in moments_of(normal, sites, bench, per_batch=512):
        if not isinstance(moment, RefusalError):
            mean = moment.mean[0]
            found.append(_spectrum(site, moment.total[0] / moment.count - np.outer(mean, mean), shapes))
    return found


def _spectrum(site: Site, metric: NDArray[np.float64], shapes: Shapes) -> Spectrum:
    matrix = Layout.of(site).to_rows(site.array())
    out, inputs = matrix.shape
    alone, given = (_decibels(whitened_svd(matrix, each).values) for each in (None, metric))
    ranks = [max(1, round(part * min(matrix.shape))) for part in PARTS]
    costs = [multiply_adds(use.node, shapes, use.index) for use in site.uses]
    return Spectrum(
        site=site.name,
        out=out,
        inputs=inputs,
        work=sum(each.count for each in costs if each is not None),
        weights=tuple(float(alone[rank]) for rank in ranks),
        outputs=tuple(float(given[rank]) for rank in ranks),
        rank=int(np.argmax(given >= _WANTED)),
        even=out * inputs / (out + inputs),
    )


def _decibels(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each rank from 0 to the full one keeps."""
    squares = np.square(values)
    lost = np.append(np.cumsum(squares[::-1])[::-1], 0.0) / max(squares.sum(), np.finfo(float).tiny)
    with np.errstate(divide="ignore"):
        return np.asarray(-10 * np.log10(lost))


def fastest(found: Sequence[Spectrum]) -> float:
    """Times fewer multiply-adds where every layer alone, the others being whole, keeps 20 dB of its outputs."""
    return sum(each.work for each in found) / max(1.0, sum(each.work * each.left for each in found))


def plain(found: Sequence[Spectrum]) -> dict[str, object]:
    """As JSON holds it."""
    layers = [{**asdict(each), **_finite(each)} for each in found]
    return {"less_work": fastest(found), "parts": list(PARTS), "layers": layers}


def _finite(each: Spectrum) -> dict[str, object]:
    return {name: [v if math.isfinite(v) else str(v) for v in getattr(each, name)] for name in ("weights", "outputs")}


def table(model: str, found: Sequence[Spectrum]) -> Table:
    """The layers of most work."""
    told = f"{model}: two factors that keep 20 dB of each layer alone leave 1/{fastest(found):.2f} of the multiply-adds"
    parts = [f"1/{round(1 / part)}" for part in PARTS]
    result = Table("layer", "out x in", "work", *(f"dB at {part}" for part in parts), title=told)
    for column in ("rank for 20 dB", "saves below", "work left"):
        result.add_column(column)
    whole = sum(each.work for each in found)
    for each in sorted(found, key=lambda each: -each.work)[:SHOWN]:
        kept = [f"{outputs:.1f} ({weights:.1f})" for outputs, weights in zip(each.outputs, each.weights, strict=True)]
        cells = (str(each.rank), f"{each.even:.0f}", f"{each.left:.0%}")
        result.add_row(each.site, f"{each.out} x {each.inputs}", f"{each.work / whole:.1%}", *kept, *cells)
    return result
