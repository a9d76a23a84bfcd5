"""Pooling: windows over space, each channel by itself."""

from __future__ import annotations

from onnxpress.rewriter.couplings.links import Links, Rule


def link_pool(links: Links) -> None:
    """X [N, C, …] -> Y [N, C, …], and for MaxPool where each maximum stood, counted through all of X."""
    x, y, where = links.input(0), links.output(0), links.output(1)
    if x is None or y is None:
        return
    for axis in (0, 1):
        links.tie((x, axis), (y, axis))
    if where is None:
        return
    for axis in (0, 1):
        links.tie((x, axis), (where, axis))
    # MaxUnpool counts in the same way, and has the same channels left
    if any(reader.op != "MaxUnpool" for reader in where.outputs) or any(t is where for t in links.model.graph.outputs):
        for axis in (0, 1):
            links.keep((x, axis), f"'{where.name}' holds positions that count through axis {axis}")


def link_unpool(links: Links) -> None:
    """X, positions [N, C, …] -> Y [N, C, …]."""
    x, where, y = links.input(0), links.input(1), links.output(0)
    if x is None or where is None or y is None:
        return
    if links.input(2) is not None:
        links.refuse("it is told the shape of its result")
        return
    for axis in (0, 1):
        links.tie((x, axis), (y, axis))
        links.tie((where, axis), (y, axis))


def link_regions(links: Links) -> None:
    """X [N, C, …], regions [R, …], for RoiAlign the sample of each [R] -> Y [R, C, …]."""
    x, regions, samples, y = links.input(0), links.input(1), links.input(2), links.output(0)
    if x is None or regions is None or y is None:
        return
    links.tie((x, 1), (y, 1))
    links.tie((regions, 0), (y, 0))
    if samples is not None:
        links.tie((samples, 0), (y, 0))


def link_samples(links: Links) -> None:
    """GridSample: X [N, C, …], where to look [N, …, dimensions] -> Y [N, C, …]."""
    x, grid, y = links.input(0), links.input(1), links.output(0)
    if x is None or grid is None or y is None:
        return
    for axis in (0, 1):
        links.tie((x, axis), (y, axis))
    links.tie((grid, 0), (y, 0))


_POOLS = ("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool")

RULES = {
    **{("", op): Rule(link_pool) for op in _POOLS},
    ("", "MaxUnpool"): Rule(link_unpool),
    ("", "GridSample"): Rule(link_samples),
    **{("", op): Rule(link_regions) for op in ("MaxRoiPool", "RoiAlign")},
}
