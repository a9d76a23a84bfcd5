"""The tools of `benchmarks.quantizers`, and how each is asked to work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import peers
from benchmarks.peers import Script
from onnxpress.passes.registry import known

FLOAT, NORMALISED = "float", "normalised"
"""The references: the export itself, and what onnxpress makes of it before any pass. Both always run."""

RECIPES = ("int8", "fastest", "quantize-dynamic")
TRANSFORMERS = ("minilm", "ppocr-rec")
"""Models with attention, on which NNCF's preset for transformers is tried too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One tool with one set of options.

    Attributes:
        name: in the table.
        tool: what `--tools` calls it.
        script: what makes it; None is the export as it is.
        quantizes: whether a result without a quantized operator deserves a remark.
        models: on which it is tried; None is all.
        base: the reference it starts from.
    """

    name: str
    tool: str
    script: Script | None
    quantizes: bool = True
    models: tuple[str, ...] | None = None
    base: str = FLOAT


def variants(recipes: Sequence[str]) -> list[Variant]:
    """All variants, with one for each recipe of onnxpress."""
    return [
        Variant(name=FLOAT, tool="float", script=None, quantizes=False),
        Variant(name=NORMALISED, tool="onnxpress", script=_press(None), quantizes=False),
        Variant(
            name="onnxsim",
            tool="onnxsim",
            script=Script(file="simplify.py", requirements=peers.ONNXSIM),
            quantizes=False,
        ),
        Variant(name="ort min-max", tool="onnxruntime", script=_ort("MinMax", reduce_range=False)),
        Variant(name="ort min-max 7 bit", tool="onnxruntime", script=_ort("MinMax", reduce_range=True)),
        Variant(
            name="ort min-max, normalised",
            tool="onnxruntime",
            script=_ort("MinMax", reduce_range=False),
            base=NORMALISED,
        ),
        Variant(name="ort percentile", tool="onnxruntime", script=_ort("Percentile", reduce_range=False)),
        Variant(name="ort entropy", tool="onnxruntime", script=_ort("Entropy", reduce_range=False)),
        Variant(
            name="ort dynamic",
            tool="onnxruntime",
            script=Script(file="ort_dynamic.py", requirements=peers.ONNXRUNTIME),
        ),
        Variant(name="nncf", tool="nncf", script=_nncf(None)),
        Variant(name="nncf transformer", tool="nncf", script=_nncf("transformer"), models=TRANSFORMERS),
        *(Variant(name=f"onnxpress {_short(each)}", tool="onnxpress", script=_press(each)) for each in recipes),
    ]


def _ort(method: str, *, reduce_range: bool) -> Script:
    return Script(
        file="ort_static.py",
        requirements=peers.ONNXRUNTIME,
        options={"method": method, "reduce_range": reduce_range},
    )


def _nncf(model_type: str | None) -> Script:
    return Script(
        file="nncf_quantize.py",
        requirements=peers.NNCF,
        options={"model_type": model_type, "fast_bias_correction": True},
    )


def _press(recipe: str | None) -> Script:
    # a file is named from where the benchmark was started; its script runs elsewhere
    given = str(Path(recipe).absolute()) if recipe and recipe not in known() and Path(recipe).is_file() else recipe
    return Script(file="press.py", options={"recipe": given})


def _short(recipe: str) -> str:
    return Path(recipe).stem
