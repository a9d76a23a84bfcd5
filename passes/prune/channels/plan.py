"""Which units go: groups are ranked, what their loss does to the outputs is tried, and the target is shared out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.elimination import compensated
from onnxpress.passes.prune.amounts import Limits
from onnxpress.passes.prune.channels.consumers import Consumer, Watched, consumers_of, watch
from onnxpress.passes.prune.channels.ranking import (
    DATA_FREE,
    GREEDY,
    Importance,
    Ranking,
    activation_scores,
    ranked_by_samples,
    ranked_by_scores,
    weight_scores,
)
from onnxpress.passes.prune.trials import Altered, Trials, open_trials
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.rewriter.couplings import Group
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites

TRIED = (1.0, 2.0)
"""At these multiples of the wanted ratio, what the loss of a group's units does to the outputs is tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitCriterion:
    """How units are judged.

    Attributes:
        importance: what decides within a group.
        limits: which numbers may go.
        ratio: the part of each group that may be expected to go, at which trials are made.
        refitted: whether consumers are fitted anew afterwards.
        trials: whether what pruning does to the outputs is tried.
    """

    importance: Importance
    limits: Limits
    ratio: float
    refitted: bool
    trials: bool


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A group that may be pruned, and what that costs.

    Attributes:
        ranking: of its units.
        choices: how many may go, ascending from 0.
        gain: relative noise of the outputs for each relative squared error of the consumers; None where it was not
            tried.
        unseen: why weights alone decide although there are samples; None where they do not.
        untried: why the outputs do not tell although they were to; None where they do.
    """

    ranking: Ranking
    choices: list[int]
    gain: float | None
    unseen: str | None = None
    untried: str | None = None

    @property
    def group(self) -> Group:
        """The group."""
        return self.ranking.group

    def noise(self, count: int, *, gain: float = 1.0) -> float:
        """The noise to expect once `count` units are gone."""
        return float(self.ranking.errors[count]) * (gain if self.gain is None else self.gain)


def judge(model: Model, groups: Sequence[Group], criterion: UnitCriterion, bench: Workbench) -> list[Candidate]:
    """Rank the units of groups, and try what their loss does.

    Args:
        model: is not changed.
        groups: found in it.
        criterion: how.
        bench: brings samples, where the criterion wants some.

    Raises:
        FeedError: there are no samples.
    """
    if bench.feed is None:
        return [_by_weights(group, criterion) for group in groups]
    sites = {id(site.weight): site for site in find_sites(model)}
    pairs = [(group, consumers_of(model, group, sites)) for group in groups]
    scores = _scores(model, pairs, criterion, bench)
    with _trials(model, pairs, criterion, bench) as trials:
        seen = bench.progress.track(watch(model, pairs, bench), label="groups", total=len(pairs))
        return [_by_samples(watched, scores, criterion, trials) for watched in seen]


def _scores(
    model: Model, pairs: Sequence[tuple[Group, list[Consumer]]], criterion: UnitCriterion, bench: Workbench
) -> Mapping[str, NDArray[np.float64]]:
    """Scores by name of the group; none where the order is sought greedily."""
    if criterion.importance in GREEDY:
        return {}
    if criterion.importance in DATA_FREE:
        return {group.name: weight_scores(group, criterion.importance) for group, _ in pairs}
    return activation_scores(model, pairs, criterion.importance, bench)


def _by_weights(group: Group, criterion: UnitCriterion) -> Candidate:
    """A group whose consumers nobody observed; without samples, or where these do not show them."""
    importance = criterion.importance if criterion.importance in DATA_FREE else "l2"
    choices = criterion.limits.removable(group)
    ranking = ranked_by_scores(group, weight_scores(group, importance), most=choices[-1])
    if criterion.importance in GREEDY:  # other groups' scores are errors
        ranking = replace(ranking, scores=np.diff(ranking.errors))
    return Candidate(ranking, choices, None)


def _by_samples(
    watched: Watched, scores: Mapping[str, NDArray[np.float64]], criterion: UnitCriterion, trials: Trials | None
) -> Candidate:
    group, choices = watched.group, criterion.limits.removable(watched.group)
    try:
        ranking = ranked_by_samples(
            watched, criterion.importance, scores.get(group.name), most=choices[-1], refitted=criterion.refitted
        )
    except RefusalError as refusal:
        return replace(_by_weights(group, criterion), unseen=str(refusal))
    if trials is None:
        return Candidate(ranking, choices, None)
    try:
        return Candidate(ranking, choices, _gain(watched, ranking, criterion, trials))
    except RefusalError as refusal:
        return Candidate(ranking, choices, None, untried=str(refusal))


@contextmanager
def _trials(
    model: Model, pairs: Sequence[tuple[Group, list[Consumer]]], criterion: UnitCriterion, bench: Workbench
) -> Iterator[Trials | None]:
    if not criterion.trials:
        yield None
        return
    sites = [consumer.site for _, found in pairs for consumer in found]
    with open_trials(model, sites, bench) as trials:
        yield trials if trials.useful else None


def _gain(watched: Watched, ranking: Ranking, criterion: UnitCriterion, trials: Trials) -> float:
    """How much noise of the outputs comes of each relative squared error of the consumers: the mean of some trials.

    Raises:
        RefusalError: it cannot be tried, or the outputs do not tell.
    """
    group = watched.group
    fixed = [consumer.site.name for consumer in watched.consumers if not trials.takes(consumer.site.name)]
    if fixed:
        raise RefusalError(f"other weights of '{fixed[0]}' cannot be tried: it lies in a branch, or is no float32")
    counts = {criterion.limits.nearest(group, ratio * criterion.ratio * group.size) for ratio in TRIED}
    gains = []
    for count in sorted(counts - {0}):
        error = float(ranking.errors[count])
        if error > 0:
            gains.append(trials.noise(_tried(watched, ranking.order[:count], criterion)) / error)
    finite = [gain for gain in gains if math.isfinite(gain) and gain > 0]
    if not finite:
        raise RefusalError("no trial without some of it gave outputs that can be compared")
    return math.exp(sum(map(math.log, finite)) / len(finite))


def _tried(watched: Watched, gone: NDArray[np.int64], criterion: UnitCriterion) -> dict[str, Altered]:
    """What consumers would be without some units.

    Raises:
        RefusalError: nothing can make up for the loss.
    """
    try:
        return _altered(watched, gone, refitted=criterion.refitted)
    except np.linalg.LinAlgError as error:
        raise RefusalError(str(error)) from error


def _altered(watched: Watched, gone: NDArray[np.int64], *, refitted: bool) -> dict[str, Altered]:
    """Weights of the consumers that do without some units."""
    kept = np.setdiff1d(np.arange(watched.group.size), gone)
    altered = {}
    for consumer, readers, means in zip(watched.consumers, watched.readers(), watched.means(), strict=True):
        made, shifts = [], []
        for reader, mean in zip(readers, means, strict=True):
            if refitted:
                weight = compensated(reader, kept)
            else:
                weight = np.array(reader.weight, np.float64)
                weight[:, reader.columns[gone].ravel()] = 0
            made.append(weight)
            shifts.append((reader.weight - weight) @ mean if refitted else np.zeros(len(weight)))
        rows = np.concatenate(made).astype(np.float32)
        altered[consumer.site.name] = Altered(Layout.of(consumer.site).from_rows(rows), np.concatenate(shifts))
    return altered
