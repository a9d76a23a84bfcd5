"""Recurrent weights make up for hidden units that go: no refit sees the states that a node passes on to itself.

The states that the node gives stand for those that it reads; with their second moments M the weight that stays is
R' = R·M_:K·(M_KK)⁻¹.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxpress.passes.base import Workbench
from onnxpress.passes.kernels.elimination import compensated
from onnxpress.passes.prune.channels.consumers import consumers_of, watch
from onnxpress.passes.prune.removal import Numbers
from onnxpress.passes.selection import Layout
from onnxpress.rewriter.couplings import Group
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites
from onnxpress.rewriter.weights import Array


def made_up(model: Model, units: Mapping[Group, Numbers], bench: Workbench) -> dict[str, Array]:
    """Weights of recurrent layers that do without some of their hidden units, by name of the site.

    Args:
        model: is not changed.
        units: the numbers of those to go, by group.
        bench: brings the samples.

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
    for watched in watch(model, pairs, bench):
        kept = np.setdiff1d(np.arange(watched.group.size), units[watched.group])
        for consumer, readers in zip(watched.consumers, watched.readers(), strict=True):
            try:
                rows = np.concatenate([compensated(reader, kept) for reader in readers])
            except ValueError:  # states that are no numbers: the weight stays as it is
                continue
            weights[consumer.site.name] = _like(Layout.of(consumer.site).from_rows(rows), consumer.site.array())
    return weights


def _like(wide: Array, stored: Array) -> Array:
    return wide.astype(stored.dtype)
