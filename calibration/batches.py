"""One batch of samples, and whether it fits the model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.specs import InputSpec

Array: TypeAlias = NDArray[Any]
Batch: TypeAlias = Mapping[str, Array]

LABELS = "labels"
"""The entry of a sample that holds labels, unless the model has an input of that name."""

_NAMELESS = "arr_0"
"""What `numpy.savez` calls an array that was given no name."""


class Sample(NamedTuple):
    """A batch with the labels of its rows, None where the feed has none."""

    batch: Batch
    labels: Array | None = None


def as_sample(entries: object, inputs: Sequence[InputSpec], *, where: str) -> Sample:
    """Check a batch as `fit` does; its entry `labels`, where that is no input of the model, becomes the labels.

    Raises:
        FeedError: as `fit`.
    """
    if isinstance(entries, Sample):
        return Sample(fit(entries.batch, inputs, where=where), entries.labels)
    if not isinstance(entries, Mapping):
        kind = type(entries).__name__
        raise FeedError(f"{where} is a {kind}; give a dict of arrays named after the inputs: {names_of(inputs)}")
    batch = dict(entries)
    labels = None if any(spec.name == LABELS for spec in inputs) else batch.pop(LABELS, None)
    return Sample(fit(batch, inputs, where=where), None if labels is None else np.asarray(labels))


def rename_lone(names: Sequence[str], inputs: Sequence[InputSpec]) -> dict[str, str]:
    """Which stored array is which input; a lone array that `numpy.savez` was given no name for is the lone input.

    Args:
        names: of the stored arrays.
        inputs: what the model declares.

    Returns:
        Input name, or the name itself where it is no input, by stored name.
    """
    arrays = [name for name in names if name != LABELS]
    lone = len(inputs) == 1 and arrays == [_NAMELESS]
    return {name: inputs[0].name if lone and name == _NAMELESS else name for name in names}


def fit(batch: Mapping[str, Any], inputs: Sequence[InputSpec], *, where: str) -> dict[str, Array]:
    """Check a batch against what the model declares, and cast it where that loses nothing that matters.

    Casts done: between float types unless a finite value would overflow; between integer types where the new one
    holds every value of the old; bool to integer. Integers never become floats: they are usually pixels that were
    not scaled yet.

    Args:
        batch: arrays, or what NumPy makes arrays of, by input name.
        inputs: what the model declares.
        where: names the batch in errors, such as `batch 3 of digits.npz`.

    Returns:
        One array in the declared dtype for every input, in the order of `inputs`.

    Raises:
        FeedError: an input is missing or unknown, or its rank, a fixed dimension or its type is wrong.
    """
    check_inputs(batch.keys(), inputs, where=where)
    return {spec.name: _fit_array(batch[spec.name], spec, where) for spec in inputs}


def check_inputs(names: Collection[str], inputs: Sequence[InputSpec], *, where: str) -> None:
    """Refuse arrays that are not exactly the model's inputs.

    Raises:
        FeedError: an input is missing, or a name is unknown.
    """
    unknown = sorted(str(name) for name in set(names) - {spec.name for spec in inputs})
    missing = [spec.name for spec in inputs if spec.name not in names]
    if unknown or missing:
        wrong = " and ".join(
            [f"lacks {', '.join(map(repr, missing))}"] * bool(missing)
            + [f"has {', '.join(map(repr, unknown))}, unknown to the model{_near(unknown, missing)}"] * bool(unknown)
        )
        raise FeedError(f"{where} {wrong}; name the arrays after the model's inputs: {names_of(inputs)}")


def _near(unknown: Sequence[str], missing: Sequence[str]) -> str:
    """The missing inputs that the unknown names may stand for."""
    missing_by_fold = {name.casefold(): name for name in missing}
    near = {name: get_close_matches(name.casefold(), missing_by_fold, n=1) for name in unknown}
    meant = [f"{name!r} may be {missing_by_fold[found[0]]!r}" for name, found in near.items() if found]
    return f" ({', '.join(meant)})" if meant else ""


def names_of(inputs: Sequence[InputSpec]) -> str:
    """The inputs as errors list them: `image float32 [n, 1, 28, 28], sr int64 []`."""
    return ", ".join(f"{spec.name} {_dtype_name(spec.dtype)} {shape_text(spec)}" for spec in inputs)


def shape_text(spec: InputSpec) -> str:
    """The declared shape, `?` for an unnamed dimension: `[n, 3, ?, ?]`."""
    if spec.shape is None:
        return "of unknown rank"
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in spec.shape) + "]"


def check_shape(shape: Sequence[int], spec: InputSpec, *, where: str) -> None:
    """Refuse a shape that the model's declaration forbids.

    Raises:
        FeedError: rank or a fixed dimension differs.
    """
    if spec.shape is None:
        return
    same_rank = len(shape) == len(spec.shape)
    fixed = same_rank and all(
        not isinstance(want, int) or want == got for want, got in zip(spec.shape, shape, strict=True)
    )
    if fixed:
        return
    what = "change the shape" if same_rank else "give every axis, also one of size 1"
    raise FeedError(f"{where}: input {spec.name!r} expects {shape_text(spec)}, got {list(shape)}; {what}")


def _fit_array(value: Any, spec: InputSpec, where: str) -> Array:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise FeedError(f"{where}: input {spec.name!r} is no array: {error}") from error
    check_shape(array.shape, spec, where=where)
    return _cast(array, spec, where)


def _cast(array: Array, spec: InputSpec, where: str) -> Array:
    got, want = array.dtype, spec.dtype
    if _is_text(want) and _is_text(got):
        return array.astype(object)
    if got == want and got.isnative:
        return np.require(array, requirements="C")
    if castable(got, want):
        with np.errstate(over="ignore"):  # looked for below, and reported as an error
            cast = array.astype(want, order="C")
        if not _overflowed(array, cast):
            return cast
        problem = f"values that overflow {_dtype_name(want)}; scale them"
    else:
        problem = f"{_dtype_name(got)}; convert the array"
        if got.kind in "iu" and want.kind == "f":
            problem += ", scaled as the model was trained"
    raise FeedError(f"{where}: input {spec.name!r} expects {_dtype_name(want)}, got {problem}")


def castable(got: np.dtype[Any], want: np.dtype[Any]) -> bool:
    """Whether a feed may hold `got` where the model declares `want` (see `fit`)."""
    if _is_text(got) or _is_text(want):
        return _is_text(got) and _is_text(want)
    if got.kind == "f" and want.kind == "f":
        return True
    return got.kind in "biu" and want.kind in "iub" and np.can_cast(got, want, "safe")


def _overflowed(array: Array, cast: Array) -> bool:
    narrower = array.dtype.kind == "f" and cast.dtype.itemsize < array.dtype.itemsize
    return narrower and bool((np.isfinite(array) & ~np.isfinite(cast)).any())


def _is_text(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "OUST"


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return "text" if _is_text(dtype) else dtype.name
