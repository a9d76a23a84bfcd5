"""Bodies of the functions that compute structured weights from their parameters; see passes/structure.

Circulant (columns, block, sizes): blocks [p, q, b] of first columns as the matrix [p·b, q·b].
Spectra   (columns, basis, pairs, sizes): the same blocks by frequencies, [b/2, 2q, 2p].
Displaced (circulant, skew, height, count, wide, tall, flat): sums of products of circulant and skew-circulant matrices.
Signs     (powers, count): the matrix of Hadamard, 1 and −1, [n, n].
Fastfood  (scale, middle, places, signs, top, first, second, parts, whole, flat): S·H·G·Π·H·B of several blocks, of
          whose first matrix only the rows `top` are taken; the second is applied as a product of two smaller ones.
Cosine    (count, step, root, first): the discrete cosine transform, [n, n].
Diagonal  (rows, diagonal, matrix): rows times a diagonal and a matrix.
Cut       (wide, rows, columns): the first rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

BODIES: Mapping[str, str] = MappingProxyType(
    {
        "Circulant": """(columns, block, sizes) => (W) {
        zero = Constant <value = int32 {0}> ()
        one = Constant <value = int32 {1}> ()
        column = Constant <value = int64[2] {-1, 1}> ()
        line = Range (zero, block, one)
        down = Reshape (line, column)
        steps = Sub (down, line)
        places = Mod (steps, block)
        blocks = Gather <axis = 2> (columns, places)
        turned = Transpose <perm = [0, 2, 1, 3]> (blocks)
        W = Reshape (turned, sizes)
    }""",
        "Spectra": """(columns, basis, pairs, sizes) => (K) {
        spectra = MatMul (columns, basis)
        apart = Reshape (spectra, pairs)
        turned = Transpose <perm = [2, 1, 3, 0, 4]> (apart)
        K = Reshape (turned, sizes)
    }""",
        "Displaced": """(circulant, skew, height, count, wide, tall, flat) => (W) {
        zero = Constant <value = int32 {0}> ()
        one = Constant <value = int32 {1}> ()
        column = Constant <value = int64[2] {-1, 1}> ()
        line = Range (zero, count, one)
        top = Range (zero, height, one)
        down = Reshape (top, column)
        steps = Sub (down, line)
        places = Mod (steps, count)
        parts = Gather <axis = 2> (circulant, places)
        turned = Transpose <perm = [0, 2, 1, 3]> (parts)
        left = Reshape (turned, wide)
        whole = Reshape (line, column)
        apart = Sub (whole, line)
        others = Mod (apart, count)
        plain = Gather <axis = 2> (skew, others)
        minus = Neg (plain)
        above = Less (apart, zero)
        signed = Where (above, minus, plain)
        right = Reshape (signed, tall)
        both = MatMul (left, right)
        W = Reshape (both, flat)
    }""",
        "Signs": """(powers, count) => (H) {
        zero = Constant <value = int32 {0}> ()
        one = Constant <value = int32 {1}> ()
        base = Constant <value = int32 {2}> ()
        unit = Constant <value = float {1.0}> ()
        two = Constant <value = float {2.0}> ()
        column = Constant <value = int64[2] {-1, 1}> ()
        line = Range (zero, count, one)
        down = Reshape (line, column)
        parts = Div (down, powers)
        digits = Mod (parts, base)
        wide = Cast <to = 1> (digits)
        turned = Transpose <perm = [1, 0]> (wide)
        common = MatMul (wide, turned)
        odd = Mod <fmod = 1> (common, two)
        twice = Mul (odd, two)
        H = Sub (unit, twice)
    }""",
        "Fastfood": """(scale, middle, places, signs, top, first, second, parts, whole, flat) => (W) {
        index = Cast <to = 6> (places)
        begun = Mul (top, middle)
        moved = Gather <axis = 2> (begun, index)
        cut = Reshape (moved, parts)
        once = MatMul (first, cut)
        twice = MatMul (once, second)
        mixed = Reshape (twice, whole)
        signed = Mul (mixed, signs)
        scaled = Mul (signed, scale)
        W = Reshape (scaled, flat)
    }""",
        "Cosine": """(count, step, root, first) => (C) {
        zero = Constant <value = int32 {0}> ()
        one = Constant <value = int32 {1}> ()
        two = Constant <value = int32 {2}> ()
        four = Constant <value = int32 {4}> ()
        column = Constant <value = int64[2] {-1, 1}> ()
        line = Range (zero, count, one)
        down = Reshape (line, column)
        even = Mul (line, two)
        odd = Add (even, one)
        steps = Mul (down, odd)
        period = Mul (count, four)
        within = Mod (steps, period)
        turns = Cast <to = 1> (within)
        angle = Mul (turns, step)
        wave = Cos (angle)
        scaled = Mul (wave, root)
        constant = Equal (down, zero)
        C = Where (constant, first, scaled)
    }""",
        "Diagonal": """(rows, diagonal, matrix) => (W) {
        scaled = Mul (rows, diagonal)
        W = MatMul (scaled, matrix)
    }""",
        "Cut": """(wide, rows, columns) => (W) {
        none = Constant <value = int64 {0}> ()
        one = Constant <value = int64 {1}> ()
        down = Range (none, rows, one)
        across = Range (none, columns, one)
        tall = Gather <axis = 0> (wide, down)
        W = Gather <axis = 1> (tall, across)
    }""",
    }
)
