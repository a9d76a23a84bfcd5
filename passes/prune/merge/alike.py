"""Units that carry alike values on samples, whatever their weights are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxpress.calibration.observers import SecondMoment
from onnxpress.calibration.views import Columns, LastAxis, Patches, View
from onnxpress.passes.base import Workbench
from onnxpress.passes.inputs import MEMORY, Reading, activation_of, in_parts, observe_readings, view_of
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.kernels.pairs import Pairs, Stage, compare
from onnxpress.passes.kernels.products import Table
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.couplings import Group, Member
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import Shapes, infer_shapes
from onnxpress.rewriter.sites import Site, find_sites

_PER_BATCH = 2048
"""Rows of values taken of one batch at most."""


class Alike:
    """Inner products of the values that units carry where weights read them, over all samples."""

    def __init__(self, model: Model, groups: Sequence[Group], bench: Workbench) -> None:
        """Observe the model as it is, in walks whose products fit into memory.

        Raises:
            FeedError: there are no samples.
        """
        sites = {id(site.weight): site for site in find_sites(model)}
        shapes = infer_shapes(model)
        found = [(group, _readings(model, group, sites, shapes)) for group in groups]
        self._products: dict[str, Float64Array] = {}
        for part in in_parts(found, MEMORY, sizes=lambda each: {key: 4 * one.size**2 for key, one in each[1].items()}):
            readings = {key for _, wanted in part for key in wanted}
            observers = {each: SecondMoment(view=each.view, per_batch=_PER_BATCH) for each in readings}
            if observers:
                observe_readings(model, observers, bench)
            for group, wanted in part:
                seen = [_fold(observers[key].total[0], one) for key, one in wanted.items() if not observers[key].empty]
                if seen:
                    self._products[group.name] = np.sum(seen, axis=0)

    def pairs(self, group: Group) -> Pairs:
        """Compare the units of a group; a unit may be any multiple of its twin.

        Raises:
            RefusalError: their values cannot be observed, or are no numbers.
        """
        products = self._products.get(group.name)
        if products is None:
            raise RefusalError("the values of its units cannot be observed; merge it by weights")
        try:
            return compare([Stage(Table(products))], factors="any")
        except ValueError as error:
            raise RefusalError(str(error)) from error


def _readings(model: Model, group: Group, sites: Mapping[int, Site], shapes: Shapes) -> dict[Reading, Member]:
    """The tensors whose units weights read, as rows with a column for each element of their axis."""
    carried = {(id(each.tensor), each.axis): each for each in group.members if each.role == "activation"}
    found: dict[Reading, Member] = {}
    for weight in (each for each in group.members if each.role == "in"):
        for use in sites[id(weight.tensor)].uses:
            if use.graph is not model.graph:
                continue
            try:
                view_of(use)  # has an activation that it multiplies
            except RefusalError:
                continue
            tensor = activation_of(use)
            for (key, axis), member in carried.items():
                if key == id(tensor) and (view := _view(axis, len(shapes.shape(tensor) or ()))) is not None:
                    found[Reading(str(tensor.name), view)] = member
    return found


def _view(axis: int, rank: int) -> View | None:
    """Rows along one axis of a tensor."""
    if axis == rank - 1:
        return LastAxis()
    if axis == rank - 2:
        return Columns()
    if axis == 1 and rank > 2:
        ones = (1,) * (rank - 2)
        return Patches(kernel=ones, strides=ones, pads=(0,) * (2 * len(ones)), dilations=ones)
    return None


def _fold(moment: Array, member: Member) -> Float64Array:
    """Products of units from those of elements: summed over the elements of a unit, [units, units]."""
    total = np.zeros((len(member.indices), len(member.indices)))
    for column in member.indices.T:
        total += moment[np.ix_(column, column)]
    return total
