"""Make exported ONNX models smaller and faster, with proof of what it cost.

One call, by a built-in recipe:

    import onnxpress

    result = onnxpress.compress("model.onnx", "small.onnx", recipe="balanced", data="samples.npz")
    print(result.ratio, result.speedup, result.verification.sqnr)

Or pass by pass:

    from onnxpress import Encode, Model, Pipeline, ShareKMeans

    model = Model.load("model.onnx")
    result = Pipeline([ShareKMeans(bits=5), Encode()])(model)
    result.model.save("small.onnx")
    for report in result.reports:
        print(report.name, len(report.changes), "changed,", len(report.skips), "left alone")

`onnxpress.errors` draws the tree of errors. What stands here is imported when it is first used, so that
`import onnxpress` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxpress.benchmark import Benchmark, bench
    from onnxpress.calibration.feeds import Feed, open_feed
    from onnxpress.calibration.metrics import load_metric
    from onnxpress.calibration.session import Runner
    from onnxpress.compression import compress
    from onnxpress.inspection import Inspection, inspect
    from onnxpress.outcome import CompressionResult
    from onnxpress.parity import Verification
    from onnxpress.passes.balance.equalize import Equalize
    from onnxpress.passes.balance.smooth import Smooth
    from onnxpress.passes.base import Pass, PassResult, Workbench
    from onnxpress.passes.blockwise.weights import QuantizeWeights
    from onnxpress.passes.encode.encode import Encode
    from onnxpress.passes.factorize.auto import Factorize
    from onnxpress.passes.factorize.cp import FactorizeCP
    from onnxpress.passes.factorize.groups import FactorizeGroups
    from onnxpress.passes.factorize.merge import MergeProducts
    from onnxpress.passes.factorize.separable import FactorizeSeparable
    from onnxpress.passes.factorize.spatial import FactorizeSpatial
    from onnxpress.passes.factorize.svd import FactorizeSVD
    from onnxpress.passes.factorize.train import FactorizeTrain
    from onnxpress.passes.factorize.tucker import FactorizeTucker
    from onnxpress.passes.narrow.float16 import ConvertFloat16
    from onnxpress.passes.normalise import Normalise
    from onnxpress.passes.pipeline import Pipeline, PipelineResult
    from onnxpress.passes.prune.blocks.blocks import PruneBlocks
    from onnxpress.passes.prune.channels.channels import PruneChannels
    from onnxpress.passes.prune.merge.merge import MergeNeurons
    from onnxpress.passes.prune.positions.positions import PrunePositions
    from onnxpress.passes.prune.zeros.magnitude import PruneMagnitude
    from onnxpress.passes.prune.zeros.second_order import PruneSecondOrder
    from onnxpress.passes.quantize.dynamic import QuantizeDynamic
    from onnxpress.passes.quantize.static import QuantizeStatic
    from onnxpress.passes.share.binarize import Binarize
    from onnxpress.passes.share.budget import ShareBudget
    from onnxpress.passes.share.entropy import ShareEntropy
    from onnxpress.passes.share.hashing import ShareHash
    from onnxpress.passes.share.kmeans import ShareKMeans
    from onnxpress.passes.share.mixture import ShareMixture
    from onnxpress.passes.share.vectors import ShareVectors
    from onnxpress.passes.strip import Strip
    from onnxpress.passes.structure.acdc import StructureACDC
    from onnxpress.passes.structure.circulant import StructureCirculant
    from onnxpress.passes.structure.fastfood import StructureFastfood
    from onnxpress.passes.structure.toeplitz import StructureToeplitz
    from onnxpress.recipe import Limits, Recipe
    from onnxpress.rewriter import errors
    from onnxpress.rewriter.model import Model
    from onnxpress.verification import verify

    __version__: str

_HOMES = {
    "bench": "benchmark",
    "Benchmark": "benchmark",
    "Feed": "calibration.feeds",
    "open_feed": "calibration.feeds",
    "load_metric": "calibration.metrics",
    "Runner": "calibration.session",
    "compress": "compression",
    "inspect": "inspection",
    "Inspection": "inspection",
    "CompressionResult": "outcome",
    "Pass": "passes.base",
    "PassResult": "passes.base",
    "Workbench": "passes.base",
    "Pipeline": "passes.pipeline",
    "PipelineResult": "passes.pipeline",
    "Normalise": "passes.normalise",
    "PruneMagnitude": "passes.prune.zeros.magnitude",
    "MergeNeurons": "passes.prune.merge.merge",
    "PruneBlocks": "passes.prune.blocks.blocks",
    "PruneChannels": "passes.prune.channels.channels",
    "PrunePositions": "passes.prune.positions.positions",
    "PruneSecondOrder": "passes.prune.zeros.second_order",
    "ShareKMeans": "passes.share.kmeans",
    "ShareVectors": "passes.share.vectors",
    "ShareHash": "passes.share.hashing",
    "ShareMixture": "passes.share.mixture",
    "ShareEntropy": "passes.share.entropy",
    "ShareBudget": "passes.share.budget",
    "Binarize": "passes.share.binarize",
    "Factorize": "passes.factorize.auto",
    "FactorizeSVD": "passes.factorize.svd",
    "FactorizeSpatial": "passes.factorize.spatial",
    "FactorizeTucker": "passes.factorize.tucker",
    "FactorizeCP": "passes.factorize.cp",
    "FactorizeTrain": "passes.factorize.train",
    "FactorizeSeparable": "passes.factorize.separable",
    "FactorizeGroups": "passes.factorize.groups",
    "MergeProducts": "passes.factorize.merge",
    "StructureCirculant": "passes.structure.circulant",
    "StructureToeplitz": "passes.structure.toeplitz",
    "StructureFastfood": "passes.structure.fastfood",
    "StructureACDC": "passes.structure.acdc",
    "Equalize": "passes.balance.equalize",
    "Smooth": "passes.balance.smooth",
    "ConvertFloat16": "passes.narrow.float16",
    "QuantizeStatic": "passes.quantize.static",
    "QuantizeDynamic": "passes.quantize.dynamic",
    "QuantizeWeights": "passes.blockwise.weights",
    "Encode": "passes.encode.encode",
    "Strip": "passes.strip",
    "Limits": "recipe",
    "Recipe": "recipe",
    "Model": "rewriter.model",
    "verify": "verification",
    "Verification": "parity",
}
"""The module that each name comes from."""

__all__ = [
    "bench",
    "Benchmark",
    "Feed",
    "open_feed",
    "load_metric",
    "Runner",
    "compress",
    "inspect",
    "Inspection",
    "CompressionResult",
    "ConvertFloat16",
    "Pass",
    "PassResult",
    "Workbench",
    "Pipeline",
    "PipelineResult",
    "Normalise",
    "PruneMagnitude",
    "PruneSecondOrder",
    "PruneChannels",
    "PruneBlocks",
    "PrunePositions",
    "MergeNeurons",
    "ShareKMeans",
    "ShareVectors",
    "ShareHash",
    "ShareMixture",
    "ShareEntropy",
    "ShareBudget",
    "Binarize",
    "Factorize",
    "FactorizeSVD",
    "FactorizeSpatial",
    "FactorizeTucker",
    "FactorizeCP",
    "FactorizeTrain",
    "FactorizeSeparable",
    "FactorizeGroups",
    "MergeProducts",
    "StructureCirculant",
    "StructureToeplitz",
    "StructureFastfood",
    "StructureACDC",
    "QuantizeStatic",
    "QuantizeDynamic",
    "QuantizeWeights",
    "Encode",
    "Strip",
    "Limits",
    "Recipe",
    "Model",
    "verify",
    "Verification",
    "errors",
    "__version__",
    "Equalize",
    "Smooth",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name == "__version__":
            return importlib.import_module("importlib.metadata").version("onnxpress")
        if name == "errors":
            return importlib.import_module("onnxpress.rewriter.errors")
        if name in _HOMES:
            return getattr(importlib.import_module(f"onnxpress.{_HOMES[name]}"), name)
        if name in ("passes", "calibration", "rewriter", "models"):
            return importlib.import_module(f"onnxpress.{name}")
        raise AttributeError(f"module 'onnxpress' has no attribute {name!r}")
