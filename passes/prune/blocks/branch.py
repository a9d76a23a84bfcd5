"""A residual branch, and how it goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.rewriter.edits import detach, redirect, set_input
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """One operand of a join that can go, with all that computes it alone.

    Attributes:
        name: of its first linear layer.
        join: the Add, or the Mul of a gate.
        index: of the operand.
        nodes: that only the operand needs, in graph order.
        sites: their linear layers.
        constants: that nothing else reads.
        axis: of the operand, along which channels lie.
        dtype: of the operand.
        certain: whether the other operand is known to have the shape of the result; else samples must tell.
    """

    name: str
    join: gs.Node
    index: int
    nodes: tuple[gs.Node, ...]
    sites: tuple[Site, ...]
    constants: tuple[gs.Constant, ...]
    axis: int
    dtype: np.dtype[Any]
    certain: bool

    @property
    def kept(self) -> gs.Tensor:
        """The operand that stays."""
        return self.join.inputs[1 - self.index]

    @property
    def tensor(self) -> gs.Tensor:
        """The operand that can go."""
        return self.join.inputs[self.index]

    @property
    def gate(self) -> bool:
        """Whether the join is a product."""
        return bool(self.join.op == "Mul")

    def holds(self, other: Branch) -> bool:
        """Whether another branch goes with this one."""
        return any(node is other.join for node in self.nodes)


@dataclass(frozen=True, slots=True)
class Refused:
    """A join without a branch that can go: its name, and why."""

    name: str
    reason: str


def remove_branch(model: Model, branch: Branch, stand_in: gs.Constant | None = None) -> None:
    """Take a branch out; the next sweep removes its nodes.

    Args:
        model: holds it.
        branch: that goes.
        stand_in: takes its place in the join; None leaves the other operand alone.
    """
    if stand_in is not None:
        set_input(branch.join, branch.index, stand_in)
        return
    result, kept = branch.join.outputs[0], branch.kept
    redirect(model, model.graph, result, kept)
    detach(branch.join)
