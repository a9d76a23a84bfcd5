"""Threads of linear algebra, by the size of the matrices."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from onnxpress.passes.threads import WIDE, threads_for


def used():
    return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}


@pytest.mark.parametrize(("width", "threads"), [(WIDE - 1, {1}), (WIDE, {2})])
def test_small_systems_get_one_thread(width, threads):
    np.linalg.inv(np.eye(2))  # so that the library is there
    with threadpool_limits(2, user_api="blas"):
        with threads_for(width):
            assert used() == threads
        assert used() == {2}
