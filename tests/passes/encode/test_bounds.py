"""Bytes of encoded tensors beside what they must take at least."""

import numpy as np
import pytest

from onnxpress.passes.encode.costs import cost
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.encode.options import options
from onnxpress.passes.encode.plans import MOST_DISTINCT, Facts, Plan
from onnxpress.passes.kernels.packing import survey

SIZE = 400  # 160,000 weights


def facts(array):
    return Facts(array.shape, array.dtype, survey(array, limit=MOST_DISTINCT), (), array.nbytes)


def entropy_bytes(array):
    share = np.unique(array, return_counts=True)[1] / array.size
    return -(share * np.log2(share)).sum() * array.size / 8


def saved_bytes(model, path):
    model.save(path)
    return path.stat().st_size


def rounded(kind, scale, *, side=SIZE):
    """Weights rounded to multiples of one step: the coarser, the lower the entropy."""
    steps = np.round(getattr(np.random.default_rng(0), kind)(size=(side, side)) * scale)
    return (np.clip(steps, -100, 100) + 0.0).astype(np.float32)  # no -0.0


@pytest.mark.parametrize("scale", [1.3, 2, 3, 5, 10, 20])
@pytest.mark.parametrize("kind", ["normal", "laplace"])
def test_huffman_codes_take_five_percent_more_than_the_entropy_at_most(kind, scale):
    array = rounded(kind, scale)
    assert entropy_bytes(array) < cost(facts(array), Plan("plain", "huffman"))[0] <= 1.05 * entropy_bytes(array)


@pytest.mark.parametrize("scale", [0.3, 0.4, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("kind", ["normal", "laplace"])
def test_few_values_of_low_entropy_are_coded_in_pairs_where_that_takes_less(make_model, tmp_path, kind, scale):
    array = rounded(kind, scale)
    result = Encode(measure=False)(make_model({"w": array}))
    shared = sum(f.ByteSize() for f in result.model.functions)
    size = saved_bytes(result.model, tmp_path / "model.onnx") - shared
    assert entropy_bytes(array) < size <= 1.05 * entropy_bytes(array) + 700  # names, books, the rest of the model


@pytest.mark.parametrize("density", [0.05, 0.1, 0.2, 0.4])
def test_the_best_plan_of_a_sparse_tensor_takes_five_percent_more_than_the_entropy_at_most(density):
    random = np.random.default_rng(0)
    # 15 values, of two-sided exponential frequencies, as sharing leaves them
    values = random.choice(15, (SIZE, SIZE), p=(share := 0.7 ** np.abs(np.arange(15) - 7)) / share.sum()) + 1
    array = np.where(random.random(values.shape) < density, values, 0).astype(np.float32)
    best = min(options(facts(array)), key=lambda each: each.nbytes)
    assert best.plan.coding == "huffman"
    assert entropy_bytes(array) < best.nbytes <= 1.05 * entropy_bytes(array) + 300  # names, and the books


@pytest.mark.parametrize("bits", range(1, 9))
def test_packed_codes_take_one_percent_more_than_their_bits_at_most(make_model, tmp_path, bits):
    random = np.random.default_rng(bits)
    array = random.integers(0, 1 << bits, (SIZE, SIZE)).astype(np.float32) + 1
    bound = array.size * bits / 8
    assert bound < cost(facts(array), Plan("plain", bits))[0] <= 1.01 * bound + 4 * (1 << bits)
    wide = np.tile(array, (1, 4))
    result = Encode(huffman=False, measure=False)(make_model({"w": wide}))
    assert [c.action for c in result.report.changes] == [f"codes of {bits} bit{'s' * (bits > 1)}"]
    # everything counts: functions, names and the book of all values
    assert saved_bytes(result.model, tmp_path / "model.onnx") <= 1.01 * 4 * bound + 2000
