"""What fits a model, and what is refused."""

import numpy as np
import pytest

from onnxpress.calibration.batches import Sample, as_sample, fit, rename_lone
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.specs import InputSpec


def spec(dtype: object, *shape: int | str | None, name: str = "x") -> InputSpec:
    return InputSpec(name, np.dtype(dtype), shape)


@pytest.mark.parametrize(
    ("got", "want"),
    [
        ("float64", "float32"),
        ("float32", "float16"),
        ("float32", "float64"),
        (">f4", "float32"),
        ("int32", "int64"),
        ("uint8", "int32"),
        ("bool", "int64"),
        ("<U3", "object"),
    ],
)
def test_casts_what_loses_nothing(got, want):
    fitted = fit({"x": np.ones(2).astype(got)}, [spec(want, "n")], where="batch 0")
    assert fitted["x"].dtype == np.dtype(want)
    assert fitted["x"].dtype.isnative


@pytest.mark.parametrize(
    ("got", "want", "hint"),
    [
        ("int64", "int32", "expects int32, got int64; convert"),
        ("uint8", "float32", "got uint8; convert the array, scaled as the model was trained"),
        ("float32", "int64", "expects int64, got float32"),
        ("int8", "bool", "expects bool, got int8"),
        ("<U3", "float32", "expects float32, got text"),
        ("float32", "object", "expects text, got float32"),
        ("complex64", "float32", "got complex64"),
    ],
)
def test_refuses_other_types(got, want, hint):
    with pytest.raises(FeedError, match=hint) as caught:
        fit({"x": np.ones(2).astype(got)}, [spec(want, "n")], where="batch 0")
    assert "\n" not in str(caught.value)
    assert "'x'" in str(caught.value)


def test_refuses_a_cast_that_overflows_but_lets_infinities_pass():
    with pytest.raises(FeedError, match="overflow float16"):
        fit({"x": np.array([1e6])}, [spec("float16", "n")], where="batch 0")
    assert np.isinf(fit({"x": np.array([-np.inf])}, [spec("float16", "n")], where="batch 0")["x"])


def test_makes_arrays_contiguous_and_leaves_the_given_one_alone():
    given = np.ones((3, 4), np.float32).T
    fitted = fit({"x": given}, [spec("float32", 4, "n")], where="batch 0")["x"]
    assert fitted.flags.c_contiguous
    assert not given.flags.c_contiguous


@pytest.mark.parametrize(
    ("batch", "hint"),
    [
        ({}, r"lacks 'x'; name the arrays after the model's inputs: x float32 \[n, 4\]"),
        ({"x": np.ones((2, 4)), "z": np.ones(1)}, "has 'z', unknown to the model"),
        ({"y": np.ones((2, 4))}, "lacks 'x' and has 'y', unknown"),
        ({"x": np.ones(4)}, r"expects \[n, 4\], got \[4\]; give every axis"),
        ({"x": np.ones((2, 5))}, r"expects \[n, 4\], got \[2, 5\]; change the shape"),
        ({"x": [[1, 2], [3]]}, "is no array"),
    ],
)
def test_names_what_does_not_fit(batch, hint):
    with pytest.raises(FeedError, match=hint):
        fit(batch, [spec("float32", "n", 4)], where="batch 7")


@pytest.mark.parametrize(("got", "want"), [("imgae", "image"), ("Image", "image"), ("input_id", "input_ids")])
def test_says_which_input_may_be_meant(got, want):
    with pytest.raises(FeedError, match=rf"has '{got}', unknown to the model \('{got}' may be '{want}'\)"):
        fit({got: np.ones(2)}, [spec("float32", "n", name=want)], where="batch 7")


def test_only_an_array_without_a_name_is_the_lone_input():
    assert rename_lone(["arr_0", "labels"], [spec("float32", "n")]) == {"arr_0": "x", "labels": "labels"}
    for names in (["z"], ["arr_0", "arr_1"], ["arr_0", "x"]):
        assert rename_lone(names, [spec("float32", "n")]) == {name: name for name in names}
    both = [spec("float32", "n"), spec("float32", "n", name="y")]
    assert rename_lone(["arr_0"], both) == {"arr_0": "arr_0"}


def test_any_shape_fits_an_unknown_rank():
    unknown = InputSpec("x", np.dtype("float32"), None)
    assert fit({"x": np.ones((1, 2, 3))}, [unknown], where="batch 0")["x"].shape == (1, 2, 3)


def test_labels_are_set_apart_unless_the_model_takes_them():
    entries = {"x": np.ones(2), "labels": [1, 2]}
    sample = as_sample(entries, [spec("float32", "n")], where="batch 0")
    assert list(sample.batch) == ["x"]
    np.testing.assert_array_equal(sample.labels, [1, 2])
    both = [spec("float32", "n"), spec("int64", "n", name="labels")]
    assert as_sample(entries, both, where="batch 0").labels is None
    assert as_sample(Sample({"x": np.ones(2)}), both[:1], where="batch 0").labels is None


def test_refuses_what_is_no_dict():
    with pytest.raises(FeedError, match="batch 3 is a ndarray; give a dict"):
        as_sample(np.ones(2), [spec("float32", "n")], where="batch 3")
