"""What loading an encoded weight would take beyond what it takes dense: memory and seconds.

Both as measured with ONNX Runtime 1.32 on one core of a server with AVX2 (EPYC), weights of 256 to 4 million elements.
There an estimate of seconds was 0.8 to 2 times what was measured (more for gaps with few values, which take next to
nothing). Another machine has seconds of its own; `Encode` reports what it measured beside the estimate.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnxpress.passes.encode.costs import coded, step_frequencies, value_frequencies
from onnxpress.passes.encode.plans import HUFFMAN, PLANES, Facts, Plan, stream_unit

_MASK, _GAPS, _SIMPLE = 36, 16, 8
_PLANES = {1: 8, 2: 24, 3: 40}
"""Bytes of memory for each element; for each part that codes are packed in."""
_BIT, _SYMBOL, _LISTED = 110, 48, 100
"""The same for each bit of a stream of Huffman codes, for each symbol of it, and for those of sparse weights."""

_MASK_TIME, _SIMPLE_TIME = 22e-9, 9e-9
_PLANES_TIME = {1: 4e-9, 2: 14e-9, 3: 24e-9}
"""Seconds for each element; for each part that codes are packed in."""
_BIT_TIME = 75e-9
"""Seconds for each bit of a stream of Huffman codes."""
CALL_TIME, HUFFMAN_TIME = 0.25e-3, 3.5e-3
"""Seconds to inline and fold the nodes of a decoding function, and those of a stream of Huffman codes."""


@dataclass(frozen=True, slots=True)
class Load:
    """What loading takes beyond what the dense weight takes.

    Attributes:
        nbytes: of memory.
        seconds: until a session is there.
        bits: of the longest stream of Huffman codes.
    """

    nbytes: int = 0
    seconds: float = 0.0
    bits: int = 0


def load(facts: Facts, plan: Plan) -> Load:
    """What ONNX Runtime takes to decode a weight."""
    if plan.layout == "sparse":
        return Load()
    parts = len(PLANES[plan.coding]) if isinstance(plan.coding, int) else 0
    sparse = {"mask": _MASK, "plain": _SIMPLE, "fill": _SIMPLE}.get(plan.layout, _GAPS)
    memory = max(sparse, _PLANES.get(parts, _SIMPLE))
    each = max(_MASK_TIME * (plan.layout == "mask"), _SIMPLE_TIME * (plan.step_bits is not None))
    streams = [step_frequencies(facts, plan)] if plan.layout == "gaps" else []
    if plan.coding == HUFFMAN:
        streams.append(value_frequencies(facts, plan))
    bits = [coded(frequencies)[0] for frequencies in streams]
    symbols = sum(int(frequencies.sum()) for frequencies in streams)
    nbytes = _BIT * sum(bits) + (_SYMBOL if plan.layout == "plain" else _LISTED) * symbols
    calls = (plan.layout != "plain") + 2 * max(parts - 1, 0) + (parts > 0) + (stream_unit(plan) > 1)
    seconds = (
        (each + _PLANES_TIME.get(parts, 0.0)) * facts.survey.count
        + _BIT_TIME * sum(bits)
        + CALL_TIME * max(calls, 1)
        + HUFFMAN_TIME * len(streams)
    )
    return Load(memory * facts.survey.count + nbytes, seconds, max(bits, default=0))
