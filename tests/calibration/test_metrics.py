"""How close outputs are, and how well a model does."""

import math
import signal
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper

from onnxpress.calibration.feeds import Feed, open_feed
from onnxpress.calibration.metrics import (
    Comparison,
    Metric,
    argmax_agreement,
    cosine,
    load_metric,
    max_abs_error,
    sqnr,
    top1,
)
from onnxpress.calibration.session import Runner
from onnxpress.rewriter.errors import ConfigError, FeedError

R, T = np.array([3.0, 4.0]), np.array([3.0, 3.5])


def test_measures_by_their_formulas():
    assert sqnr(R, T) == pytest.approx(20.0, rel=1e-12)  # 25 / 0.25
    assert cosine(R, T) == pytest.approx(23 / (5 * math.hypot(3, 3.5)), rel=1e-12)
    assert max_abs_error(R, T) == 0.5
    assert argmax_agreement(np.array([[1, 2], [3, 1]]), np.array([[1, 2], [1, 3]])) == 0.5


@pytest.mark.parametrize(
    ("reference", "test", "expected"),
    [
        ([1.0], [1.0], (math.inf, 1.0, 0.0)),
        ([0.0], [0.0], (math.inf, 1.0, 0.0)),
        ([0.0], [2.0], (-math.inf, 0.0, 2.0)),
        ([2.0], [0.0], (0.0, 0.0, 2.0)),
        ([], [], (math.inf, 1.0, 0.0)),
        ([1.0, -np.inf, np.nan], [1.0, -np.inf, np.nan], (math.inf, 1.0, 0.0)),
        ([True, False], [True, False], (math.inf, 1.0, 0.0)),
    ],
)
def test_edges(reference, test, expected):
    reference, test = np.array(reference), np.array(test)
    assert (sqnr(reference, test), cosine(reference, test), max_abs_error(reference, test)) == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_new_nan_or_infinity_is_never_a_good_result(bad):
    reference, test = np.array([1.0, 2.0]), np.array([1.0, bad])
    assert math.isnan(sqnr(reference, test))
    assert math.isnan(cosine(reference, test))
    assert max_abs_error(reference, test) == math.inf


def test_agreement_needs_something_to_choose_from():
    assert argmax_agreement(np.zeros((3, 1)), np.zeros((3, 1))) is None
    assert argmax_agreement(np.float32(1), np.float32(1)) is None


@settings(deadline=None, derandomize=True, max_examples=40)
@given(hnp.arrays(np.float32, (6, 3), elements=st.floats(-100, 100, width=32)), st.integers(1, 5))
def test_batches_and_merged_parts_add_up(reference, cut):
    test = np.roll(reference, 1, axis=1)
    whole, parts, other = Comparison(), Comparison(), Comparison()
    whole.update(reference, test)
    parts.update(reference[:cut], test[:cut])
    other.update(reference[cut:], test[cut:])
    parts.merge(other)
    # float64 sums of at most 18 terms in another order
    assert parts.noise == pytest.approx(whole.noise, rel=1e-12)
    assert parts.cosine == pytest.approx(whole.cosine, rel=1e-9)
    assert parts.max_abs_error == whole.max_abs_error
    assert parts.agreement == whole.agreement


def test_large_float32_outputs_do_not_overflow():
    large = np.full(4, 1e30, np.float32)
    assert sqnr(large, large * np.float32(0.9)) == pytest.approx(20.0, rel=1e-4)


def test_refuses_outputs_of_different_shapes():
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\) differ"):
        sqnr(np.zeros(2), np.zeros(3))


@pytest.fixture
def echo(save_model) -> Runner:
    """y = x."""
    return Runner(save_model([helper.make_node("Identity", ["x"], ["y"])], {"x": ["n", "c"]}, ["y"]))


def feed_of(runner: Runner, **arrays) -> Feed:
    return open_feed(arrays, inputs=runner.input_specs, batch_size=2)


def test_top1_counts_over_all_batches(echo):
    feed = feed_of(echo, x=np.eye(5), labels=np.array([0, 1, 2, 3, 0]))
    assert top1(echo, feed) == load_metric("top1")(echo, feed) == 0.8
    assert load_metric("top1").name == "top1"


def test_top1_judges_every_step(save_model):
    runner = Runner(save_model([helper.make_node("Identity", ["x"], ["y"])], {"x": ["n", "t", "c"]}, ["y"]))
    x = np.eye(3)[np.array([[0, 1], [2, 2]])]
    assert top1(runner, feed_of(runner, x=x, labels=np.array([[0, 1], [2, 0]]))) == 0.75


