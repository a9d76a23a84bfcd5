"""Making up for errors: better outputs wherever inputs go together, plain rounding where they do not."""

import numpy as np
import pytest

from onnxpress.passes.kernels.binary import binary, residual_binary, ternary
from onnxpress.passes.kernels.compensation import compensated
from onnxpress.passes.kernels.least_squares import error


@pytest.mark.parametrize("groups", [1, 3])
def test_making_up_for_errors_lowers_that_of_the_outputs(correlated, groups):
    weight, normal = correlated(groups)
    book = binary(weight)
    before, after = (
        error(normal, book.values(chosen)) for chosen in (book.choose(weight), compensated(weight, normal.moment, book))
    )
    assert after < 0.75 * before


def test_making_up_for_errors_is_rounding_where_inputs_are_independent(random):
    weight = random.standard_normal((5, 90))
    book = residual_binary(weight, 2)
    found = compensated(weight, np.eye(90)[None], book)
    np.testing.assert_array_equal(found, book.choose(weight))
    unseen = compensated(weight, np.zeros((1, 90, 90)), book)
    np.testing.assert_array_equal(unseen, book.choose(weight))


def test_pruned_weights_stay_so_while_others_make_up(correlated):
    weight, normal = correlated()
    weight[:, ::3] = 0
    for book in (residual_binary(weight, 1, keep_zero=True), ternary(weight)):
        values = book.values(compensated(weight, normal.moment, book))
        assert not values[:, ::3].any()
