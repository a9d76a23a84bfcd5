"""Feeds, opened from whatever holds samples."""

import sys

import numpy as np
import pytest

from onnxpress.calibration.batches import Sample
from onnxpress.calibration.feeds import Feed, open_feed
from onnxpress.rewriter.errors import ConfigError, FeedError
from onnxpress.rewriter.specs import InputSpec


def dicts(n, labelled=True):
    return [{"x": np.full((2, 4), i), **({"labels": [2 * i, 2 * i + 1]} if labelled else {})} for i in range(n)]


def firsts(feed):
    return [int(batch["x"][0, 0]) for batch in feed]


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """The same six rows in every form."""
    rows, labels = np.repeat(np.arange(3.0), 2)[:, None] * np.ones(4), np.arange(6)
    np.savez(tmp_path / "rows.npz", x=rows, labels=labels)
    (tmp_path / "npz").mkdir()
    (tmp_path / "npy").mkdir()
    for i in range(3):
        np.savez(tmp_path / "npz" / f"{i}.npz", x=rows[2 * i : 2 * i + 2], labels=labels[2 * i : 2 * i + 2])
        np.save(tmp_path / "npy" / f"{i}.npy", rows[2 * i : 2 * i + 2])
    np.save(tmp_path / "npy" / "labels.npy", labels)
    (tmp_path / "mine_feed.py").write_text(
        "import numpy as np\n"
        "def samples():\n"
        "    for i in range(3):\n"
        "        yield {'x': np.full((2, 4), float(i)), 'labels': [2 * i, 2 * i + 1]}\n"
        "def wrong():\n"
        "    yield {'y': 1}\n"
        "def quits():\n"
        "    raise SystemExit(0)\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return {
        "npz": tmp_path / "rows.npz",
        "dict": {"x": rows, "labels": labels},
        "npz folder": str(tmp_path / "npz"),
        "npy folder": tmp_path / "npy",
        "function": "mine_feed:samples",
        "list": list(map(as_float, dicts(3))),
        "generator": map(as_float, dicts(3)),
        "feed": Feed([Sample({"x": np.full((2, 4), i)}, np.array([2 * i, 2 * i + 1])) for i in range(3)], count=3),
    }


def as_float(batch):
    return {**batch, "x": batch["x"].astype(np.float64)}


