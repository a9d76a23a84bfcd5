"""How stacked arrays are cut into batches."""

import numpy as np
import pytest

from onnxpress.calibration.arrays import Memory
from onnxpress.calibration.stacks import Stack
from onnxpress.rewriter.errors import ConfigError, FeedError
from onnxpress.rewriter.specs import InputSpec

F32, I64 = np.dtype("float32"), np.dtype("int64")


def stack(arrays, *specs, **options):
    inputs = [InputSpec(name, dtype, shape) for name, dtype, shape in specs]
    return Stack(Memory({k: np.asarray(v) for k, v in arrays.items()}, name="a.npz"), inputs, **options)


def shapes(made):
    return [{name: array.shape for name, array in sample.batch.items()} for sample in made]


def test_cuts_an_open_axis_by_batch_size_with_a_shorter_last_batch():
    made = stack({"x": np.zeros((7, 4)), "labels": np.arange(7)}, ("x", F32, ("n", 4)), batch_size=3)
    assert shapes(made) == [{"x": (3, 4)}, {"x": (3, 4)}, {"x": (1, 4)}]
    assert [list(sample.labels) for sample in made] == [[0, 1, 2], [3, 4, 5], [6]]
    np.testing.assert_array_equal(made.labels, np.arange(7))


def test_chooses_at_most_32_rows_and_4_mib():
    assert shapes(stack({"x": np.zeros((40, 4))}, ("x", F32, ("n", 4))))[0] == {"x": (32, 4)}
    large = stack({"x": np.broadcast_to(np.float32(0), (9, 1024, 1024))}, ("x", F32, ("n", 1024, 1024)))
    assert large.count == 9


def test_cuts_a_fixed_axis_as_the_model_insists_and_tells_what_is_left():
    made = stack({"x": np.zeros((7, 4)), "labels": np.arange(7)}, ("x", F32, (2, 4)))
    assert shapes(made) == [{"x": (2, 4)}] * 3
    assert made.warnings == ("a.npz: the last 1 rows of 'x' fill no batch of 2 and are left out",)
    np.testing.assert_array_equal(made.labels, np.arange(6))


def test_one_more_axis_is_a_stack_of_whole_batches():
    made = stack({"x": np.zeros((5, 2, 4)), "labels": np.arange(10)}, ("x", F32, ("n", 4)), limit=3)
    assert shapes(made) == [{"x": (2, 4)}] * 3
    np.testing.assert_array_equal(made.labels, np.arange(6))
    each = stack({"x": np.zeros((5, 1, 4)), "labels": np.arange(5)}, ("x", F32, ("n", 4)))
    assert [list(sample.labels) for sample in each] == [[0], [1], [2], [3], [4]]


def test_repeats_scalars_and_states():
    specs = [("x", F32, ("n", 4)), ("sr", I64, ()), ("state", F32, (2, "n", 8)), ("rate", I64, (1,))]
    made = stack({"x": np.zeros((3, 4)), "sr": 16000, "state": np.zeros((2, 1, 8)), "rate": 7}, *specs)
    # The state holds a batch of one, and names its axis as x does.
    assert shapes(made) == [{"x": (1, 4), "sr": (), "state": (2, 1, 8), "rate": (1,)}] * 3


def test_follows_the_size_of_an_unnamed_axis_of_a_state():
    made = stack({"x": np.zeros((8, 4)), "s": np.zeros((2, 4, 8))}, ("x", F32, (None, None)), ("s", F32, (2, None, 8)))
    assert shapes(made) == [{"x": (4, 4), "s": (2, 4, 8)}] * 2


def test_stacks_of_batches_go_with_rows_and_repeats():
    specs = [("x", F32, (1, 4)), ("s", F32, (2, 1, 8)), ("ids", I64, ("n",))]
    made = stack({"x": np.zeros((3, 1, 4)), "s": np.zeros((2, 1, 8)), "ids": np.zeros(6, int)}, *specs)
    assert shapes(made) == [{"x": (1, 4), "s": (2, 1, 8), "ids": (2,)}] * 3


