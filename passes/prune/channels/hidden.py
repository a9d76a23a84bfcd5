"""Recurrent weights make up for hidden units that go: no refit sees the states that a node passes on to itself.

The states that the node gives stand for those that it reads; with their second moments M the weight that stays is
R' = R·M_:K·(M_KK)⁻¹.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.elimination import Reader, compensated
from onnxpress.passes.prune.channels.consumers import Consumer, consumers_of, watch
from onnxpress.passes.prune.removal import MadeUp, Numbers
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.passes.storing import narrowed
from onnxpress.rewriter.couplings import Group
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites
from onnxpress.rewriter.weights import Array


def made_up(model: Model, units: Mapping[Group, Numbers], bench: Workbench) -> MadeUp:
    """Weights of recurrent layers that do without some of their hidden units.

    Args:
        model: is not changed.
        units: the numbers of those to go, by group.
        bench: brings the samples.

    Returns:
        The weights, and the reasons why others have none.

    Raises:
        FeedError: there are no samples.
    """
    sites = {id(site.weight): site for site in find_sites(model)}
    pairs = []
    for group in units:
        found = [each for each in consumers_of(model, group, sites) if each.recurrent]
        if found:
            pairs.append((group, found))
    weights: dict[str, Array] = {}
    unseen = "the samples show no state of it without NaN or infinities"
    refused = {each.site.name: unseen for _, found in pairs for each in found}
    for watched in watch(model, pairs, bench):
        kept = np.setdiff1d(np.arange(watched.group.size), units[watched.group])
        for consumer, readers in zip(watched.consumers, watched.readers(), strict=True):
            name = consumer.site.name
            try:
                weights[name] = _made_up(consumer, readers, kept)
                del refused[name]
            except (RefusalError, ValueError) as error:
                refused[name] = str(error)
    return MadeUp(weights, refused)


def _made_up(consumer: Consumer, readers: Sequence[Reader], kept: Numbers) -> Array:
    """The weight of one layer.

    Raises:
        RefusalError: its type cannot hold it.
        ValueError: the moments of its states have no inverse.
    """
    rows = np.concatenate([compensated(reader, kept) for reader in readers])
    return narrowed(Layout.of(consumer.site).from_rows(rows), consumer.site.array().dtype)
