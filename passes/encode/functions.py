"""The local functions that decode weights: standard operators whose signature is the same from opset 11 on.

ONNX Runtime inlines them and folds their nodes when a session is created, for all their inputs are constant. What it
does not fold (NonZero, Compress, control flow) and what is slow there (Slice) is avoided. Intermediate results stay in
memory until everything is folded, so a function makes few arrays of the size of the weight. They work on every dtype,
so each is stored once, and they combine: one's output may be another's input.

Digits  (divisors [1, k], base) -> [256, k]: the k codes in every possible byte, least significant first.
Codes   (packed, book, digits, shape): k codes of 1, 2 or 4 bits in a byte; a byte picks a row of k values.
Lookup  (codes, book): codes of 8 bits, in the shape of the weight.
Planes  (low, high, book): codes of 3, 5 or 6 bits, whose low and high bits are packed apart and decoded by Codes.
Ranks   (digits of 1 bit): for each byte of a mask its bits, their ranks less their number, and their number.
Mask    (mask, values, zero, bits, ranks, totals, shape): one bit an element; the values of those that are set.
Gaps    (gaps, values, zero, shape): relative indices (Han et al., 2016); their running sum is the flat position.
Widen   (narrow, to=dtype): a narrower floating-point type.
Join    (body, rest, shape): flat parts; for weights that do not fill whole bytes.
Fill    (value, shape): one value throughout.
Blocks  (codes, scale, count, block, axis=a): numbers with a scale for each block of `block` along an axis of `count`.
Offset  (codes, scale, zero, count, block, axis=a): the same with a zero point for each block.
Arrange (rows, sizes, perm=p): a matrix as an array of these sizes with its axes in another order.
Scale   (weight, factors): times one factor for each entry of the last axis.
Channels (codes, books, count, sizes): codes of a byte, by a book for each of `count` channels.
Wide    (low, high): codes of up to 12 bits, of their low byte and what is above.
Placed  (codes, count, end): codes by a book of `count` at each place of a row, as codes by one of `end`.
Vectors (codes, book, shape): codes of sub-vectors, the rows of the book, of which the weight is made in order.
Turned  (codes, book, sizes, perm=p): the same in an array of these sizes, whose axes then come in another order.
Added   (one, other): the sum of two weights.
Step    (jumps, places): beginnings of four times as many Huffman codes, and the table that leads four times as far.
Huffman (stream, blocks, lengths, book, shape): codes of up to 12 bits, the frequent ones short; see huffman.py.

Those of structured weights, in `structures.py`, compute weights from few parameters.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from string import ascii_letters

import onnx

from onnxpress.passes.encode import huffman, structures
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.functions import DECODING_DOMAIN
from onnxpress.rewriter.model import Model

OLDEST_OPSET = 11
"""ScatterElements and CumSum came with it."""
IR_VERSION = 8
"""The first with local functions."""

_BODIES = {
    "Digits": """(divisors, base) => (digits) {
        zero = Constant <value = int32 {0}> ()
        end = Constant <value = int32 {256}> ()
        one = Constant <value = int32 {1}> ()
        column = Constant <value = int64[2] {-1, 1}> ()
        bytes = Range (zero, end, one)
        rows = Reshape (bytes, column)
        parts = Div (rows, divisors)
        digits = Mod (parts, base)
    }""",
    "Codes": """(packed, book, digits, shape) => (W) {
        rows = Gather (book, digits)
        index = Cast <to = 6> (packed)
        picked = Gather (rows, index)
        W = Reshape (picked, shape)
    }""",
    "Lookup": """(codes, book) => (W) {
        index = Cast <to = 6> (codes)
        W = Gather (book, index)
    }""",
    "Planes": """(low, high, book) => (W) {
        ones = Cast <to = 6> (low)
        others = Cast <to = 6> (high)
        index = Add (ones, others)
        W = Gather (book, index)
    }""",
    "Ranks": """(digits) => (bits, ranks, totals) {
        axis = Constant <value = int32 {1}> ()
        last = Constant <value = int32 {7}> ()
        column = Constant <value = int64[2] {-1, 1}> ()
        sums = CumSum (digits, axis)
        totals = Gather <axis = 1> (sums, last)
        most = Reshape (totals, column)
        ranks = Sub (sums, most)
        bits = Cast <to = 9> (digits)
    }""",
    "Mask": """(mask, values, zero, bits, ranks, totals, shape) => (W) {
        none = Constant <value = int32 {0}> ()
        column = Constant <value = int64[2] {-1, 1}> ()
        index = Cast <to = 6> (mask)
        found = Gather (totals, index)
        sums = CumSum (found, none)
        ends = Reshape (sums, column)
        rank = Gather (ranks, index)
        place = Add (rank, ends)
        set = Gather (bits, index)
        which = Where (set, place, none)
        book = Concat <axis = 0> (zero, values)
        picked = Gather (book, which)
        W = Reshape (picked, shape)
    }""",
    "Gaps": """(gaps, values, zero, shape) => (W) {
        axis = Constant <value = int32 {0}> ()
        steps = Cast <to = 6> (gaps)
        places = CumSum (steps, axis)
        count = ReduceProd (shape)
        zeros = Expand (zero, count)
        flat = ScatterElements <axis = 0> (zeros, places, values)
        W = Reshape (flat, shape)
    }""",
    "Widen": """<to> (narrow) => (W) {
        W = Cast <to : int = @to> (narrow)
    }""",
    "Join": """(body, rest, shape) => (W) {
        flat = Concat <axis = 0> (body, rest)
        W = Reshape (flat, shape)
    }""",
    "Fill": """(value, shape) => (W) {
        W = Expand (value, shape)
    }""",
    "Blocks": """<axis> (codes, scale, count, block) => (W) {
        none = Constant <value = int64 {0}> ()
        one = Constant <value = int64 {1}> ()
        places = Range (none, count, one)
        which = Div (places, block)
        wide = Cast <to = 1> (codes)
        steps = Cast <to = 1> (scale)
        step = Gather <axis : int = @axis> (steps, which)
        W = Mul (wide, step)
    }""",
    "Offset": """<axis> (codes, scale, zero, count, block) => (W) {
        none = Constant <value = int64 {0}> ()
        one = Constant <value = int64 {1}> ()
        places = Range (none, count, one)
        which = Div (places, block)
        wide = Cast <to = 1> (codes)
        origins = Cast <to = 1> (zero)
        origin = Gather <axis : int = @axis> (origins, which)
        shifted = Sub (wide, origin)
        steps = Cast <to = 1> (scale)
        step = Gather <axis : int = @axis> (steps, which)
        W = Mul (shifted, step)
    }""",
    "Arrange": """<perm> (rows, sizes) => (W) {
        wide = Reshape (rows, sizes)
        W = Transpose <perm : ints = @perm> (wide)
    }""",
    "Scale": """(weight, factors) => (W) {
        W = Mul (weight, factors)
    }""",
    "Channels": """(codes, books, count, sizes) => (W) {
        none = Constant <value = int32 {0}> ()
        one = Constant <value = int32 {1}> ()
        line = Range (none, count, one)
        channel = Reshape (line, sizes)
        index = Cast <to = 6> (codes)
        row = Mul (index, count)
        place = Add (row, channel)
        W = Gather (books, place)
    }""",
    "Wide": """(low, high) => (codes) {
        base = Constant <value = int32 {256}> ()
        ones = Cast <to = 6> (low)
        digits = Cast <to = 6> (high)
        others = Mul (digits, base)
        codes = Add (ones, others)
    }""",
    "Placed": """(codes, count, end) => (places) {
        none = Constant <value = int32 {0}> ()
        starts = Range (none, end, count)
        index = Cast <to = 6> (codes)
        places = Add (index, starts)
    }""",
    "Vectors": """(codes, book, shape) => (W) {
        index = Cast <to = 6> (codes)
        rows = Gather (book, index)
        W = Reshape (rows, shape)
    }""",
    "Turned": """<perm> (codes, book, sizes) => (W) {
        index = Cast <to = 6> (codes)
        rows = Gather (book, index)
        wide = Reshape (rows, sizes)
        W = Transpose <perm : ints = @perm> (wide)
    }""",
    "Added": """(one, other) => (W) {
        W = Add (one, other)
    }""",
    "Step": huffman.STEP,
    "Huffman": huffman.body(DECODING_DOMAIN),
    **structures.BODIES,
}
_CALLS = {"Huffman": ("Step",)}
"""Functions that a function calls."""


@functools.cache
def _parsed(name: str, opset: int) -> bytes:
    own = f', "{DECODING_DOMAIN}": 1' if name in _CALLS else ""
    text = f'<domain: "{DECODING_DOMAIN}", opset_import: ["": {opset}{own}]> {name} {_BODIES[name]}'
    proto = onnx.parser.parse_function(text)
    _shorten(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def _shorten(proto: onnx.FunctionProto) -> None:
    """Letters for all names, which take their bytes in every file; those most used get one."""
    uses = Counter(name for each in [proto, *proto.node] for name in [*each.input, *each.output])
    letters = short_names()
    short = {name: next(letters) for name, _ in uses.most_common()}
    for each in [proto, *proto.node]:
        each.input[:] = [short[name] for name in each.input]
        each.output[:] = [short[name] for name in each.output]
    for node in proto.node:
        if not node.domain:
            node.ClearField("domain")  # the parser writes the empty ones out
        for each in node.attribute:
            if each.HasField("t"):
                each.t.ClearField("name")


def short_names() -> Iterator[str]:
    """Names of one letter, then of more."""
    yield from ascii_letters
    for name in short_names():
        yield from (name + letter for letter in ascii_letters)


def function(name: str, opset: int) -> onnx.FunctionProto:
    """A decoding function.

    Args:
        name: one of the module's table.
        opset: of the model; ONNX Runtime wants functions to import the same.
    """
    proto = onnx.FunctionProto()
    proto.ParseFromString(_parsed(name, opset))
    return proto


def function_bytes(name: str, opset: int) -> int:
    """What a function adds to a file, with those that it calls, their tags and lengths included."""
    return sum(len(_parsed(each, opset)) + 3 for each in (name, *_CALLS.get(name, ())))


def bring_in(model: Model, name: str) -> None:
    """Let the model have a decoding function, and those that it calls.

    Raises:
        ModelError: it has one of that name that does something else, from another version of onnxpress.
    """
    for each in _CALLS.get(name, ()):
        bring_in(model, each)
    wanted = function(name, model.opset)
    for each in model.functions:
        if (each.domain, each.name) == (DECODING_DOMAIN, name):
            if each.SerializeToString(deterministic=True) != wanted.SerializeToString(deterministic=True):
                raise ModelError(
                    f"the model's function {DECODING_DOMAIN}.{name} is of another version: decode the model first"
                )
            return
    model.header.ir_version = max(model.header.ir_version, IR_VERSION)
    model.import_domain(DECODING_DOMAIN, 1)
    model.functions.append(wanted)
