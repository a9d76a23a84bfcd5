"""Local functions are written out where they are called, so that passes see what is inside."""

from __future__ import annotations

import onnx.inliner

from onnxpress.rewriter.model import Model
from onnxpress.rewriter.rules.outcome import Outcome

DECODING_DOMAIN = "press"
"""Domain of the functions that decode weights; they stay, for inlining them would undo the encoding.

Short, for every call of a function repeats it.
"""


def inline_functions(model: Model) -> Outcome:
    """Inline all local functions but those that decode weights."""
    outcome = Outcome()
    own = [(f.domain, f.name) for f in model.functions if f.domain == DECODING_DOMAIN]
    others = len(model.functions) - len(own)
    if others:
        skeleton = model.skeleton()
        skeleton.proto.CopyFrom(onnx.inliner.inline_selected_functions(skeleton.proto, own, exclude=True))
        model.reset(skeleton)
        outcome.counts["local functions inlined"] += others
    return outcome
