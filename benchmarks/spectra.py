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
from onnxpress.passes.factorize.curves import measured
from onnxpress.passes.factorize.latency import Ladder
from onnxpress.passes.factorize.offers import Market, Offer, gain_of
from onnxpress.passes.factorize.schemes.channel import ChannelScheme
from onnxpress.passes.inputs import activation_of, moments_of
from onnxpress.passes.kernels.whitened import whitened_svd
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.report import Report
from onnxpress.passes.selection import Layout, RefusalError, skipping
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
    """One layer as a matrix in two factors, or several that read the same with the first factor in common.

    Attributes:
        site: its name, or their names.
        out: outputs.
        inputs: of each output.
        work: multiply-adds of one run, open dimensions as 1.
        weights: dB that the weight keeps at `PARTS` of the full rank.
        outputs: dB that the layer's outputs keep at these on calibration samples, apart from their mean, which is the
            bias's.
        rank: the least that keeps 20 dB of the outputs.
        even: the rank from which on two factors save nothing, out·inputs / (out + inputs).
        together: layers that it is about.
    """

    site: str
    out: int
    inputs: int
    work: int
    weights: tuple[float, ...]
    outputs: tuple[float, ...]
    rank: int
    even: float
    together: int = 1

    @property
    def left(self) -> float:
        """Part of the multiply-adds that is left at `rank`; 1 where nothing is saved."""
        return min(1.0, self.rank / self.even)


def spectra(model: str, threads: int) -> list[Spectrum]:
    """Of all plain layers of a model that multiply rows by a matrix, as it is before any pass."""
    normal, sites, bench = _opened(model, threads)
    shapes = infer_shapes(normal)
    found = []
    beside = _beside(sites)
    for site, moment in moments_of(normal, sites, bench, per_batch=512):
        if not isinstance(moment, RefusalError):
            mean = moment.mean[0]
            metric = moment.total[0] / moment.count - np.outer(mean, mean)
            found.append(_spectrum([site], metric, shapes))
            if site.name in beside:
                found.append(_spectrum(beside[site.name], metric, shapes))
    return found


def _opened(model: str, threads: int) -> tuple[Model, list[Site], Workbench]:
    """A model as it is before any pass, its plain layers, and its calibration samples."""
    normal = Pipeline([])(Model.load(path(model))).model
    bench = Workbench(feed=open_feed(ZOO[model].calibration, inputs=normal.inputs), threads=threads)
    sites = [site for site in find_sites(normal) if site.op in ("Conv", "Gemm", "MatMul") and site.groups == 1]
    return normal, sites, bench


def allowed(model: str, threads: int) -> float:
    """Times fewer multiply-adds of all plain layers, by two factors each, with which a model's outputs keep 20 dB.

    What each layer's noise at each rank does to the outputs is measured; noises add up; ranks are shared out so that
    most work goes.
    """
    normal, sites, bench = _opened(model, threads)
    report, shapes = Report("spectra"), infer_shapes(normal)
    ladders: dict[Site, list[Ladder]] = {}
    for site in sites:
        with skipping(report, site.name):
            ladders[site] = [Ladder.of(ChannelScheme(), site)]
    work = {site.name: _work([site], shapes) for site in sites}
    offers = {}
    for each in measured(normal, ladders, bench, report):
        name, (ladder,) = each.site.name, each.ladders
        pairs = zip(ladder.ranks, ladder.work, each.noise[ladder.scheme.name], strict=True)
        offers[name] = [
            Offer(name, ladder.scheme, ranks, each.harm * float(noise), work[name] * (1 - float(left)), work[name])
            for ranks, left, noise in pairs
        ]
    whole = sum(work.values())
    return whole / (whole - gain_of(Market(offers).within(10 ** (-_WANTED / 10))))


def _work(sites: Sequence[Site], shapes: Shapes) -> int:
    """Multiply-adds of one run, open dimensions as 1."""
    costs = [multiply_adds(use.node, shapes, use.index) for site in sites for use in site.uses]
    return sum(each.count for each in costs if each is not None)


