"""A metric falls apart into samples where it is their mean, is taken anew where it is not, and else is one number."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxpress.calibration.batches import Sample
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.metrics import Top1, UserMetric
from onnxpress.calibration.session import Runner
from onnxpress.search import bootstrap
from onnxpress.search import scores as module
from onnxpress.search.bootstrap import Drop, drop_of, worst_drop
from onnxpress.search.scores import Scored, Scores, score


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    weight = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", s]) for n, s in (("x", 8), ("y", 4)))
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(weight, "w")])
    path = tmp_path_factory.mktemp("scores") / "model.onnx"
    path.write_bytes(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    )
    with Runner(path, threads=1) as opened:
        yield opened


@pytest.fixture
def feed():
    rng = np.random.default_rng(1)
    batches = [
        Sample({"x": rng.normal(size=(rows, 8)).astype(np.float32)}, rng.integers(0, 4, rows)) for rows in (5, 7, 1)
    ]
    return Feed(batches, count=3)


def by_balance(runner, feed):
    """The mean over classes of the share that is right: no mean over samples."""
    right = {k: [] for k in range(4)}
    for batch, labels in feed.samples():
        for found, label in zip(runner.run(batch)["y"].argmax(axis=1), labels, strict=True):
            right[int(label)].append(found == label)
    return float(np.mean([np.mean(each) for each in right.values() if each]))


def metric_of(function):
    return UserMetric("mine", function, takes_feed=True)


def test_a_mean_over_samples_is_taken_of_each(runner, feed):
    found = score(Top1(), runner, feed)
    assert found.value == Top1()(runner, feed)
    assert found.rows is not None
    assert found.samples == len(found.rows) == 13
    assert set(found.rows) <= {0.0, 1.0}
    expected = np.concatenate([runner.run(b)["y"].argmax(1) == labels for b, labels in feed.samples()])
    np.testing.assert_array_equal(found.rows, expected)


def test_another_metric_is_kept_in_pieces(runner, feed):
    found = score(metric_of(by_balance), runner, feed)
    assert found.value == by_balance(runner, feed)
    assert found.rows is None
    assert found.samples == 13
    drop = drop_of(metric_of(by_balance), found, found, limit=0.0, confidence=0.9)
    assert drop.probability == 1.0
    assert drop.low == drop.high == 0.0


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_how_large_a_metric_is_does_not_matter(runner, feed, scale):
    found = score(metric_of(lambda runner, feed: scale * by_balance(runner, feed)), runner, feed)
    assert (found.rows, found.samples) == (None, 13)
    found = score(metric_of(lambda runner, feed: scale * Top1()(runner, feed)), runner, feed)
    assert found.rows is not None


def carried(runner, feed):
    """Runs something else than the samples."""
    return float(np.mean([runner.run({"x": batch["x"] * 2})["y"].mean() for batch in feed]))


def test_a_metric_that_runs_other_inputs_is_one_number(runner, feed):
    found = score(metric_of(carried), runner, feed)
    assert found.value == carried(runner, feed)
    assert found.rows is None
    assert found.pieces is None
    drop = drop_of(metric_of(carried), found, found, limit=0.0, confidence=0.9)
    assert drop.probability is None
    assert drop.held
    assert "how sure that is cannot be said" in drop.describe()


def test_what_takes_too_much_memory_is_scored_batch_by_batch(runner, feed, monkeypatch):
    whole = score(Top1(), runner, feed)
    monkeypatch.setattr(module, "KEPT_BYTES", 500)  # a batch at a time
    found = score(Top1(), runner, feed)
    assert found.value == whole.value
    np.testing.assert_array_equal(found.rows, whole.rows)
    assert score(metric_of(by_balance), runner, feed).rows is None
    monkeypatch.setattr(module, "KEPT_BYTES", 100)  # not even that
    found = score(Top1(), runner, feed)
    assert found.value == whole.value
    assert (found.rows, found.pieces) == (None, None)


def rows_of(right, n):
    values = np.zeros(n)
    values[:right] = 1
    return Scores(float(values.mean()), values, None, 0.0)


def test_a_drop_is_surer_the_further_it_is_from_its_limit():
    before = rows_of(900, 1000)
    drops = [
        drop_of(Top1(), before, rows_of(right, 1000), limit=0.01, confidence=0.9) for right in (899, 892, 889, 870)
    ]
    chances = [each.probability for each in drops]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] == 1.0
    assert chances[-1] < 0.01
    assert [each.held for each in drops] == [True, False, False, False]  # 0.008 is within 0.01, but not surely
    assert all(each.low <= each.value <= each.high for each in drops)


def test_equals_the_bootstrap_drawn_by_hand():
    rng = np.random.default_rng(3)
    before, after = (rng.random(400) < share for share in (0.9, 0.88))
    drops = before.astype(float) - after
    mine = drop_of(
        Top1(),
        Scores(float(before.mean()), before.astype(float), None, 0.0),
        Scores(float(after.mean()), after.astype(float), None, 0.0),
        limit=0.03,
        confidence=0.8,
    )
    drawn = drops[np.random.default_rng(4).integers(0, 400, (4000, 400))].mean(axis=1)
    assert mine.probability == pytest.approx(np.mean(drawn <= 0.03), abs=0.03)
    assert mine.high == pytest.approx(np.quantile(drawn, 0.8), abs=0.005)


def test_the_worst_of_several_providers_counts(runner, feed):
    metric = Scored(Top1())
    metric.taken.extend([rows_of(9, 10), rows_of(9, 10), rows_of(9, 10), rows_of(5, 10)])
    worst = worst_drop(metric, limit=0.5, confidence=0.5)
    assert isinstance(worst, Drop)
    assert worst.value == pytest.approx(0.4)
    assert worst_drop(Scored(Top1()), limit=0.5, confidence=0.5) is None


def test_a_larger_drop_that_is_sure_does_not_hide_a_smaller_one_that_is_not():
    metric = Scored(Top1())
    sure = [Scores(each, np.full(100, each), None, 0.0) for each in (1.0, 0.96)]
    metric.taken.extend([*sure, rows_of(100, 100), rows_of(97, 100)])
    worst = worst_drop(metric, limit=0.04, confidence=0.9)
    assert worst.value == pytest.approx(0.03)
    assert not worst.held


@pytest.mark.parametrize("first", [True, False])
def test_what_is_not_a_number_is_the_worst(first):
    metric, lost = Scored(Top1()), [rows_of(9, 10), Scores(float("nan"), None, None, 0.0)]
    other = [rows_of(9, 10), rows_of(1, 10)]
    metric.taken.extend([*lost, *other] if first else [*other, *lost])
    assert np.isnan(worst_drop(metric, limit=0.1, confidence=0.5).value)


def test_what_is_not_a_number_holds_nothing_and_is_said():
    drop = drop_of(Top1(), rows_of(9, 10), Scores(float("nan"), None, None, 0.0), limit=1.0, confidence=0.0)
    assert not drop.held
    assert drop.describe() == "top1 is not a number"


def twice(runner, feed):
    """Walks through the samples two times."""
    return float(np.mean([runner.run(batch)["y"].mean(axis=1).mean() for _ in range(2) for batch in feed]))


def test_samples_that_a_metric_runs_twice_are_not_drawn_as_twice_as_many(runner, feed):
    found = score(metric_of(twice), runner, feed)
    assert found.value == twice(runner, feed)
    assert (found.rows, found.pieces) == (None, None)


class Moody:
    """No function of a module, and not made for a single sample."""

    name = "moody"

    def __call__(self, runner, feed, /):
        values = np.concatenate([runner.run(batch)["y"][:, 0] for batch in feed])
        if len(values) < 13:
            raise ValueError("too few")
        return float(values.std())


def test_a_metric_that_fails_on_drawn_samples_is_none_that_can_be_drawn_one_by_one(runner, feed):
    found = score(Moody(), runner, feed)
    assert found.rows is None
    assert found.samples == 13


def test_a_metric_that_fails_on_a_batch_alone_is_one_number_where_memory_is_scarce(runner, feed, monkeypatch):
    monkeypatch.setattr(module, "KEPT_BYTES", 500)
    found = score(Moody(), runner, feed)
    assert found.value == Moody()(runner, feed)
    assert (found.rows, found.pieces) == (None, None)


def test_many_samples_are_drawn_less_often(monkeypatch):
    rng = np.random.default_rng(5)
    before, after = (Scores(float(each.mean()), each, None, 0.0) for each in (rng.random(5000), rng.random(5000)))
    often = drop_of(Top1(), before, after, limit=0.0, confidence=0.8)
    monkeypatch.setattr(bootstrap, "_PICKED", 1)
    seldom = drop_of(Top1(), before, after, limit=0.0, confidence=0.8)
    assert (often.draws, seldom.draws) == (10_000, 1000)
    assert seldom.high == pytest.approx(often.high, abs=0.002)  # the standard deviation of all draws is 0.006


def test_a_drop_of_just_the_limit_is_within_it():
    drop = drop_of(Top1(), rows_of(91, 100), rows_of(90, 100), limit=0.01, confidence=0.0)
    assert drop.value > 0.01  # by the last bit
    assert drop.held
