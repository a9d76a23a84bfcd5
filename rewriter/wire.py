"""The protobuf wire format of ONNX, so that weights never pass through a protobuf message.

Loading takes the large `raw_data` fields out and leaves them on disk; saving puts the weights in while it writes.
Both are one recursive rewrite of the length-delimited fields that lead to a TensorProto.
Format: https://protobuf.dev/programming-guides/encoding; field numbers: onnx.proto.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

from onnxpress.rewriter.errors import ModelError

Buffer = bytes | memoryview

# message -> {field number: message}: the ways from a model down to its tensors.
_PATHS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph"},
    "Graph": {1: "Node", 5: "Tensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph"},
}
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
DEEPEST = 100
"""Messages inside each other that protobuf reads at most."""
RAW_DATA = 9


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message: its number, wire type, where it starts, and where its value lies."""

    number: int
    wire_type: int
    start: int
    value: int
    end: int


@dataclass(slots=True)
class Rope:
    """Bytes in order, some of them only promised: a part is bytes, or the index of a weight and its length."""

    parts: list[Buffer | tuple[int, int]] = field(default_factory=list)
    length: int = 0

    def append(self, part: Buffer) -> None:
        """Add bytes."""
        self.parts.append(part)
        self.length += len(part)

    def promise(self, index: int, length: int) -> None:
        """Add `length` bytes that weight `index` will give when the rope is written."""
        self.parts.append((index, length))
        self.length += length

    def nest(self, tag: Buffer, inner: Rope) -> None:
        """Add `inner` as a length-delimited field."""
        self.append(tag)
        self.append(varint(inner.length))
        self.parts.extend(inner.parts)
        self.length += inner.length

    def write(self, stream: IO[bytes], weigh: Callable[[int, IO[bytes]], None]) -> None:
        """Write the parts; `weigh(index, stream)` writes a promised weight."""
        for part in self.parts:
            if isinstance(part, tuple):
                weigh(part[0], stream)
            else:
                stream.write(part)


OnTensor = Callable[[Buffer, int, int], Rope | None]
"""Given a buffer and the span of a TensorProto in it, what replaces it; None keeps it."""


def varint(value: int) -> bytes:
    """Encode a non-negative integer, seven bits a byte, low bits first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def length_tag(number: int) -> bytes:
    """The tag of a length-delimited field."""
    return varint(number << 3 | _LENGTH)


def fields(buffer: Buffer, start: int, end: int) -> Iterator[Field]:
    """The fields of the message in `buffer[start:end]`.

    Raises:
        ModelError: the bytes are no protobuf message, or end too early.
    """
    position = start
    while position < end:
        tag, value = _read_varint(buffer, position, end)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise ModelError(f"not an ONNX file: no field starts at byte {position}")
        if wire_type == _LENGTH:
            length, value = _read_varint(buffer, value, end)
            stop = value + length
        elif wire_type == _VARINT:
            stop = _read_varint(buffer, value, end)[1]
        elif wire_type in (_FIXED64, _FIXED32):
            stop = value + (8 if wire_type == _FIXED64 else 4)
        else:
            raise ModelError(f"not an ONNX file: unknown wire type {wire_type} at byte {position}")
        if stop > end:
            raise ModelError(
                f"truncated or not an ONNX file: the field at byte {position} wants {stop - value} bytes, "
                f"{end - value} are left"
            )
        yield Field(number, wire_type, position, value, stop)
        position = stop


def rewrite(
    buffer: Buffer,
    on_tensor: OnTensor,
    *,
    least: int,
    span: tuple[int, int] | None = None,
    message: str = "Model",
    depth: int = 0,
) -> Rope:
    """Copy a message with its tensors replaced by what `on_tensor` gives for them.

    Args:
        buffer: holds the message.
        on_tensor: called with each TensorProto of at least `least` bytes.
        least: messages with fewer bytes are copied unread.
        span: where in `buffer` the message lies; all of it by default.
        message: its type.
        depth: messages around it.

    Raises:
        ModelError: the bytes are no protobuf message, end too early, or nest deeper than protobuf reads.
    """
    if depth > DEEPEST:
        raise ModelError(f"not an ONNX file: more than {DEEPEST} messages lie inside each other")
    start, end = span or (0, len(buffer))
    paths, out = _PATHS[message], Rope()
    pending = start  # fields kept as they are go out in one slice
    for each in fields(buffer, start, end):
        inner = paths.get(each.number) if each.wire_type == _LENGTH else None
        if inner is None or each.end - each.value < least:
            continue
        if inner == "Tensor":
            new = on_tensor(buffer, each.value, each.end)
        else:
            new = rewrite(buffer, on_tensor, least=least, span=(each.value, each.end), message=inner, depth=depth + 1)
        if new is not None:
            out.append(buffer[pending : each.start])
            out.nest(length_tag(each.number), new)
            pending = each.end
    out.append(buffer[pending:end])
    return out


def _read_varint(buffer: Buffer, position: int, end: int) -> tuple[int, int]:
    result = shift = 0
    while position < end and shift < 70:
        byte = buffer[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
    raise ModelError(f"truncated or not an ONNX file: no whole number at byte {position}")
