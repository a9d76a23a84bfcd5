import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.rewriter import wire
from onnxpress.rewriter.errors import ModelError


@given(st.integers(0, 2**63 - 1), st.integers(1, 1000))
def test_reads_back_the_fields_it_writes(value: int, number: int) -> None:
    message = wire.varint(number << 3) + wire.varint(value)
    (field,) = wire.fields(message, 0, len(message))
    assert (field.number, field.wire_type, field.end) == (number, 0, len(message))
    assert message[field.value : field.end] == wire.varint(value)


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_one_error(message: bytes) -> None:
    try:
        spans = [(f.start, f.end) for f in wire.fields(message, 0, len(message))]
    except ModelError:
        return
    assert b"".join(message[a:b] for a, b in spans) == message


def test_a_field_longer_than_the_rest_is_truncation() -> None:
    with pytest.raises(ModelError, match="wants 9 bytes, 2 are left"):
        list(wire.fields(wire.length_tag(7) + wire.varint(9) + b"ab", 0, 4))


def test_keeps_small_messages_in_one_slice() -> None:
    message = wire.length_tag(7) + wire.varint(3) + b"\x08\x01\x00"
    rope = wire.rewrite(message, lambda *_: None, least=1000)
    assert rope.parts == [message]