def test_limit_counts_rows():
    assert shapes(stack({"x": np.zeros((70, 4))}, ("x", F32, ("n", 4)), limit=33)) == [{"x": (32, 4)}, {"x": (1, 4)}]
    assert stack({"x": np.zeros((70, 4))}, ("x", F32, (8, 4)), limit=9).count == 2


def test_an_open_input_follows_a_fixed_one():
    made = stack({"x": np.zeros((6, 4)), "ids": np.zeros(6, int)}, ("x", F32, (2, 4)), ("ids", I64, ("n",)))
    assert shapes(made) == [{"x": (2, 4), "ids": (2,)}] * 3


def test_a_lone_array_without_a_name_is_the_lone_input():
    assert shapes(stack({"arr_0": np.zeros((2, 4)), "labels": [1, 2]}, ("x", F32, ("n", 4)))) == [{"x": (2, 4)}]


def test_an_input_called_labels_is_an_input():
    made = stack({"labels": np.zeros((2, 4))}, ("labels", F32, ("n", 4)))
    assert shapes(made) == [{"labels": (2, 4)}]
    assert made.labels is None


@pytest.mark.parametrize(
    ("arrays", "hint"),
    [
        ({"x": np.zeros((0, 4))}, "'x' holds no rows; give at least one"),
        ({"x": np.zeros((3, 5))}, r"expects \[n, 4\], got \[3, 5\]"),
        ({"x": np.zeros(4)}, r"expects \[n, 4\], got \[4\]"),
        ({"x": np.zeros((3, 2, 5))}, "as a stack of whole batches: input 'x' expects"),
        ({"z": np.zeros((3, 4))}, r"a.npz lacks 'x' and has 'z', unknown .* inputs: x float32 \[n, 4\]"),
        ({"a": np.zeros((3, 4)), "b": np.zeros((3, 4))}, "lacks 'x' and has 'a', 'b'"),
        ({"x": np.zeros((3, 4)), "labels": [1, 2]}, "2 labels for 3 samples"),
        ({"x": np.zeros((3, 4)), "labels": 1}, "0 labels for 3 samples"),
        ({"x": np.zeros((3, 2, 4)), "labels": [1, 2]}, "2 labels for 3 samples"),
    ],
)
def test_refuses_arrays_that_do_not_fit(arrays, hint):
    with pytest.raises(FeedError, match=hint):
        stack(arrays, ("x", F32, ("n", 4)))


def test_refuses_arrays_that_do_not_fit_one_another():
    specs = [("x", F32, ("n", 4)), ("y", F32, ("n", 2))]
    with pytest.raises(FeedError, match="different numbers of rows: 'x' 3, 'y' 2"):
        stack({"x": np.zeros((3, 4)), "y": np.zeros((2, 2))}, *specs)
    with pytest.raises(FeedError, match="'y' has 4 rows for 3 batches"):
        stack({"x": np.zeros((3, 1, 4)), "y": np.zeros((4, 2))}, *specs)
    with pytest.raises(FeedError, match="'x' holds no batches of 2 rows"):
        stack({"x": np.zeros((1, 4))}, ("x", F32, (2, 4)))


def test_refuses_a_batch_size_the_model_forbids():
    with pytest.raises(ConfigError, match="the model takes 2 rows a batch"):
        stack({"x": np.zeros((4, 4))}, ("x", F32, (2, 4)), batch_size=3)
    with pytest.raises(ConfigError, match=r"a.npz stacks whole batches; leave batch_size out"):
        stack({"x": np.zeros((4, 2, 4))}, ("x", F32, ("n", 4)), batch_size=2)


@pytest.mark.parametrize(("labels", "cut"), [([7, 8], [[7], [8]]), ([1, 2, 3, 4], [[1, 2], [3, 4]])])
def test_labels_go_with_batches_or_their_rows(labels, cut):
    specs = [("x", F32, ("n", 4)), ("ids", I64, ("n",))]
    made = stack({"x": np.zeros((2, 2, 4)), "ids": np.zeros(4, int), "labels": labels}, *specs)
    assert [list(sample.labels) for sample in made] == cut


def test_refuses_rows_for_an_input_that_takes_none():
    with pytest.raises(FeedError, match=r"expects \[0, 4\], got \[3, 4\]"):
        stack({"x": np.zeros((3, 4))}, ("x", F32, (0, 4)))
