"""Threads of linear algebra, by the size of the matrices."""

import os
import subprocess
import sys
from importlib import import_module

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from onnxpress.passes.threads import WIDE, threads_for


def used():
    return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}


@pytest.mark.parametrize(("width", "threads"), [(WIDE - 1, {1}), (WIDE, {2})])
def test_small_systems_get_one_thread(width, threads):
    import_module("scipy.linalg")  # so that its library is there; NumPy's is
    with threadpool_limits(2, user_api="blas"):
        with threads_for(width):
            assert used() == threads
        assert used() == {2}


def test_a_library_that_is_imported_inside_gets_one_thread_too():
    """SciPy's own, in a fresh interpreter, where nothing has imported it before."""
    script = (
        "from threadpoolctl import threadpool_info\n"
        "from onnxpress.passes.threads import threads_for\n"
        "with threads_for(2):\n"
        "    from scipy.linalg import lapack\n"
        "    print({each['num_threads'] for each in threadpool_info() if each['user_api'] == 'blas'})\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "OPENBLAS_NUM_THREADS": "2"}, capture_output=True, text=True
    )
    assert run.stdout.strip() == "{1}", run.stderr
