"""More samples for models that read tokens."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxpress.calibration.feeds import Feed, open_feed
from onnxpress.calibration.variations import with_variations
from onnxpress.rewriter.model import Model

START, END, PAD, TOKENS = 1, 2, 0, 160


@pytest.fixture
def table():
    """Vectors of 160 tokens in 8 clusters of 20."""
    draw = np.random.default_rng(0)
    centres = 5 * draw.standard_normal((8, 6))
    return (np.repeat(centres, 20, axis=0) + 0.1 * draw.standard_normal((TOKENS, 6)) + 3).astype(np.float32)


@pytest.fixture
def reader(save_model, table):
    """Looks up `ids`, through a Cast, and adds `x`."""
    nodes = [
        helper.make_node("Cast", ["ids"], ["wide"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "wide"], ["rows"]),
        helper.make_node("Add", ["rows", "x"], ["y"]),
    ]
    path = save_model(
        nodes, {"ids": ["n", "s"], "x": [1]}, ["y"], weights={"table": table}, types={"ids": TensorProto.INT32}
    )
    return Model.load(path)


def feed_of(model, *batches):
    one = np.ones(1, np.float32)
    return open_feed([{"ids": np.asarray(ids, np.int32), "x": one} for ids in batches], inputs=model.inputs)


def texts():
    """Two batches of rows START, words, END, PAD…"""
    return [[[1, 25, 45, 26, 2], [1, 65, 2, 0, 0]], [[1, 85, 105, 125, 2], [1, 46, 66, 2, 0]]]


def ids_of(feed):
    return [batch["ids"] for batch in feed]


def test_given_samples_come_first_and_the_rest_has_other_tokens(reader):
    feed = feed_of(reader, *texts())
    found = with_variations(reader, feed, rows=100)
    ids = ids_of(found.feed)
    assert (found.copies, found.tokens) == (4, 20)
    assert found.feed.count == len(ids) == 10
    for given, each in zip(texts(), ids, strict=False):
        np.testing.assert_array_equal(each, given)
    assert all((each != np.asarray(texts()[number % 2])).any() for number, each in enumerate(ids[2:]))
    assert all(each.dtype == np.int32 and each.min() >= 0 and each.max() < TOKENS for each in ids)


def test_copies_of_texts_come_together_where_rows_are_free(save_model, table):
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"])]
    types = {"ids": TensorProto.INT64}
    model = Model.load(save_model(nodes, {"ids": ["n", "s"]}, ["y"], weights={"table": table}, types=types))

    def varied(*batches):
        feed = open_feed([{"ids": np.asarray(each)} for each in batches], inputs=model.inputs)
        return with_variations(model, feed, rows=100)

    found = varied(*texts())
    assert (found.copies, found.feed.count) == (4, 2)
    for given, each in zip(texts(), ids_of(found.feed), strict=True):
        assert each.shape == (10, 5)
        np.testing.assert_array_equal(each[:2], given)
        assert len(np.unique(each, axis=0)) > 5
    # rows without a mark at their ends need not be texts
    found = varied(*(np.asarray(each)[:, 1:-1].T for each in texts()))
    assert {each.shape for each in ids_of(found.feed)} == {(3, 2)}


def test_marks_and_padding_stay_where_they_are(reader):
    for number, each in enumerate(ids_of(with_variations(reader, feed_of(reader, *texts()), rows=400).feed)):
        given = np.asarray(texts()[number % 2])
        fixed = np.isin(given, [START, END, PAD])
        np.testing.assert_array_equal(each[fixed], given[fixed])


def test_a_single_token_of_padding_stays_where_it_ends_more_than_one_row(reader):
    given = np.array([[1, 25, 45, 2, 0], [1, 65, 66, 2, 0], [1, 85, 86, 87, 2]])
    ids = ids_of(with_variations(reader, feed_of(reader, given), rows=400).feed)
    assert all((each[:2, 4] == PAD).all() for each in ids)
    assert any((each[2, 3] != 87).any() for each in ids)


def test_tokens_are_replaced_by_their_nearest(reader):
    """Each of 8 clusters has the 20 tokens nearest to one of its own; all words here come from six of them."""
    found = with_variations(reader, feed_of(reader, *texts()), rows=600)
    words = np.concatenate([each[each > PAD + 2].reshape(-1) for each in ids_of(found.feed)])
    assert set(np.unique(words // 20)) == {1, 2, 3, 4, 5, 6}
    assert len(np.unique(words)) > 60


def test_other_inputs_stay(reader):
    assert all(batch["x"] == 1 for batch in with_variations(reader, feed_of(reader, *texts()), rows=100).feed)


def test_walks_are_alike_and_seeds_differ(reader):
    feed = feed_of(reader, *texts())
    first, other = (with_variations(reader, feed, rows=100, seed=seed).feed for seed in (0, 1))
    assert all((a == b).all() for a, b in zip(ids_of(first), ids_of(first), strict=True))
    assert any((a != b).any() for a, b in zip(ids_of(first), ids_of(other), strict=True))


def test_plenty_of_tokens_are_left_as_they_are(reader):
    feed = feed_of(reader, *texts())
    found = with_variations(reader, feed, rows=39)
    assert found.feed is feed
    assert found.copies == 0


@pytest.mark.parametrize(
    "ids",
    [
        [[[3, 4, 5, 6], [3, 4, 5, 6]]],  # positions
        [[[7, 7, 7, 7], [7, 7, 7, 7]]],  # the same token everywhere
    ],
)
def test_inputs_without_words_are_left_as_they_are(reader, ids):
    feed = feed_of(reader, *ids)
    assert with_variations(reader, feed, rows=1000).feed is feed


def test_small_tables_hold_kinds_and_no_words(save_model):
    table = np.eye(10, dtype=np.float32)
    path = save_model(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        {"ids": ["n", "s"]},
        ["y"],
        weights={"table": table},
        types={"ids": TensorProto.INT64},
    )
    model = Model.load(path)
    feed = open_feed([{"ids": np.array([[3, 1, 4, 2]])}], inputs=model.inputs)
    assert with_variations(model, feed, rows=100).feed is feed


def test_models_that_read_no_tokens_are_not_walked_through(linear):
    def walked():
        raise AssertionError
        yield

    feed = Feed(walked())
    assert with_variations(Model.load(linear), feed, rows=100).feed is feed


def test_tokens_outside_of_the_table_are_left_for_the_model_to_refuse(reader):
    found = with_variations(reader, feed_of(reader, [[1, 25, 999, -3, 2], [1, 30, 40, 50, 2]]), rows=100)
    assert all((each[0, 2], each[0, 3]) == (999, -3) for each in ids_of(found.feed))
