"""How close outputs are, and how well a model does its task."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from onnxpress.calibration.batches import Array
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.plugins import blame, by_signal, load_function
from onnxpress.calibration.session import Runner
from onnxpress.rewriter.errors import ConfigError, FeedError, OnnxpressError

ROUNDING = 1e-12
"""That a difference of two metrics may be off by: 0.91 − 0.9 is more than 0.01."""


@runtime_checkable
class Metric(Protocol):
    """The task's own measure of a model; larger is better."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    def __call__(self, runner: Runner, feed: Feed, /) -> float:
        """Measure the model that `runner` runs on the samples of `feed`."""
        ...


@dataclass(frozen=True, slots=True)
class Top1:
    """The share of samples whose largest output is at the index of the label, 0 to 1.

    The first output is judged, along its last axis: [rows, classes], or [rows, steps, classes] with labels
    [rows, steps].
    """

    name: str = "top1"

    def __call__(self, runner: Runner, feed: Feed, /) -> float:
        """Run all samples.

        Raises:
            FeedError: samples without labels, not one label for each row, or labels that are no class indices.
        """
        return top1(runner, feed)


@dataclass(frozen=True, slots=True)
class UserMetric:
    """A function of the user's own: `f(runner)` or `f(runner, feed)`, returning a number."""

    name: str
    function: Callable[..., object] = field(repr=False)
    takes_feed: bool

    def __call__(self, runner: Runner, feed: Feed, /) -> float:
        """Call the function.

        Raises:
            ConfigError: it raised, exited, or returned no number.
            FeedError: it gave the runner what the model cannot run, or took a sample that does not fit.
        """
        try:
            value = self.function(runner, feed) if self.takes_feed else self.function(runner)
        except FeedError as error:
            raise FeedError(f"metric {self.name}: {error}") from error
        except OnnxpressError:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's function does
            if by_signal(error):
                raise
            raise ConfigError(f"metric {blame(self.name, error)}") from error
        try:
            return float(np.asarray(value).item())
        except (TypeError, ValueError) as error:
            raise ConfigError(f"metric {self.name} returned a {type(value).__name__}; return one number") from error


def load_metric(reference: str) -> Metric:
    """Find a metric by name: `top1`, or the user's `module:function`.

    The function takes a runner, and also the feed where its second parameter is required or named `feed`; it returns
    a number, larger for a better model.

    Raises:
        ConfigError: no such metric, or a function that takes other arguments.
    """
    if reference == "top1":
        return Top1()
    if ":" not in reference:
        raise ConfigError(f"metric {reference!r} is unknown; give top1 or module:function")
    function = load_function(reference)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions written in C tell nothing
        return UserMetric(reference, function, takes_feed=False)
    takes_feed = _takes_feed(list(signature.parameters.values()))
    try:
        signature.bind(*([None] * (1 + takes_feed)))
    except TypeError as error:
        raise ConfigError(f"metric {reference}{signature} must take a runner, or a runner and a feed") from error
    return UserMetric(reference, function, takes_feed=takes_feed)


def _takes_feed(parameters: Sequence[inspect.Parameter]) -> bool:
    """Whether there is a second parameter for the feed, and not an option of some other meaning."""
    if len(parameters) < 2 or parameters[1].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        return False
    return parameters[1].default is inspect.Parameter.empty or parameters[1].name == "feed"


def top1(runner: Runner, feed: Feed) -> float:
    """The share of samples whose largest output is at the index of the label, 0 to 1 (see `Top1`).

    Raises:
        FeedError: samples without labels, not one label for each row, or labels that are no class indices.
    """
    output = runner.output_names[0]
    right = total = 0
    for batch, labels in feed.samples():
        if labels is None:
            raise FeedError("top1 needs labels; add an entry `labels` to the feed, one a sample")
        scores = runner.run(batch, outputs=[output])[output]
        chosen = scores.argmax(axis=-1)
        if chosen.size != labels.size:
            raise FeedError(f"{labels.size} labels for {chosen.size} rows of output {output!r}; give one a row")
        _check_classes(labels, scores.shape[-1] if scores.ndim else 1, output)
        right += int((chosen.reshape(-1) == labels.reshape(-1)).sum())
        total += chosen.size
    return right / total if total else math.nan


