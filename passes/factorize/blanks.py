"""Chains before anything is fitted: as fast as fitted ones, for no runtime looks at values."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from onnxpress.passes.factorize.chain import replace_by_chain
from onnxpress.passes.factorize.schemes.base import ChainFactors, ChainScheme, Factors, Ranks, Scheme
from onnxpress.passes.factorize.schemes.groups import GroupFactors
from onnxpress.passes.factorize.schemes.layer import Layer
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.edits import sweep
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, find_sites


def blank(scheme: Scheme, site: Site, ranks: Ranks) -> Factors:
    """Factors of the right shapes, of random numbers that keep activations about as large as they are.

    Raises:
        RefusalError: it is a scheme that nothing can be foreseen of.
    """
    layer, random = Layer.of(site), np.random.default_rng(0)
    if isinstance(scheme, ChainScheme):
        form = scheme.form(layer, ranks)
        shapes = [stage.shape(layer) for stage in form.stages]
        kernels = [random.standard_normal((layer.groups * shape[0], *shape[1:])) for shape in shapes]
        return ChainFactors(form, tuple(each / math.sqrt(math.prod(each.shape[1:])) for each in kernels))
    if scheme.name != "groups":
        raise RefusalError(f"nothing is known of the factors of '{scheme.name}' before they are fitted")
    count = layer.channels // ranks[0]
    outputs, inputs = (np.arange(size).reshape(-1, count).T for size in (layer.out, layer.channels))
    weights = random.standard_normal((count, layer.out // count, ranks[0] * layer.taps))
    return GroupFactors(layer, outputs, inputs, weights / math.sqrt(weights.shape[-1]))


def with_blanks(model: Model, plans: Mapping[str, tuple[Scheme, Ranks]]) -> Model:
    """A copy of a model in which layers are such chains.

    Args:
        model: is not changed.
        plans: schemes and ranks, by name of the site.
    """
    copy = model.clone()
    for site in find_sites(copy):
        if site.name in plans:
            replace_by_chain(copy, site, blank(plans[site.name][0], site, plans[site.name][1]).links())
    sweep(copy)
    return copy
