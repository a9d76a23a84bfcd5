"""A model without its weights: an ordinary ModelProto whose large tensors point into a table of values.

Everything that works on messages (reading, writing, cloning, shape inference, inlining) works on a skeleton, whose
size is that of the graph alone. A tensor that stands for entry k of the table carries `external_data`
`{location: MARK, offset: k}`.
"""

from __future__ import annotations

import io
import mmap
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import onnx
from google.protobuf.message import DecodeError, Message

from onnxpress.rewriter import wire
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.external import locate
from onnxpress.rewriter.packed import refuse_packed
from onnxpress.rewriter.weights import LARGE, Source, Stored, Values

MARK = "\x00table"
"""No file can be called so."""


@dataclass(slots=True)
class Skeleton:
    """A ModelProto and the values its marked tensors stand for."""

    proto: onnx.ModelProto
    table: list[Values] = field(default_factory=list)

    def mark(self, tensor: onnx.TensorProto, values: Values) -> None:
        """Let `tensor` stand for `values`."""
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", MARK), ("offset", str(len(self.table)))):
            tensor.external_data.add(key=key, value=value)
        self.table.append(values)

    def values(self, tensor: onnx.TensorProto) -> Values | None:
        """The entry `tensor` stands for, or None if it carries its own content."""
        return self.table[_entry(tensor)] if is_marked(tensor) else None

    def refuse_forged(self) -> None:
        """Refuse a file whose own tensors carry marks: each entry of the table is stood for once, and by one of ours.

        Raises:
            ModelError: names the tensor.
        """
        free = {str(entry) for entry in range(len(self.table))}
        for tensor in filter(is_marked, tensors(self.proto.graph)):
            entries = [each.value for each in tensor.external_data[1:]]
            if len(entries) != 1 or entries[0] not in free:
                raise ModelError(f"tensor '{tensor.name}' names no external file")
            free.discard(entries[0])


def is_marked(tensor: onnx.TensorProto) -> bool:
    """Whether `tensor` stands for an entry of the table."""
    return bool(tensor.external_data) and tensor.external_data[0].value == MARK


