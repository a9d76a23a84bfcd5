"""Taking units out of a model: constants are sliced, nodes amended, declared shapes corrected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.rewriter.completion import complete
from onnxpress.rewriter.couplings.amendment import Amendment, Plan
from onnxpress.rewriter.couplings.engine import rule_of
from onnxpress.rewriter.couplings.groups import Group, Member
from onnxpress.rewriter.couplings.ledger import IntArray
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.shapes import infer_shapes
from onnxpress.rewriter.walk import nodes
from onnxpress.rewriter.weights import Array, Dense, Produced, Values, values_of

LAZY = 1 << 20
"""Bytes from which a weight that lies on disk is sliced when it is read."""


def remove_units(model: Model, removed: Mapping[Group, IntArray]) -> None:
    """Take units out of a model, in place; shapes of graph inputs and outputs stay as they are.

    The outputs stay equal if, of each removed unit, all weights that read it (role `in`) are zero. The groups are worn
    out afterwards: find them anew.

    Args:
        model: in which the groups were found.
        removed: by group, the numbers of the units to go.

    Raises:
        ModelError: a group is frozen, or would lose all units; a number is no unit's; or the groups were found in
            another model, or before units were removed from this one. The model is as it was.
    """
    chosen = {group: _checked(group, np.asarray(units)) for group, units in removed.items()}
    chosen = {group: units for group, units in chosen.items() if units.size}
    if not chosen:
        return
    check_groups(model, chosen)
    plan = Plan(_axes(chosen), complete(model, infer_shapes(model)))
    touched = plan.tensors
    for graph, node in list(nodes(model.graph)):
        rule = rule_of(node)
        if rule is not None and rule.amend is not None and any(id(t) in touched for t in _touched(node)):
            rule.amend(Amendment(node, model, graph, plan))
    by_tensor: dict[int, tuple[gs.Tensor, dict[int, IntArray]]] = {}
    for (_, axis), (tensor, _, kept) in plan.axes.items():
        by_tensor.setdefault(id(tensor), (tensor, {}))[1][axis] = kept
    for tensor, axes in by_tensor.values():
        if isinstance(tensor, gs.Constant):
            model.replace_weight(tensor, slice_values(values_of(tensor), axes))
            tensor.__dict__.pop("declared", None)  # it tells the old shape
        elif tensor.shape is not None:
            # also where a name was declared, which other tensors may have that stay as they are
            tensor.shape = [len(axes[axis]) if axis in axes else size for axis, size in enumerate(tensor.shape)]


def slice_values(values: Values, axes: Mapping[int, IntArray]) -> Values:
    """What stays of a constant.

    Args:
        values: of the whole.
        axes: by axis, the indices that stay.
    """
    shape = tuple(len(axes[axis]) if axis in axes else size for axis, size in enumerate(values.shape))

    def take() -> Array:
        array = values.load()
        for axis, kept in axes.items():
            array = np.take(array, kept, axis)
        return array

    # an array in memory would stay there, whole, behind the promise
    if values.nbytes >= LAZY and not isinstance(values, Dense):
        return Produced(shape, values.dtype, take)
    return Dense(take())


def _checked(group: Group, units: IntArray) -> IntArray:
    """The units to go, each once."""
    if units.size and (units.dtype.kind not in "iu" or units.min() < 0 or units.max() >= group.size):
        raise ModelError(
            f"'{group.name}' has {group.size} units, numbered from 0: {units.tolist()[:8]} are not all of them"
        )
    once = np.unique(units).astype(np.int64)
    if once.size and group.frozen is not None:
        raise ModelError(f"no unit of '{group.name}' can go: {group.frozen}")
    if once.size >= group.size:
        raise ModelError(f"all {group.size} units of '{group.name}' would go: keep at least one")
    return once


def check_groups(model: Model, groups: Iterable[Group]) -> None:
    """Refuse groups that were found in another model, or before units were removed from this one.

    Raises:
        ModelError: names the group.
    """
    present = {id(t): t for _, node in nodes(model.graph) for t in _touched(node)}
    for group in groups:
        for member in group.members:
            if id(member.tensor) not in present or not _fits(member):
                raise ModelError(f"'{group.name}' does not fit the model any more: find its couplings again")


def _fits(member: Member) -> bool:
    return not isinstance(member.tensor, gs.Constant) or values_of(member.tensor).shape[member.axis] == member.size


def _axes(chosen: Mapping[Group, IntArray]) -> dict[tuple[int, int], tuple[gs.Tensor, int, IntArray]]:
    stays: dict[tuple[int, int], tuple[gs.Tensor, np.ndarray]] = {}
    for group, units in chosen.items():
        for member in group.members:
            mask = stays.setdefault((id(member.tensor), member.axis), (member.tensor, np.ones(member.size, np.bool_)))[
                1
            ]
            mask[member.indices[units].reshape(-1)] = False
    return {key: (tensor, mask.size, np.flatnonzero(mask)) for key, (tensor, mask) in stays.items()}


def _touched(node: gs.Node) -> list[gs.Tensor]:
    ends = [t for g in node.attrs.values() if isinstance(g, gs.Graph) for t in [*g.inputs, *g.outputs]]
    return [*node.inputs, *node.outputs, *ends]
