import numpy as np

from onnxpress.passes.factorize.schemes.ranks import balanced, rounded_up


def test_other_ranks_keep_as_much_as_the_longest():
    long, short = np.array([3.0, 2.0, 1.0, 0.5]), np.array([3.0, 1.0, 1.0])
    assert balanced((short, long), 1) == (1, 1)
    assert balanced((short, long), 2) == (3, 2)  # 13 of 14.25: two of the short keep 10 of 11, which is less
    assert balanced((short, long), 9) == (3, 4)


def test_zeros_keep_everything_at_once():
    assert balanced((np.zeros(3), np.zeros(4)), 2) == (1, 2)


def test_multiples_end_at_the_full_rank():
    assert rounded_up((1, 9, 11), (20, 20, 11), 8) == (8, 16, 11)