def lift(path: Path) -> Skeleton:
    """Read a model file, leaving large weights on disk.

    Raises:
        ModelError: the file is missing, truncated, no ONNX model, or refers to data it must not or that is not there.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file" if not path.exists() else f"{path}: is not a file")
    refuse_packed(path)
    source = Source(path)
    if not source.size:
        raise ModelError(f"{path}: is empty")
    skeleton = Skeleton(onnx.ModelProto())

    def take(buffer: wire.Buffer, start: int, end: int) -> wire.Rope | None:
        return _take_raw(skeleton, source, buffer, start, end)

    try:
        # not closed but dropped: an error on its way out still holds views of the mapping
        buffer = memoryview(mmap.mmap(source.stream.fileno(), 0, access=mmap.ACCESS_READ))
        rope = wire.rewrite(buffer, take, least=LARGE)
        skeleton.proto.ParseFromString(b"".join(part for part in rope.parts if not isinstance(part, tuple)))
        _read_text(skeleton.proto)
        skeleton.refuse_forged()
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{path}: not an ONNX file, or a damaged one: {error}") from error
    _adopt_external(skeleton, path)
    return skeleton


def _read_text(message: Message) -> None:
    """Look at every text of a message: protobuf lets what is no UTF-8 through, and it would fail much later.

    Raises:
        ModelError: one is not.
    """
    for descriptor, value in message.ListFields():
        many = value if descriptor.is_repeated else (value,)
        if descriptor.message_type:
            for each in many:
                _read_text(each)
        elif descriptor.type == descriptor.TYPE_STRING and any(isinstance(each, bytes) for each in many):
            raise ModelError(f"the text of a field '{descriptor.name}' is not UTF-8: the file is damaged")


def sink(skeleton: Skeleton, stream: IO[bytes]) -> None:
    """Write the whole model, one weight in memory at a time.

    Raises:
        ModelError: the file would be over protobuf's 2 GB; save with external data.
    """
    rope = lay_out(skeleton)
    if rope.length >= 1 << 31:
        raise ModelError("the model is over 2 GB: save it with external data")
    rope.write(stream, lambda entry, out: skeleton.table[entry].write(out))


def lay_out(skeleton: Skeleton) -> wire.Rope:
    """The whole model as the pieces of a file, in which weights are only promised."""
    table = skeleton.table

    def put(buffer: wire.Buffer, start: int, end: int) -> wire.Rope | None:
        tensor = onnx.TensorProto.FromString(bytes(buffer[start:end]))
        if not is_marked(tensor):
            return None
        entry = _entry(tensor)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        rope = wire.Rope()
        rope.append(tensor.SerializeToString())
        rope.append(wire.length_tag(wire.RAW_DATA) + wire.varint(table[entry].nbytes))
        rope.promise(entry, table[entry].nbytes)
        return rope

    return wire.rewrite(skeleton.proto.SerializeToString(deterministic=True), put, least=0)


def to_bytes(skeleton: Skeleton) -> bytes:
    """The whole model as bytes; for models well below 2 GB."""
    stream = io.BytesIO()
    sink(skeleton, stream)
    return stream.getvalue()


def _entry(tensor: onnx.TensorProto) -> int:
    return int(tensor.external_data[1].value)


def _take_raw(skeleton: Skeleton, source: Source, buffer: wire.Buffer, start: int, end: int) -> wire.Rope | None:
    """Replace the raw bytes of the TensorProto in `buffer[start:end]` by a mark."""
    raw = [f for f in wire.fields(buffer, start, end) if f.number == wire.RAW_DATA]
    if len(raw) != 1 or raw[0].end - raw[0].value < LARGE:
        return None
    rest = bytes(buffer[start : raw[0].start]) + bytes(buffer[raw[0].end : end])
    tensor = onnx.TensorProto.FromString(rest)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ModelError(f"tensor '{tensor.name}' is both inside the file and outside of it")
    values = Stored(_dims(tensor), tensor.data_type, source, raw[0].value)
    if values.nbytes != raw[0].end - raw[0].value:
        raise ModelError(
            f"tensor '{tensor.name}' of shape {list(tensor.dims)} needs {values.nbytes} bytes, "
            f"the file holds {raw[0].end - raw[0].value}"
        )
    skeleton.mark(tensor, values)
    rope = wire.Rope()
    rope.append(tensor.SerializeToString())
    return rope


def _adopt_external(skeleton: Skeleton, path: Path) -> None:
    """Turn references to files beside the model into entries of the table."""
    sources: dict[Path, Source] = {}
    for tensor in tensors(skeleton.proto.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL or is_marked(tensor):
            continue
        keys = {each.key: each.value for each in tensor.external_data}
        try:
            file = locate(path.parent, keys.get("location", ""))
            offset, length = int(keys.get("offset", 0)), int(keys.get("length", -1))
        except ModelError as error:
            raise ModelError(f"{path}: tensor '{tensor.name}': {error}") from error
        except ValueError as error:
            raise ModelError(
                f"{path}: tensor '{tensor.name}' lies at '{keys.get('offset')}' with length '{keys.get('length')}', "
                "which are no numbers: the file is damaged"
            ) from error
        source = sources.get(file) or sources.setdefault(file, Source(file))
        try:
            values = Stored(_dims(tensor), tensor.data_type, source, offset)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error
        if length not in (-1, values.nbytes) or offset < 0 or offset + values.nbytes > source.size:
            raise ModelError(
                f"{path}: tensor '{tensor.name}' of shape {list(tensor.dims)} needs {values.nbytes} bytes at {offset} "
                f"of {file.name}, which has {source.size}: the file is damaged or belongs to another model"
            )
        tensor.ClearField("external_data")
        skeleton.mark(tensor, values)


def _dims(tensor: onnx.TensorProto) -> tuple[int, ...]:
    if any(d < 0 for d in tensor.dims):
        raise ModelError(f"tensor '{tensor.name}' has a negative size: {list(tensor.dims)}")
    if tensor.data_type == onnx.TensorProto.STRING:  # bytes of a file would be taken for pointers to Python objects
        raise ModelError(f"tensor '{tensor.name}' is of text, which has no raw form: export the model again")
    return tuple(tensor.dims)


def tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """All tensors of a graph and its subgraphs: initializers and attributes."""
    found = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                found.append(attribute.t)
            elif attribute.type == onnx.AttributeProto.GRAPH:
                found.extend(tensors(attribute.g))
    return found