def test_top1_refuses_missing_or_wrong_labels(echo):
    with pytest.raises(FeedError, match="top1 needs labels; add an entry `labels`"):
        top1(echo, feed_of(echo, x=np.eye(3)))
    with pytest.raises(FeedError, match="4 labels for 2 rows of output 'y'"):
        top1(echo, feed_of(echo, x=np.eye(2), labels=np.zeros((2, 2))))


@pytest.mark.parametrize(
    ("labels", "hint"),
    [
        (["cat", "dog", "cat"], "labels such as 'cat'"),
        ([0.0, 0.5, 1.0], "the label 0.5"),
        ([0.0, 1.0, np.nan], "the label nan"),
        ([0, 77, 1], "the label 77"),
        ([0, -1, 1], "the label -1"),
    ],
)
def test_top1_refuses_labels_that_are_no_class_indices(echo, labels, hint):
    advice = "label with whole numbers, 0 to 3 for the 4 classes of output 'y'"
    with pytest.raises(FeedError, match=f"^top1 cannot judge by {hint}; {advice}$"):
        top1(echo, feed_of(echo, x=np.eye(4)[:3], labels=np.array(labels)))


@pytest.mark.parametrize("dtype", [float, bool, np.uint8])
def test_top1_takes_whole_numbers_of_any_type(echo, dtype):
    assert top1(echo, feed_of(echo, x=np.eye(2), labels=np.array([0, 1]).astype(dtype))) == 1.0


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine_metric.py").write_text(
        "import numpy as np\n"
        "def alone(runner): return 3\n"
        "def both(runner, feed): return np.float32(sum(1 for _ in feed))\n"
        "def option(runner, verbose=False): return float(verbose)\n"
        "def named(runner, feed=None): return float(feed is not None)\n"
        "def keyword(runner, *, strict=True): return np.array([1.5])\n"
        "def none(): return 1\n"
        "def three(runner, feed, more): return 1\n"
        "def text(runner): return 'good'\n"
        "def crash(runner): raise ValueError('why')\n"
        "def unfit(runner): return runner.run({'x': np.ones((2, 9, 9))})\n"
        "def quits(runner): raise SystemExit\n"
        "def stopped(runner): import signal; signal.raise_signal(signal.SIGTERM)\n"
        "class Own:\n"
        "    def __call__(self, runner): return 7\n"
        "own = Own()\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("function", "expected"),
    [("alone", 3), ("both", 2), ("option", 0), ("named", 1), ("keyword", 1.5), ("own", 7)],
)
def test_users_metrics_take_a_runner_and_perhaps_the_feed(echo, function, expected):
    metric: Metric = load_metric(f"mine_metric:{function}")
    assert metric.name == f"mine_metric:{function}"
    value = metric(echo, feed_of(echo, x=np.eye(4)))
    assert value == expected
    assert type(value) is float


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("reference", "hint"),
    [
        ("top5", "metric 'top5' is unknown; give top1 or module:function"),
        ("no_such:f", "no module 'no_such'"),
        ("mine_metric:none", r"mine_metric:none\(\) must take a runner, or a runner and a feed"),
        ("mine_metric:three", "must take a runner, or a runner and a feed"),
    ],
)
def test_refuses_metrics_that_cannot_be_called(reference, hint):
    with pytest.raises(ConfigError, match=hint):
        load_metric(reference)


@pytest.mark.usefixtures("mine")
def test_refuses_what_a_metric_must_not_do(echo):
    feed = feed_of(echo, x=np.eye(4))
    with pytest.raises(ConfigError, match="metric mine_metric:text returned a str; return one number"):
        load_metric("mine_metric:text")(echo, feed)
    with pytest.raises(ConfigError, match=r"mine_metric:crash raised ValueError at mine_metric.py:\d+: why"):
        load_metric("mine_metric:crash")(echo, feed)
    with pytest.raises(ConfigError, match=r"metric mine_metric:quits called sys.exit at mine_metric.py:\d+; raise"):
        load_metric("mine_metric:quits")(echo, feed)
    with pytest.raises(FeedError, match=r"^metric mine_metric:unfit: model.onnx cannot run this sample: "):
        load_metric("mine_metric:unfit")(echo, feed)


@pytest.mark.usefixtures("mine")
def test_a_signal_ends_the_program_also_inside_a_metric(echo):
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    try:
        with pytest.raises(SystemExit):
            load_metric("mine_metric:stopped")(echo, feed_of(echo, x=np.eye(4)))
    finally:
        signal.signal(signal.SIGTERM, before)