def _beside(sites: Sequence[Site]) -> dict[str, list[Site]]:
    """Layers that multiply the same rows, such as query, key and value, by the name of the last of them."""
    read: dict[tuple[int, str, int], list[Site]] = {}
    for site in sites:
        rows = Layout.of(site).to_rows(site.array()).shape[1]
        if len(site.uses) == 1 and site.op != "Conv":
            read.setdefault((id(activation_of(site.uses[0])), site.op, rows), []).append(site)
    return {some[-1].name: some for some in read.values() if len(some) > 1}


def _spectrum(sites: Sequence[Site], metric: NDArray[np.float64], shapes: Shapes) -> Spectrum:
    """Of one layer, or of several with one common factor, in which each counts by what it gives."""
    parts = [Layout.of(site).to_rows(site.array()) for site in sites]
    norms = [math.sqrt(float(np.vdot(part @ metric, part))) if len(sites) > 1 else 1.0 for part in parts]
    matrix = np.concatenate([part / (norm or 1.0) for part, norm in zip(parts, norms, strict=True)])
    out, inputs = matrix.shape
    alone, given = (_decibels(whitened_svd(matrix, each).values) for each in (None, metric))
    ranks = [max(1, round(part * min(matrix.shape))) for part in PARTS]
    return Spectrum(
        site=" + ".join(site.name for site in sites),
        together=len(sites),
        out=out,
        inputs=inputs,
        work=_work(sites, shapes),
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
    """Times fewer multiply-adds where every layer alone, the others being whole, keeps 20 dB of its outputs.

    Of layers that read the same the common factor counts, where that leaves less.
    """
    whole = sum(each.work for each in found if each.together == 1)
    left = {each.site: each.work * each.left for each in found if each.together == 1}
    for each in (each for each in found if each.together > 1):
        names = each.site.split(" + ")
        if each.work * each.left < sum(left[name] for name in names):
            left |= dict.fromkeys(names, 0.0) | {names[0]: each.work * each.left}
    return whole / max(1.0, sum(left.values()))


def plain(found: Sequence[Spectrum], whole: float = math.nan) -> dict[str, object]:
    """As JSON holds it.

    Args:
        found: the layers.
        whole: what is `allowed`.
    """
    layers = [{**asdict(each), **_finite(each)} for each in found]
    allows = whole if math.isfinite(whole) else None
    return {"less_work": fastest(found), "less_work_of_the_model": allows, "parts": list(PARTS), "layers": layers}


def _finite(each: Spectrum) -> dict[str, object]:
    return {name: [v if math.isfinite(v) else str(v) for v in getattr(each, name)] for name in ("weights", "outputs")}


def table(model: str, found: Sequence[Spectrum], whole: float = math.nan) -> Table:
    """The layers of most work.

    Args:
        model: its name.
        found: its layers.
        whole: what is `allowed`.
    """
    told = f"{model}: two factors that keep 20 dB of each layer alone leave 1/{fastest(found):.2f} of the multiply-adds"
    if math.isfinite(whole):
        told += f", with 20 dB of the model's outputs 1/{whole:.2f}"
    parts = [f"1/{round(1 / part)}" for part in PARTS]
    result = Table("layer", "out x in", "work", *(f"dB at {part}" for part in parts), title=told)
    for column in ("rank for 20 dB", "saves below", "work left"):
        result.add_column(column)
    total = sum(each.work for each in found if each.together == 1)
    for each in sorted(found, key=lambda each: -each.work)[:SHOWN]:
        kept = [f"{outputs:.1f} ({weights:.1f})" for outputs, weights in zip(each.outputs, each.weights, strict=True)]
        cells = (str(each.rank), f"{each.even:.0f}", f"{each.left:.0%}")
        result.add_row(_short(each.site), f"{each.out} x {each.inputs}", f"{each.work / total:.1%}", *kept, *cells)
    return result


def _short(site: str) -> str:
    """Names of the same parts but for some as one: `a/{query + key}/MatMul`."""
    names = [name.split("/") for name in site.split(" + ")]
    if len({len(name) for name in names}) > 1:
        return site
    parts = zip(*names, strict=True)
    return "/".join(each[0] if len(set(each)) == 1 else f"{{{' + '.join(each)}}}" for each in parts)