def _check_classes(labels: Array, classes: int, output: str) -> None:
    """Refuse labels that are not indices of classes.

    Raises:
        FeedError: text, fractions, or numbers beyond the classes.
    """
    if not labels.size:
        return
    advice = f"label with whole numbers, 0 to {classes - 1} for the {classes} classes of output {output!r}"
    if labels.dtype.kind not in "biuf":
        raise FeedError(f"top1 cannot judge by labels such as {labels.item(0)!r}; {advice}")
    whole = labels if labels.dtype.kind != "f" else np.trunc(labels)
    wrong = labels[(whole != labels) | (labels < 0) | (labels >= classes)]
    if wrong.size:
        raise FeedError(f"top1 cannot judge by the label {wrong[0]}; {advice}")


@dataclass(slots=True)
class Comparison:
    """How close one output is to its reference, summed batch by batch in float64; nothing is kept.

    Entries where either is NaN or infinite are counted in `unlike` unless both are the same, and left out of the sums.

    Attributes:
        signal: Σ r².
        noise: Σ (r − t)².
        power: Σ t².
        product: Σ r·t.
        largest: max |r − t|.
        agreeing: rows whose argmax along the last axis agrees.
        rows: rows with such an argmax.
        unlike: entries where one is NaN or infinite and the other is not the same.
    """

    signal: float = 0.0
    noise: float = 0.0
    power: float = 0.0
    product: float = 0.0
    largest: float = 0.0
    agreeing: int = 0
    rows: int = 0
    unlike: int = 0

    def update(self, reference: Array, test: Array) -> None:
        """Add one batch.

        Args:
            reference: of any shape and real or boolean type.
            test: of the same shape.

        Raises:
            ValueError: the shapes differ.
        """
        if reference.shape != test.shape:
            raise ValueError(f"shapes {reference.shape} and {test.shape} differ")
        r, t = (np.asarray(array, dtype=np.float64) for array in (reference, test))
        if r.ndim and r.shape[-1] > 1 and r.size:
            agree = r.argmax(axis=-1) == t.argmax(axis=-1)
            self.agreeing += int(agree.sum())
            self.rows += agree.size
        finite = np.isfinite(r) & np.isfinite(t)
        if not finite.all():
            same = (r == t) | (np.isnan(r) & np.isnan(t))
            self.unlike += int((~finite & ~same).sum())
            r, t = r[finite], t[finite]
        error = r - t
        self.signal += float(np.vdot(r, r))
        self.noise += float(np.vdot(error, error))
        self.power += float(np.vdot(t, t))
        self.product += float(np.vdot(r, t))
        self.largest = max(self.largest, float(np.abs(error).max(initial=0.0)))

    def merge(self, other: Comparison) -> None:
        """Add what another one summed over other batches."""
        self.largest = max(self.largest, other.largest)
        for name in ("signal", "noise", "power", "product", "agreeing", "rows", "unlike"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def sqnr(self) -> float:
        """10·log10(Σ r² / Σ (r − t)²) in dB; inf when equal, −inf when the reference is zero and the test is not.

        NaN where one is NaN or infinite and the other is not the same.
        """
        if self.unlike:
            return math.nan
        if self.noise == 0:
            return math.inf
        return 10 * (math.log10(self.signal) - math.log10(self.noise)) if self.signal else -math.inf

    @property
    def cosine(self) -> float:
        """Σ r·t / (‖r‖·‖t‖), −1 to 1; 1 when both are zero, 0 when only one is."""
        if self.unlike:
            return math.nan
        norms = math.sqrt(self.signal) * math.sqrt(self.power)
        if norms == 0:
            return 1.0 if self.signal == self.power else 0.0
        return max(-1.0, min(1.0, self.product / norms))

    @property
    def max_abs_error(self) -> float:
        """Max |r − t|; inf where one is NaN or infinite and the other is not the same."""
        return math.inf if self.unlike else self.largest

    @property
    def agreement(self) -> float | None:
        """The share of rows whose argmax along the last axis agrees, 0 to 1; None where there is none to take."""
        return self.agreeing / self.rows if self.rows else None


def sqnr(reference: Array, test: Array) -> float:
    """Signal to quantization-noise ratio in dB (see `Comparison.sqnr`)."""
    return _compare(reference, test).sqnr


def cosine(reference: Array, test: Array) -> float:
    """Cosine of the angle between two arrays (see `Comparison.cosine`)."""
    return _compare(reference, test).cosine


def max_abs_error(reference: Array, test: Array) -> float:
    """Largest absolute difference (see `Comparison.max_abs_error`)."""
    return _compare(reference, test).max_abs_error


def argmax_agreement(reference: Array, test: Array) -> float | None:
    """Share of rows whose argmax along the last axis agrees (see `Comparison.agreement`)."""
    return _compare(reference, test).agreement


def _compare(reference: Array, test: Array) -> Comparison:
    comparison = Comparison()
    comparison.update(reference, test)
    return comparison
