"""A file without what nobody needs to run the model: long names, notes, shapes that follow from the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import onnx

from onnxpress.passes.base import Pass, Workbench
from onnxpress.passes.idle import WHOLE
from onnxpress.passes.report import Report
from onnxpress.passes.selection import check_flag
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.renaming import shorten_names
from onnxpress.rewriter.rules.constants import share_identical
from onnxpress.rewriter.shapes import Shapes
from onnxpress.rewriter.skeleton import Skeleton, tensors
from onnxpress.rewriter.stripping import drop_defaults, drop_imports, drop_metadata, drop_notes, drop_shapes

Step = Callable[[onnx.ModelProto], int]
"""Rewrites a model in place, and says how many things went."""


@dataclass(frozen=True, kw_only=True)
class Strip(Pass):
    """Make the graph itself small, for files whose weights are small already; what it computes stays the same.

    Names of inputs and outputs stay, as do those inside local functions and the name and version of the exporter. Other
    passes and reports name layers by their nodes, so it comes last, after `encode`.

    Attributes:
        share: store equal constants once, small ones as well.
        names: give tensors inside the model one or two letters, and nodes no name.
        notes: drop doc strings, and the metadata of nodes, tensors and functions.
        metadata: drop the metadata of the model, too, where applications may keep labels.
        shapes: drop types and shapes of tensors that follow from the nodes; what does not stays.
        defaults: drop attributes that state what the operator does anyway.
        imports: drop local functions that nothing calls, and imports of domains that nothing uses.
    """

    name: ClassVar[str] = "strip"
    share: bool = True
    names: bool = True
    notes: bool = True
    metadata: bool = False
    shapes: bool = True
    defaults: bool = True
    imports: bool = True

    def __post_init__(self) -> None:
        """Check the options."""
        for option in self.options():
            check_flag(self, option)

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Take out one kind of thing after the other, and count the bytes of each."""
        report, size = self.report(), _size(model.skeleton())
        if self.share and (shared := len(share_identical(model, Shapes(), least=1).done)):
            sweep(model)
            size = _tell(report, f"{shared} constants equal to others are stored once", size, model.skeleton())
        skeleton = model.skeleton()
        before = _written(skeleton)
        for wanted, step, what in self._steps():
            if wanted and (count := step(skeleton.proto)):
                size = _tell(report, what.format(count), size, skeleton)
        if self.names and skeleton.proto.training_info:
            report.skip(WHOLE, "names stay: its training information refers to weights by name")
        if report.changes:
            model.reset(skeleton)
            report.renamed = {new: old for new, old in zip(_written(skeleton), before, strict=True) if new != old}
        elif not report.skips:
            report.skip(WHOLE, "there is nothing left to take out")
        return report

    def _steps(self) -> list[tuple[bool, Step, str]]:
        """What is done, in order: shapes are told apart by names, and functions go before their notes."""
        return [
            (self.imports, drop_imports, "{} unused functions and imports dropped"),
            (self.notes, drop_notes, "{} doc strings and notes dropped"),
            (self.metadata, drop_metadata, "{} entries of metadata dropped"),
            (self.defaults, drop_defaults, "{} attributes that state a default dropped"),
            (self.shapes, drop_shapes, "{} declared shapes dropped that follow from the nodes"),
            (self.names, shorten_names, "{} names shortened or dropped"),
        ]


def _written(skeleton: Skeleton) -> list[str]:
    """What the nodes of the main graph write, in order."""
    return [name for node in skeleton.proto.graph.node for name in node.output]


def _tell(report: Report, action: str, before: int, skeleton: Skeleton) -> int:
    """Record a step; gives the bytes that are left."""
    after = _size(skeleton)
    report.change(WHOLE, action, bytes_before=before, bytes_after=after)
    return after


def _size(skeleton: Skeleton) -> int:
    """Bytes of a model, the framing of its large weights apart."""
    marks = sum(each.ByteSize() for tensor in tensors(skeleton.proto.graph) for each in tensor.external_data)
    return int(skeleton.proto.ByteSize() - marks + sum(values.nbytes for values in skeleton.table))
