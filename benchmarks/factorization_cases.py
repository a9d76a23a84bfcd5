"""What `benchmarks.factorization` tries on which model, and what each must come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from benchmarks.contest import Case, Wish

Passes: TypeAlias = Sequence[Mapping[str, Mapping[str, object]]]

BATCHES: Mapping[str, tuple[int, ...]] = {"charnet": (1, 32), "lenet5": (1, 32)}
"""Rows of the batches that are timed; other models are timed on batches of their test feed."""

PROMISES: Mapping[str, tuple[Wish, ...]] = {
    # before its Softmax, which is so sure of most photographs that hardly an error shows behind it
    "open-nsfw": (Wish("faster", least=1.15), Wish("logits", least=20)),
    "minilm": (Wish("faster", least=1.15), Wish("sqnr", least=20)),
    "charnet": (Wish("faster_1", least=3), Wish("faster_32", least=3), Wish("metric_drop", most=0.01)),
    "lenet5": (Wish("faster_32", least=1.5), Wish("metric_drop", most=0.003)),
}
"""What one result of a model must be, all of it together."""

PUBLISHED: Mapping[str, tuple[tuple[str, float, float], ...]] = {
    "charnet": (
        ("Jaderberg et al. 2014", 2.5, 0.0),
        ("Jaderberg et al. 2014, less than", 4.5, 0.01),
        ("Lebedev et al. 2015, fine-tuned", 8.5, 0.01),
    )
}
"""Who, times as fast on a CPU, accuracy lost: on a network of the same shape and characters of photographs."""


def _scheme(
    model: str,
    scheme: str,
    passes: Callable[[float], Passes],
    ratios: Sequence[float],
    wishes: tuple[Wish, ...] = (),
) -> list[Case]:
    """One kind of factors at several parts of the parameters: fitted to the weights alone, then to samples.

    The ratio fixes the ranks, so both have the same.
    """
    found = []
    for ratio in ratios:
        plain = f"{scheme} {ratio:.0%}, weights alone"
        found.append(Case(name=plain, model=model, passes=passes(ratio), samples=0))
        found.append(Case(name=f"{scheme} {ratio:.0%}", model=model, passes=passes(ratio), wishes=wishes, rival=plain))
    return found


def _one(name: str, **options: str) -> Callable[[float], Passes]:
    """A single pass."""
    return lambda ratio: [{name: {"ratio": ratio, "round_to": 8, **options}}]


def _chosen(model: str, *, sqnr: Sequence[float], speedup: Sequence[float]) -> list[Case]:
    """Scheme and rank chosen for each layer by measured errors and latencies, kept where measured faster."""
    aims = [("min_sqnr", each, f"{each:g} dB") for each in sqnr]
    aims += [("speedup", each, f"{each:g} times") for each in speedup]
    return [
        Case(name=f"factorize, {told}", model=model, passes=[{"factorize": {option: value}}])
        for option, value, told in aims
    ]


_WHITENED = (Wish("gain", least=3),)
_CHANNEL, _SPATIAL = _one("factorize-svd", conv="channel"), _one("factorize-spatial")
_TUCKER, _CP = _one("factorize-tucker"), _one("factorize-cp")
_HIGH, _LOW = (0.4, 0.55, 0.7, 0.85), (0.04, 0.08, 0.15, 0.3)

CASES = (
    *_scheme("open-nsfw", "SVD", _CHANNEL, _HIGH, _WHITENED),
    *_scheme("open-nsfw", "spatial", _SPATIAL, _HIGH),
    *_scheme("open-nsfw", "Tucker", _TUCKER, _HIGH),
    *_scheme("open-nsfw", "CP", _CP, _HIGH[:2]),
    *_chosen("open-nsfw", sqnr=(10, 15, 20, 25), speedup=(1.15, 1.3, 1.5)),
    *_scheme("minilm", "SVD", _CHANNEL, _HIGH, _WHITENED),
    *_chosen("minilm", sqnr=(10, 15, 20, 25), speedup=(1.15, 1.3, 1.5)),
    *_scheme("charnet", "spatial", _SPATIAL, _LOW),
    *_scheme("charnet", "Tucker", _TUCKER, _LOW),
    *_scheme("charnet", "CP", _CP, _LOW),
    *_chosen("charnet", sqnr=(8, 12, 16, 20), speedup=(2.5, 3, 4.5, 6, 8.5)),
    *_scheme("lenet5", "SVD", _CHANNEL, (0.15, 0.3, 0.5)),
    *_scheme("lenet5", "SVD, spatial", _one("factorize-svd", conv="spatial"), (0.15, 0.3, 0.5)),
    *_chosen("lenet5", sqnr=(12, 16, 20, 25), speedup=(1.5, 2)),
)