KINDS = ["npz", "dict", "npz folder", "npy folder", "function", "list", "generator"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_walk_starts_afresh_in_the_declared_dtype(sources, x_spec, kind):
    feed = open_feed(sources[kind], inputs=x_spec, batch_size=2 if kind in ("npz", "dict") else None)
    for _ in range(2):
        assert firsts(feed) == [0, 1, 2]
    assert {batch["x"].dtype.name for batch in feed} == {"float32"}
    assert feed.count in (None, 3)
    np.testing.assert_array_equal(feed.labels, np.arange(6))
    assert [list(sample.labels) for sample in feed.samples()] == [[0, 1], [2, 3], [4, 5]]


def test_checks_a_feed_against_the_model_too(sources, x_spec):
    with pytest.raises(FeedError, match="expects float32, got int64"):
        open_feed(sources["feed"], inputs=x_spec)


@pytest.mark.parametrize("kind", KINDS)
def test_limits_the_samples(sources, x_spec, kind):
    rows = kind in ("npz", "dict")
    feed = open_feed(sources[kind], inputs=x_spec, batch_size=2 if rows else None, limit=3 if rows else 2)
    assert firsts(feed) == [0, 1]
    assert len(feed.labels) == (3 if rows else 4)


def test_an_npy_file_is_a_stack_for_a_lone_input(tmp_path, x_spec):
    np.save(tmp_path / "a.npy", np.zeros((5, 4)))
    assert [batch["x"].shape for batch in open_feed(tmp_path / "a.npy", inputs=x_spec)] == [(5, 4)]


def test_refuses_an_npz_file_of_another_name(tmp_path, x_spec):
    np.savez(tmp_path / "wn.npz", z=np.zeros((5, 4)))
    with pytest.raises(FeedError, match=r"wn.npz lacks 'x' and has 'z', unknown .* inputs: x float32 \[n, 4\]"):
        open_feed(tmp_path / "wn.npz", inputs=x_spec)
    np.savez(tmp_path / "plain.npz", np.zeros((5, 4)))
    assert firsts(open_feed(tmp_path / "plain.npz", inputs=x_spec)) == [0]


def test_takes_the_first_batches(x_spec):
    feed = open_feed(map(as_float, dicts(5)), inputs=x_spec)
    assert firsts(feed.take(2)) == [0, 1]
    assert list(feed.take(2).labels) == [0, 1, 2, 3]
    assert feed.take(2).count is None
    assert firsts(feed.take(9)) == [0, 1, 2, 3, 4]


def test_splits_evenly_where_the_length_is_known(x_spec):
    few, rest = open_feed(list(map(as_float, dicts(6))), inputs=x_spec).split(2)
    assert firsts(few) == [0, 3]
    assert firsts(rest) == [1, 2, 4, 5]
    assert (few.count, rest.count) == (2, 4)


def test_splits_at_the_start_where_it_is_not(x_spec):
    few, rest = open_feed(map(as_float, dicts(5)), inputs=x_spec).split(2)
    assert firsts(few) == [0, 1]
    assert firsts(rest) == [2, 3, 4]


@pytest.mark.parametrize(("n", "rows", "taken"), [(2, None, [0, 3]), (9, None, list(range(6))), (3, 4, [0, 2])])
def test_spreads_a_few_batches_over_the_feed(x_spec, n, rows, taken):
    feed = open_feed(list(map(as_float, dicts(6))), inputs=x_spec)
    assert firsts(feed.spread(n, rows=rows)) == taken


def test_takes_the_first_few_where_the_length_is_not_known(x_spec):
    assert firsts(open_feed(map(as_float, dicts(5)), inputs=x_spec).spread(2)) == [0, 1]


def test_nothing_can_be_spread_where_there_are_no_samples():
    with pytest.raises(FeedError, match="holds no samples"):
        list(Feed([], count=0).spread(2))


def test_refuses_to_split_all_off(x_spec):
    feed = open_feed(list(map(as_float, dicts(2))), inputs=x_spec)
    with pytest.raises(FeedError, match="2 batches cannot give 2 and keep some"):
        feed.split(2)
    for part in (feed.take, feed.split):
        with pytest.raises(ConfigError, match="0 batches of a feed is too few"):
            part(0)


def test_no_labels_are_none_and_some_are_an_error(x_spec):
    batches = list(map(as_float, dicts(3)))
    assert open_feed([{"x": batch["x"]} for batch in batches], inputs=x_spec).labels is None
    del batches[2]["labels"]
    with pytest.raises(FeedError, match="the first 2 batches have labels, the next has none"):
        _ = open_feed(batches, inputs=x_spec).labels


def test_warns_about_rows_left_out(tmp_path):
    from onnxpress.rewriter.specs import InputSpec

    feed = open_feed({"x": np.zeros((5, 4))}, inputs=[InputSpec("x", np.dtype("float32"), (2, 4))])
    assert "the last 1 rows" in feed.warnings[0]
    assert feed.take(1).warnings == feed.warnings


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        (
            "missing.npz",
            "no file, folder or module:function missing.npz; check the path, or write .* inputs: x float32",
        ),
        ("mine_feed:nothing", "module 'mine_feed' has no 'nothing'"),
        ("no_such:f", "no module 'no_such'"),
        ("mine_feed:wrong", "batch 0 of mine_feed:wrong lacks 'x' and has 'y'"),
        ("mine_feed:quits", r"mine_feed:quits called sys.exit at mine_feed.py:\d+; raise an error or return"),
        ("mine_feed.py", "mine_feed.py is neither .npz nor .npy"),
        ([], "the list feed holds no samples; give at least one"),
        (iter([]), "holds no samples"),
        ({"x": np.zeros((0, 4))}, "'x' holds no rows"),
        ([np.zeros((2, 4))], "batch 0 of the list feed is a ndarray; give a dict"),
        ([{"x": np.zeros((2, 5))}], "batch 0 of the list feed: input 'x' expects"),
        (7, "a int is no feed"),
    ],
)
def test_refuses_in_one_line(sources, x_spec, source, hint):
    with pytest.raises(FeedError, match=hint) as caught:
        open_feed(source, inputs=x_spec)
    assert "\n" not in str(caught.value)


def test_refuses_a_later_batch_when_it_comes(x_spec):
    feed = open_feed([{"x": np.zeros((2, 4))}, {"x": np.zeros((2, 5))}], inputs=x_spec)
    with pytest.raises(FeedError, match="batch 1 of the list feed"):
        list(feed)


def test_refuses_options_that_mean_nothing(x_spec):
    with pytest.raises(ConfigError, match="batch_size 2 is for stacked arrays"):
        open_feed(dicts(1), inputs=x_spec, batch_size=2)
    with pytest.raises(ConfigError, match="0 samples is too few"):
        open_feed(dicts(1), inputs=x_spec, limit=0)


def test_refuses_rows_of_different_shapes():
    with pytest.raises(FeedError, match="the arrays cannot be stacked"):
        open_feed({"x": [[1.0, 2.0], [1.0]]}, inputs=[InputSpec("x", np.dtype(np.float32), (None, 2))])


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_samples_to_learn_from_are_numbers(x_spec, wrong):
    batches = [{"x": np.zeros((2, 4), np.float32)}, {"x": np.full((2, 4), wrong, np.float32)}]
    feed = open_feed(batches, inputs=x_spec).numeric()
    with pytest.raises(FeedError, match="batch 1 of the samples holds 8 NaN or infinite numbers in input 'x'; mend"):
        list(feed)


def test_masks_may_hold_minus_infinity(x_spec):
    feed = open_feed([{"x": np.full((2, 4), -np.inf, np.float32)}], inputs=x_spec)
    assert len(list(feed.numeric())) == 1


def test_parts_of_made_up_samples_are_made_up(x_spec):
    made_up = Feed(list(open_feed([{"x": np.zeros((1, 4), np.float32)}] * 3, inputs=x_spec).samples()), made_up=True)
    assert made_up.take(1).made_up
    assert made_up.numeric().made_up
    assert open_feed(made_up, inputs=x_spec).made_up
