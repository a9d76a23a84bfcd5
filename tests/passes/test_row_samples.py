"""Rows that are kept."""

import numpy as np

from onnxpress.passes.row_samples import Collector

DRAW = np.random.default_rng(0)
PLENTY = 1 << 20


def array(*shape):
    return DRAW.standard_normal(shape).astype(np.float32)


def test_keeps_rows_with_their_outputs():
    collector, weight = Collector(PLENTY), array(2, 3, 5)
    for count in (40, 20):
        rows = array(2, count, 5)
        outputs = rows @ weight.transpose(0, 2, 1)
        collector.add(rows, [outputs, array(2, count, 1)], [outputs + 1, None])
    first, second = collector.rows(0), collector.rows(1)
    assert [each.inputs.shape for each in first] == [each.inputs.shape for each in second] == [(2, 40, 5), (2, 20, 5)]
    for each in first:
        # float32 products of 5 inputs
        np.testing.assert_allclose(each.product(weight.reshape(6, 5)), each.outputs, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(each.added, each.outputs + 1, rtol=1e-6)
    assert [(each.outputs.shape, each.added) for each in second] == [((40, 2), None), ((20, 2), None)]


def test_keeps_an_even_part_where_there_are_too_many():
    collector = Collector(4 * (1 + 1) * 50)
    for start in range(0, 400, 10):
        rows = np.arange(start, start + 10, dtype=np.float32).reshape(1, 10, 1)
        collector.add(rows, [rows], [None])
    kept = np.concatenate([each.inputs[0, :, 0] for each in collector.rows(0)])
    np.testing.assert_array_equal(kept, np.arange(0, 400, 8))


def test_batches_of_a_single_row_are_thinned_too():
    collector = Collector(4 * (1 + 1) * 4)
    for number in range(16):
        rows = np.full((1, 1, 1), number, np.float32)
        collector.add(rows, [rows], [rows])
    assert [float(each.added[0, 0]) for each in collector.rows(0)] == [0, 8]


def test_nothing_is_kept_of_nothing():
    assert Collector(PLENTY).rows(0) == ()
