"""Passes by the names that recipes use; modules are imported when their pass is asked for."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from onnxpress.passes.base import Pass
from onnxpress.rewriter.errors import ConfigError

GROUP = "onnxpress.passes"
"""Entry points by which other distributions add passes."""

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "normalise": "onnxpress.passes.normalise:Normalise",
        "prune-magnitude": "onnxpress.passes.prune.zeros.magnitude:PruneMagnitude",
        "prune-second-order": "onnxpress.passes.prune.zeros.second_order:PruneSecondOrder",
        "prune-channels": "onnxpress.passes.prune.channels.channels:PruneChannels",
        "prune-blocks": "onnxpress.passes.prune.blocks.blocks:PruneBlocks",
        "merge-neurons": "onnxpress.passes.prune.merge.merge:MergeNeurons",
        "prune-positions": "onnxpress.passes.prune.positions.positions:PrunePositions",
        "share-kmeans": "onnxpress.passes.share.kmeans:ShareKMeans",
        "share-entropy": "onnxpress.passes.share.entropy:ShareEntropy",
        "share-budget": "onnxpress.passes.share.budget:ShareBudget",
        "share-vectors": "onnxpress.passes.share.vectors:ShareVectors",
        "share-hash": "onnxpress.passes.share.hashing:ShareHash",
        "share-mixture": "onnxpress.passes.share.mixture:ShareMixture",
        "binarize": "onnxpress.passes.share.binarize:Binarize",
        "factorize": "onnxpress.passes.factorize.auto:Factorize",
        "factorize-svd": "onnxpress.passes.factorize.svd:FactorizeSVD",
        "factorize-spatial": "onnxpress.passes.factorize.spatial:FactorizeSpatial",
        "factorize-tucker": "onnxpress.passes.factorize.tucker:FactorizeTucker",
        "factorize-cp": "onnxpress.passes.factorize.cp:FactorizeCP",
        "factorize-train": "onnxpress.passes.factorize.train:FactorizeTrain",
        "factorize-separable": "onnxpress.passes.factorize.separable:FactorizeSeparable",
        "factorize-groups": "onnxpress.passes.factorize.groups:FactorizeGroups",
        "merge-products": "onnxpress.passes.factorize.merge:MergeProducts",
        "structure-circulant": "onnxpress.passes.structure.circulant:StructureCirculant",
        "structure-toeplitz": "onnxpress.passes.structure.toeplitz:StructureToeplitz",
        "structure-fastfood": "onnxpress.passes.structure.fastfood:StructureFastfood",
        "structure-acdc": "onnxpress.passes.structure.acdc:StructureACDC",
        "equalize": "onnxpress.passes.balance.equalize:Equalize",
        "smooth": "onnxpress.passes.balance.smooth:Smooth",
        "quantize-static": "onnxpress.passes.quantize.static:QuantizeStatic",
        "quantize-dynamic": "onnxpress.passes.quantize.dynamic:QuantizeDynamic",
        "quantize-weights": "onnxpress.passes.blockwise.weights:QuantizeWeights",
        "convert-float16": "onnxpress.passes.narrow.float16:ConvertFloat16",
        "encode": "onnxpress.passes.encode.encode:Encode",
        "decode": "onnxpress.passes.encode.decode:Decode",
        "strip": "onnxpress.passes.strip:Strip",
    }
)
"""The passes that come with onnxpress: `module:class` by name."""


@cache
def known() -> Mapping[str, str]:
    """All passes: `module:class` by name, in alphabetical order; a name of our own cannot be taken by others."""
    others = {each.name: each.value for each in importlib.metadata.entry_points(group=GROUP)}
    return MappingProxyType(dict(sorted({**others, **BUILT_IN}.items())))


def find(name: str) -> type[Pass]:
    """The class of a pass.

    Raises:
        ConfigError: no pass has that name, or it cannot be imported.
    """
    if name not in known():
        raise ConfigError(f"no pass is called {name!r}; {suggest(name, known())}")
    reference = known()[name]
    module, _, attribute = reference.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module of others may fail in any way while it is imported
        why = str(error).partition("\n")[0] or type(error).__name__
        raise ConfigError(f"pass {name!r} is declared as {reference}, which cannot be imported: {why}") from error
    if not (isinstance(found, type) and issubclass(found, Pass)):
        raise ConfigError(f"pass {name!r} is declared as {reference}, which is not a subclass of Pass")
    if not isinstance(getattr(found, "name", None), str):
        raise ConfigError(
            f"pass {name!r} is declared as {reference}, which has no `name`: give it that of the entry point"
        )
    return found


def suggest(name: str, names: Mapping[str, object]) -> str:
    """What to say after an unknown name: the near ones, else all."""
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(names))}"
