"""What `benchmarks.pruning` tries on which model, and what each must come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks import peers
from benchmarks.contest import Case, Wish
from benchmarks.peers import Script

COUPLED = ("ppocr-rec", "ppocr-cls", "effnet-lite0", "silero-vad", "open-nsfw", "minilm", "textgen", "lenet5")
"""Models whose groups of coupled axes are counted."""


def _zeros(model: str, *, metric: float) -> list[Case]:
    """8 % of all weights are kept, by magnitude and by second-order saliency."""
    wishes = (Wish("metric", least=metric), Wish("kept", most=0.0801), Wish("seconds", most=60))
    return [
        Case(name="magnitude, 8 %", model=model, passes=[{"prune-magnitude": {"sparsity": 0.92}}]),
        Case(
            name="second-order, 8 %",
            model=model,
            passes=[{"prune-second-order": {"sparsity": 0.92}}],
            wishes=wishes,
            rival="magnitude, 8 %",
        ),
    ]


def _halves(model: str, name: str, options: Mapping[str, object]) -> list[Case]:
    """Half of all weights are zero, by magnitude and with reconstruction from few samples and from all."""
    return [
        Case(name=f"magnitude, {name}", model=model, passes=[{"prune-magnitude": options}], samples=32),
        *(
            Case(
                name=f"second-order, {name}, {told}",
                model=model,
                passes=[{"prune-second-order": options}],
                samples=samples,
                wishes=(Wish("gain", least=8), Wish("cpu_seconds", most=120)),
                rival=f"magnitude, {name}",
            )
            for samples, told in ((32, "32 samples"), (None, "all samples"))
        ),
    ]


def _quarter(model: str, *wishes: Wish, name: str = "25 % of channels", ops: Sequence[str] = ("Conv",)) -> list[Case]:
    """A quarter of the units of all groups goes; beside it what QONNX makes of the same part of channels of `ops`."""
    peer = Script(file="qonnx_prune.py", requirements=peers.QONNX, options={"ratio": 0.25, "ops": list(ops)})
    return [
        Case(name=name, model=model, passes=[{"prune-channels": {"pruning_ratio": 0.25}}], wishes=wishes),
        Case(name=f"QONNX, {name}", model=model, script=peer),
    ]


CASES = (
    *_zeros("lenet300", metric=0.980),
    *_zeros("lenet5", metric=0.989),
    *_quarter("lenet5"),
    *_quarter("open-nsfw", Wish("smaller", least=1 / 3), Wish("faster", least=1.5), Wish("sqnr", least=12)),
    *_quarter(
        "minilm",
        Wish("faster", least=1.25),
        Wish("metric_drop", most=0.02),
        name="25 % of heads and neurons",
        ops=("MatMul",),
    ),
    *_halves("minilm", "50 %", {"sparsity": 0.5}),
    *_halves("minilm", "2:4", {"pattern": "2:4"}),
    *_quarter("ppocr-cls"),
    *_quarter("effnet-lite0"),
)
