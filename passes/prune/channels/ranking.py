"""Which units of a group matter least, by the criteria that people know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from onnxpress.calibration.observers import Rows
from onnxpress.passes.base import Workbench
from onnxpress.passes.inputs import observe_readings
from onnxpress.passes.kernels.arrays import Float64Array
from onnxpress.passes.kernels.elimination import Elimination, Reader, drop, eliminate
from onnxpress.passes.kernels.importance import energies, joint, median_distances, norms, presences
from onnxpress.passes.prune.channels.consumers import Consumer, Watched
from onnxpress.passes.selection import RefusalError
from onnxpress.passes.threads import threads_for
from onnxpress.rewriter.couplings import Group
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.weights import read

Importance: TypeAlias = Literal["l1", "l2", "geometric-median", "activation", "apoz", "thinet", "output"]
IMPORTANCES: tuple[str, ...] = get_args(Importance)
DATA_FREE = ("l1", "l2", "geometric-median")
GREEDY = ("thinet", "output")

_SAMPLE = 2048


def weight_scores(group: Group, importance: Importance) -> Float64Array:
    """How much each unit matters by the weights alone: of all layers that make or read it, each over its mean.

    Args:
        group: of units.
        importance: `l1`, `l2` or `geometric-median`.

    Returns:
        float64 [units].
    """
    found = []
    for member in group.members:
        if member.role not in ("out", "in"):
            continue
        array = np.moveaxis(read(member.tensor), member.axis, 0)
        rows = array[member.indices.ravel()].reshape(group.size, -1)
        if importance == "geometric-median":
            found.append(median_distances(rows))
        else:
            found.append(norms(rows, norm="l1" if importance == "l1" else "l2"))
    return joint([np.nan_to_num(each, nan=0.0, posinf=0.0) for each in found])


def activation_scores(
    model: Model, groups: Sequence[tuple[Group, Sequence[Consumer]]], importance: Importance, bench: Workbench
) -> Mapping[str, Float64Array]:
    """How much each unit matters by what its consumers read of it, on a sample of rows.

    Args:
        model: is not changed.
        groups: each with its consumers; those without are left out of the result.
        importance: `activation` or `apoz`.
        bench: brings the samples.

    Returns:
        float64 [units] by name of the group.
    """
    seen = {
        reading: Rows(view=reading.view, count=_SAMPLE, seed=bench.seed)
        for _, found in groups
        for consumer in found
        for reading in consumer.readings
    }
    if seen:
        observe_readings(model, seen, bench)
    measure = energies if importance == "activation" else presences
    scores = {}
    for group, found in groups:
        each = [
            measure(rows, consumer.columns)
            for consumer in found
            for reading in consumer.readings
            for rows in seen[reading].rows
        ]
        if each:
            scores[group.name] = joint(each)
    return scores


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The units of a group, from the one that matters least on.

    Attributes:
        group: of units.
        order: numbers of the units that may go, [n].
        scores: how much each of them matters, ascending, comparable between groups, [n].
        errors: relative squared error of the consumers' outputs once the first 0 … n units are gone, [n + 1].
        consumers: whose errors are summed.
        observed: whether the errors come from what consumers read; else they are guessed from the scores.
    """

    group: Group
    order: NDArray[np.int64]
    scores: Float64Array
    errors: Float64Array
    consumers: int
    observed: bool


def ranked_by_scores(group: Group, scores: Float64Array, *, most: int) -> Ranking:
    """The units in the order of their scores; what they cost is guessed: the share of the squares that is gone."""
    order = np.argsort(scores, kind="stable")[:most]
    square = np.cumsum(np.concatenate([[0.0], scores[order] ** 2]))
    errors = square / max(float((scores**2).sum()), 1e-30)
    return Ranking(group, order, scores[order], errors, consumers=1, observed=False)


def ranked_by_samples(
    watched: Watched, importance: Importance, scores: Float64Array | None, *, most: int, refitted: bool
) -> Ranking:
    """The units in the order of their scores, or greedily by what their loss costs the consumers.

    Args:
        watched: the group, with moments of what consumers read.
        importance: what decides.
        scores: float64 [units]; None where the order is sought greedily.
        most: units that go at most.
        refitted: whether consumers are fitted anew afterwards.

    Raises:
        RefusalError: there is nothing to tell from.
    """
    readers = _readers(watched)
    order = None if scores is None else np.argsort(scores, kind="stable")[:most]
    try:
        trace = _trace(readers, importance, order, most=most, refitted=refitted)
    except np.linalg.LinAlgError as error:
        raise RefusalError(str(error)) from error
    errors = trace.errors.sum(axis=0)
    ranked = np.maximum.accumulate(np.diff(errors)) if scores is None else scores[trace.order]
    return Ranking(watched.group, trace.order, ranked, errors, consumers=len(readers), observed=True)


def _readers(watched: Watched) -> list[Reader]:
    """What tells how much the loss of units costs.

    Raises:
        RefusalError: nothing does.
    """
    readers = [reader for each in watched.readers() for reader in each]
    if not readers:
        raise RefusalError("what reads it cannot be observed on these samples")
    if not all(np.isfinite(each.moment).all() and np.isfinite(each.weight).all() for each in readers):
        raise RefusalError("weights that read it, or what they read, are no numbers or too large")
    loud = [each for each in readers if each.energy > 0]
    if not loud:
        raise RefusalError("the layers that read it give nothing but zeros on these samples")
    return loud


def _trace(
    readers: Sequence[Reader], importance: Importance, order: NDArray[np.int64] | None, *, most: int, refitted: bool
) -> Elimination:
    with threads_for(max(each.moment.shape[-1] for each in readers)):
        return _traced(readers, importance, order, most=most, refitted=refitted)


def _traced(
    readers: Sequence[Reader], importance: Importance, order: NDArray[np.int64] | None, *, most: int, refitted: bool
) -> Elimination:
    if importance == "thinet" or not refitted:
        dropped = drop(readers, most=most, order=order)
        if not refitted:
            return dropped
        order = dropped.order
    return eliminate(readers, most=most, order=order)
