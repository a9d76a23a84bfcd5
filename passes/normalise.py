"""Bring an export into the one form that all other passes expect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from onnxpress.passes.base import Pass, Workbench
from onnxpress.passes.report import Report
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.functions import inline_functions
from onnxpress.rewriter.invariants import check_operators
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.rules.activations import name_activations
from onnxpress.rewriter.rules.affine import fold_affine
from onnxpress.rewriter.rules.branches import choose_branches
from onnxpress.rewriter.rules.constants import constant_nodes_to_initializers, fix_defaults, share_identical
from onnxpress.rewriter.rules.folding import fold_constants, fold_shapes
from onnxpress.rewriter.rules.layout import cancel_transposes
from onnxpress.rewriter.rules.noops import remove_noops
from onnxpress.rewriter.rules.outcome import Outcome
from onnxpress.rewriter.rules.padding import fold_padding
from onnxpress.rewriter.shapes import Shapes, infer_shapes

Rule = Callable[[Model, Shapes], Outcome]

ROUNDS = 5
"""Rules open the way for each other; real exports are done after two or three rounds."""


@dataclass(frozen=True, kw_only=True)
class Normalise(Pass):
    """Rewrite a model without changing what it computes.

    Weights in Constant nodes or behind Cast, Identity or Transpose become initializers, constants and fixed sizes
    fold, branches that always run take the place of their If, Transposes cancel, BatchNormalization (also as Sub, Mul,
    Add) goes into the layer before it, equal weights are stored once, and what does nothing goes.

    Attributes:
        fix_defaults: make weights that are listed as optional graph inputs constant.
        inline_functions: write local functions out.
        cancel_transposes: move Transposes until they cancel.
        fold_affine: fold BatchNormalization, its written-out forms, and Pads of zeros.
        name_activations: replace a written-out HardSigmoid or HardSwish by the operator.
        share_identical: store equal weights once.
    """

    name: ClassVar[str] = "normalise"
    fix_defaults: bool = True
    inline_functions: bool = True
    cancel_transposes: bool = True
    fold_affine: bool = True
    name_activations: bool = True
    share_identical: bool = True

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Apply the rules in turn until none has anything to do.

        Raises:
            ModelError: a node is none that the model's opset knows.
        """
        check_operators(model)
        report, before, nodes = self.report(), model.weight_bytes(), len(model.graph.nodes)
        total = Outcome()
        if self.inline_functions:
            _add(total, inline_functions(model))
        if self.fix_defaults:
            _add(total, fix_defaults(model))
        left: dict[str, list[tuple[str, str]]] = {}
        for _ in range(ROUNDS):
            if not self._round(model, total, left):
                break
        for what, count in total.counts.items():
            report.change("graph", f"{count} {what}")
        if len(model.graph.nodes) != nodes:
            report.change("graph", f"{nodes} nodes became {len(model.graph.nodes)}")
        for site, action in total.done:
            report.change(site, action)
        for site, reason in [each for of_rule in left.values() for each in of_rule]:
            report.skip(site, reason)
        _warn_of_growth(report, before, model.weight_bytes())
        return report

    def _round(self, model: Model, total: Outcome, left: dict[str, list[tuple[str, str]]]) -> bool:
        """Apply each rule once; tells whether any did something."""
        shapes, busy = infer_shapes(model), False
        for rule in self._rules():
            outcome = rule(model, shapes)
            _add(total, outcome)
            left[rule.__name__] = outcome.left
            if outcome:
                sweep(model)
                shapes, busy = infer_shapes(model), True
        return sweep(model) > 0 or busy

    def _rules(self) -> list[Rule]:
        rules: list[Rule] = [constant_nodes_to_initializers, fold_constants, fold_shapes]
        rules += [choose_branches, remove_noops]
        optional: list[tuple[bool, Rule]] = [
            (self.cancel_transposes, cancel_transposes),
            (self.fold_affine, fold_padding),
            (self.fold_affine, fold_affine),
            (self.name_activations, name_activations),
            (self.share_identical, share_identical),
        ]
        return rules + [rule for wanted, rule in optional if wanted]


def _add(total: Outcome, outcome: Outcome) -> None:
    total.done.extend(outcome.done)
    total.counts.update(outcome.counts)


def _warn_of_growth(report: Report, before: int, after: int) -> None:
    if after > before * 1.01 + 1024:
        report.warnings.append(
            f"normalised weights take {after:,} bytes, {before:,} before: what was computed from smaller constants "
            "while running is stored now; a later pass can make it small again"
        )
