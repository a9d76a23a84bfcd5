"""Independent work on one worker and on several."""

import math
import operator
import os
from functools import partial

import joblib
import numpy as np
import pytest
from onnx import helper

from onnxpress.calibration.progress import Silent
from onnxpress.passes.jobs import AHEAD, Refusing, Stored, accepted, each, workers
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.errors import ConfigError, EngineError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites

run = partial(each, progress=Silent(), label="work")


@pytest.fixture(params=["loky", "threading"])
def two(request):
    """Two workers, of either kind."""
    with joblib.parallel_config(backend=request.param, n_jobs=2):
        yield request.param


def drawn(items, seen):
    for item in items:
        seen.append(item)
        yield item


def fail(items, error):
    yield from items
    raise error


def test_one_worker_takes_an_item_when_its_result_is_asked_for():
    seen = []
    results = run(math.sqrt, drawn([4, 9, 16], seen))
    assert seen == []
    assert (next(results), seen) == (2, [4])
    assert (next(results), seen) == (3, [4, 9])


def test_one_worker_unless_the_caller_asks_for_more():
    assert workers() == 1
    with joblib.parallel_config(backend="threading", n_jobs=3):
        assert workers() == 3
    assert workers() == 1


def test_results_are_in_order(two):
    assert list(run(math.sqrt, [number * number for number in range(20)])) == list(range(20))


def test_what_all_items_need_goes_along(two):
    assert list(run(pow, [2, 3], shared=(3, 5))) == [3, 2]


def test_several_workers_take_only_so_many_items_ahead():
    done, ahead = [], []

    def items():
        for item in range(50):
            ahead.append(item + 1 - len(done))
            yield item

    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert list(run(lambda item: done.append(item) or item, items())) == list(range(50))
    assert max(ahead) <= 2 * AHEAD + 2  # joblib takes two at a time


def test_an_item_that_cannot_be_had_ends_the_work_with_its_error(two):
    results = run(math.sqrt, fail([4, 9], ConfigError("no third item")))
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ConfigError, match="no third item"):
        next(results)


def test_an_error_of_the_work_arrives_as_it_is(two):
    with pytest.raises(ZeroDivisionError):
        list(run(partial(operator.floordiv, 1), [1, 0, 1]))


def test_a_refusal_ends_the_work_on_one_item_only():
    def half(item):
        if item % 2:
            raise RefusalError(f"{item} is odd")
        return item // 2

    found = list(run(Refusing(half), [4, 5, 6]))
    assert [accepted(found[0]), accepted(found[2])] == [2, 3]
    with pytest.raises(RefusalError, match="5 is odd"):
        accepted(found[1])


def test_lost_workers_are_an_error_that_says_what_to_do():
    with joblib.parallel_config(backend="loky", n_jobs=2), pytest.raises(EngineError, match="fewer with --jobs"):
        list(run(os._exit, [1, 1]))


def test_a_worker_shares_nothing_out_in_turn(two):
    assert list(run(lambda _: workers(), range(3))) == [1, 1, 1]


def test_linear_algebra_has_one_thread_on_any_engine(two):
    def threads(_):
        import threadpoolctl

        return {each["num_threads"] for each in threadpoolctl.threadpool_info() if each["user_api"] == "blas"}

    assert list(run(threads, range(2))) == [{1}, {1}]
    with joblib.parallel_config(backend="sequential"):
        assert next(run(threads, range(2))) == {1}


def test_progress_hears_of_every_result(two):
    told = []

    class Told:
        def track(self, items, *, label, total=None):
            for item in items:
                yield item
                told.append((label, item, total))

    assert sum(1 for _ in each(math.sqrt, [1, 4], progress=Told(), label="roots", total=2)) == 2
    assert told == [("roots", 1, 2), ("roots", 2, 2)]


def test_mapped_weights_are_sent_as_they_are_now(build, tmp_path):
    weight = np.random.default_rng(0).standard_normal((600, 600)).astype(np.float32)
    build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, x=("n", 600)).save(tmp_path / "model.onnx")
    model = Model.load(tmp_path / "model.onnx")
    (tmp_path / "model.onnx").rename(tmp_path / "moved.onnx")
    (tmp_path / "model.onnx").write_bytes(bytes(2 * weight.nbytes))
    with joblib.parallel_config(backend="loky", n_jobs=2):
        ((mean, size),) = run(lambda stored: (stored.array.mean(), stored.nbytes), map(Stored.of, find_sites(model)))
    assert mean == weight.mean()
    assert size == weight.nbytes
