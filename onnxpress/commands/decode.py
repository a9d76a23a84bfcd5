"""Write encoded weights out."""

from __future__ import annotations

from onnxpress.arguments import (
    Existing,
    Out,
)
from onnxpress.terminal import say


def decode(model: Existing, output: Out) -> None:
    """Write encoded weights out again, for runtimes that do not fold them."""
    from onnxpress.decoding import decode_file

    decoded, nbytes = decode_file(model, output)
    say(f"wrote {output}, {decoded} weights decoded, {nbytes:,} bytes")
