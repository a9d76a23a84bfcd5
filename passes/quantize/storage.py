"""Weights that are small in the file and float when they compute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxpress.passes.inputs import check_sole
from onnxpress.passes.kernels.affine import INT8_SYMMETRIC, Floats
from onnxpress.passes.quantize.coding import Coded, channel_axis, code, decoded, looked_up, saving, weight_scale
from onnxpress.passes.quantize.rules import count_quantized
from onnxpress.passes.report import Report
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.edits import set_input
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, Use
from onnxpress.rewriter.weights import Values


def check_float32(site: Site) -> None:
    """Refuse weights of other types.

    Raises:
        RefusalError: says which.
    """
    if site.weight.dtype != np.float32:
        raise RefusalError(f"its weight is {np.dtype(site.weight.dtype).name}; only float32 is quantized")


def note_quantized(model: Model, report: Report) -> None:
    """Say that a model came with codes, whose layers are no sites any more."""
    if count := count_quantized(model):
        report.skip("graph", f"{count} nodes work on codes already; start from the float model to quantize them anew")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Codes of a weight that samples chose, for when it is read in float.

    Attributes:
        scale: float32 [channels], or [] for the whole tensor; None for that of the largest weight.
        codes: int8, of the weight's shape; None for the nearest.
        note: how they were chosen, or why not.
    """

    scale: Floats | None
    codes: Values | None
    note: str


def storage_axis(site: Site) -> int | None:
    """The axis of the scales of a weight that is read in float.

    It is that of its rows where some are looked up, else of its first user; others do not mind.

    Raises:
        RefusalError: its output channels lie along several axes.
    """
    lookups = [use for use in site.uses if use.node.op == "Gather"]
    return channel_axis((*lookups, *site.uses)[0])


def store(
    model: Model, site: Site, report: Report, *, per_channel: bool, because: str, chosen: Chosen | None = None
) -> None:
    """Store the weight of a site as int8 that all its users read in float, where the file gets smaller by it.

    Args:
        model: holds the site.
        site: of float32.
        report: gets the change or the skip.
        per_channel: one scale for each output channel.
        because: why the site does not compute on codes; empty where nobody expects that.
        chosen: codes other than the nearest.
    """
    try:
        check_float32(site)
        check_sole(model, site)
        axis = storage_axis(site) if per_channel else None
        if saving(site, axis=axis) <= 0:
            raise RefusalError(f"its {site.nbytes} bytes would not get smaller by codes, scales and nodes")
        scale = None if chosen is None else chosen.scale
        if scale is None:
            scale = weight_scale(site, axis=axis, grid=INT8_SYMMETRIC)
    except RefusalError as refusal:
        report.skip(site.name, "; ".join(part for part in (because, str(refusal)) if part))
        return
    before = site.nbytes
    codes = None if chosen is None else chosen.codes
    coded = code(model, site, scale, axis=axis, grid=INT8_SYMMETRIC, chosen=codes)
    read_as_float(model, site.uses, coded)
    how = f" ({chosen.note})" if chosen is not None and chosen.note else ""
    told = f"{how}, float when it runs: {because}" if because else f"{how}, float when it runs"
    report.change(
        site.name, f"int8 in the file{told}", bytes_before=before, bytes_after=coded.nbytes, error=coded.error
    )


def read_as_float(model: Model, uses: tuple[Use, ...], coded: Coded) -> None:
    """Let nodes read a coded weight in float: tables row by row as they are asked for, others once at load."""
    others = [use for use in uses if use.node.op != "Gather"]
    for use in uses:
        if use.node.op == "Gather":
            looked_up(model, use, coded)
    if not others:
        return
    graphs = {id(use.graph): use.graph for use in others}
    graph = next(iter(graphs.values())) if len(graphs) == 1 else model.graph
    weight = decoded(model, graph, coded)
    for use in others:
        set_input(use.node, use.index, weight)
