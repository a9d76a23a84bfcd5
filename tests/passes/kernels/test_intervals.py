import numpy as np

from onnxpress.passes.kernels.intervals import Points, best_cuts


def test_many_rows_are_cut_as_each_alone():
    rng = np.random.default_rng(0)
    rows = [Points(np.sort(rng.standard_normal(size)), rng.random(size) + 0.1) for size in (9, 33, 20)]
    edges = [np.arange(row.value.size + 1) for row in rows]
    together = best_cuts(rows, edges, 4)
    for row, edge, cut in zip(rows, edges, together, strict=True):
        np.testing.assert_array_equal(best_cuts([row], [edge], 4)[0], cut)


def test_cuts_only_between_groups():
    points = Points(np.array([0.0, 0.1, 5.0, 5.1, 9.0]), np.ones(5))
    cut = best_cuts([points], [np.array([0, 3, 4, 5])], 2)[0]
    np.testing.assert_array_equal(cut, [0, 3, 5])
