"""Inputs made up from the declared shapes, for models that come without samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxpress.calibration.batches import Array, Sample, shape_text
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.session import Runner
from onnxpress.rewriter.errors import ConfigError, FeedError
from onnxpress.rewriter.specs import InputSpec

SIZES = (64, 48, 32, 128, 256, 224, 320, 512, 16, 8)
"""Sizes tried, in this order, for the dimensions that a model leaves open."""

IDS, FEWEST = 8, 2
"""Integers are drawn below this: they are mostly ids, and small ones are in every vocabulary. The second is for models
whose smallest, of roles or kinds, has not even so many."""

MOST_BYTES = 2**30
"""Bytes of one input beyond which a declared shape is taken for a mistake."""

_ADVICE = "give samples with --data"


def synthesise(
    inputs: Sequence[InputSpec], *, samples: int, seed: int, overrides: Mapping[str, int] | None = None
) -> Feed:
    """Make up samples from what a model declares about its inputs.

    Floats are drawn from the normal distribution, integers are small ids, bytes are any; masks are all ones, token
    types zeros, positions count up. A dimension left open is 1 on axis 0 (the batch), and elsewhere where it has the
    same name as one there; 224 for height and width and 3 for channels of an input with four axes; else 32.

    Args:
        inputs: what the model declares.
        samples: number of batches.
        seed: same seed, same samples.
        overrides: sizes by name of a dimension, or by `input:axis` for one without a name.

    Raises:
        FeedError: an input of unknown rank, of text, or of more than 1 GiB.
        ConfigError: no samples, a negative seed, or an override that names no open dimension or is below 1.
    """
    return _make(inputs, samples, seed, _Sizing(None, False, _checked(overrides or {}, inputs)))


def synthesise_runnable(runner: Runner, *, samples: int, seed: int, overrides: Mapping[str, int] | None = None) -> Feed:
    """Make up samples that a model runs: where it refuses the usual sizes, others are tried (`SIZES`).

    Where no size helps a model that reads integers, all are tried once more with the smallest (`FEWEST`).

    Args:
        runner: the model.
        samples: number of batches.
        seed: same seed, same samples.
        overrides: as in `synthesise`.

    Raises:
        FeedError: no size works, or as in `synthesise`.
        ConfigError: as in `synthesise`.
    """
    inputs = runner.input_specs
    checked = _checked(overrides or {}, inputs)
    refusal: FeedError | None = None
    distinct: dict[tuple[tuple[int, ...], ...], _Sizing] = {}
    for sizing in [_Sizing(size, narrow, checked) for size in (None, *SIZES) for narrow in (False, True)]:
        distinct.setdefault(tuple(sizing.shape(spec, inputs) for spec in inputs), sizing)
    for below in (IDS, FEWEST) if any(spec.dtype.kind in "iu" for spec in inputs) else (IDS,):
        for sizing in distinct.values():
            feed = _make(inputs, samples, seed, sizing, below=below)
            try:
                runner.run(next(iter(feed)))
            except FeedError as error:
                refusal = refusal or error
            else:
                return feed
    why = str(refusal).removeprefix(f"{runner.name} cannot run this sample: ").removesuffix("; check its shapes")
    text = f"{runner.name} runs on no made-up input ({len(distinct)} sizes tried); {_ADVICE}; the first refusal: {why}"
    raise FeedError(text) from refusal


@dataclass(frozen=True, slots=True)
class _Sizing:
    """How large the open dimensions are.

    Attributes:
        size: of all that are not the batch; None for the usual ones.
        narrow: whether unnamed ones of all inputs but the first are 1, as the batch axis of a state is.
        overrides: what the caller said.
    """

    size: int | None
    narrow: bool
    overrides: Mapping[str, int]

    def shape(self, spec: InputSpec, inputs: Sequence[InputSpec]) -> tuple[int, ...]:
        if spec.shape is None:
            raise FeedError(f"input {spec.name!r} has no declared shape, nothing can be made up for it; {_ADVICE}")
        return tuple(self._dim(spec, axis, inputs) for axis in range(len(spec.shape)))

    def _dim(self, spec: InputSpec, axis: int, inputs: Sequence[InputSpec]) -> int:
        dims = spec.shape or ()
        dim = dims[axis]
        if isinstance(dim, int):
            return dim
        key = f"{spec.name}:{axis}"
        if key in self.overrides or dim in self.overrides:
            return self.overrides[key if key in self.overrides else str(dim)]
        if axis == 0 or (_is_name(dim) and any(other.shape and other.shape[0] == dim for other in inputs)):
            return 1
        if self.narrow and spec is not inputs[0] and not _is_name(dim):
            return 1
        return self.size or _usual(dims, axis)


def _usual(dims: tuple[int | str | None, ...], axis: int) -> int:
    if len(dims) != 4:
        return 32
    if dims[3] in (1, 3, 4) or axis != 1:  # channels last, or a spatial axis of channels first
        return 224
    return 3


def _is_name(dim: int | str | None) -> bool:
    """Whether a dimension has a name that means something; exporters write `?` for none."""
    return isinstance(dim, str) and dim not in ("", "?")


def _checked(overrides: Mapping[str, int], inputs: Sequence[InputSpec]) -> Mapping[str, int]:
    open_dims = {
        key
        for spec in inputs
        for axis, dim in enumerate(spec.shape or ())
        if not isinstance(dim, int)
        for key in (f"{spec.name}:{axis}", str(dim))
    }
    for key, size in overrides.items():
        if key not in open_dims:
            raise ConfigError(f"{key!r} is no open dimension of the model; name a dimension, or input:axis")
        if size < 1:
            raise ConfigError(f"dimension {key!r} cannot be {size}; give 1 or more")
    return dict(overrides)


def _make(inputs: Sequence[InputSpec], samples: int, seed: int, sizing: _Sizing, *, below: int = IDS) -> Feed:
    if samples < 1:
        raise ConfigError(f"cannot make up {samples} samples; ask for 1 or more")
    if seed < 0:
        raise ConfigError(f"seed {seed} is negative; give 0 or more")
    shapes = tuple(sizing.shape(spec, inputs) for spec in inputs)
    for spec, shape in zip(inputs, shapes, strict=True):
        if spec.dtype.kind not in "fiub":
            raise FeedError(f"input {spec.name!r} is text, which cannot be made up; {_ADVICE}")
        if math.prod(shape) * spec.dtype.itemsize > MOST_BYTES:
            raise FeedError(f"input {spec.name!r} declares {shape_text(spec)}, more than 1 GiB; {_ADVICE}")
    text = ", ".join(f"{spec.name} {list(shape)}" for spec, shape in zip(inputs, shapes, strict=True))
    warning = f"no samples were given: inputs are made up ({text}), so accuracy and ranges mean little; {_ADVICE}"
    return Feed(_Made(tuple(inputs), shapes, samples, seed, below), count=samples, warnings=[warning], made_up=True)


@dataclass(frozen=True, slots=True)
class _Made:
    """Samples that are drawn as they are asked for."""

    inputs: tuple[InputSpec, ...]
    shapes: tuple[tuple[int, ...], ...]
    samples: int
    seed: int
    below: int

    def __iter__(self) -> Iterator[Sample]:
        for position in range(self.samples):
            random = np.random.default_rng([self.seed, position])
            pairs = zip(self.inputs, self.shapes, strict=True)
            yield Sample({spec.name: _draw(spec, shape, random, self.below) for spec, shape in pairs})


def _draw(spec: InputSpec, shape: tuple[int, ...], random: np.random.Generator, below: int) -> Array:
    name, kind = spec.name.lower(), spec.dtype.kind
    if "mask" in name:
        return np.ones(shape, spec.dtype)
    if kind == "f":
        return random.standard_normal(shape).astype(spec.dtype)
    if "token_type" in name or "segment" in name:
        return np.zeros(shape, spec.dtype)
    if "position" in name and shape:
        return np.broadcast_to(np.arange(shape[-1]).astype(spec.dtype), shape)
    if name in ("sr", "sample_rate", "sampling_rate"):
        return np.full(shape, 16000).astype(spec.dtype)
    if spec.dtype == np.uint8:  # an image
        return random.integers(0, 256, shape, dtype=np.uint8)
    return random.integers(0, 2 if kind == "b" else below, shape).astype(spec.dtype)
