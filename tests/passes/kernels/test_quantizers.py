import numpy as np
import pytest

from onnxpress.passes.kernels.quantizers import Quantizer, entropy


def test_entropy_of_equal_frequencies_is_their_logarithm():
    assert entropy([5, 5, 0, 5, 5]) == pytest.approx(2)
    assert entropy([7]) == 0


def test_weights_go_where_error_and_length_together_are_least():
    # with price 1 the line between 0 and 2 lies where w² + 1 is (w − 2)² + 3
    found = Quantizer(np.array([0.0, 2.0]), np.array([1.0, 3.0]), 1.0, np.ones(1), None, 0, 0, 0)
    np.testing.assert_array_equal(found.codes(np.array([[-1, 0.9, 1.4], [1.6, 2, 9]])), [[0, 0, 0], [1, 1, 1]])


def test_zeros_that_stay_take_their_value_whatever_it_costs():
    found = Quantizer(np.array([-1.0, 0.0]), np.array([0.1, 9.0]), 1.0, np.ones(1), 1, 0, 0, 0)
    np.testing.assert_array_equal(found.codes(np.array([-1.0, 0.0, -0.0, 0.1])), [0, 1, 1, 0])
