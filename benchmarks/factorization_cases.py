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
    *,
    beside: bool = False,
) -> list[Case]:
    """One kind of factors, fitted to samples, at several parts of the parameters.

    With wishes, or `beside`, first also fitted to the weights alone: the ratio fixes the ranks, so both have the same.
    """
    found = []
    for ratio in ratios:
        plain = f"{scheme} {ratio:.0%}, weights alone"
        if wishes or beside:
            found.append(Case(name=plain, model=model, passes=passes(ratio), samples=0))
        rival = plain if wishes or beside else None
        found.append(Case(name=f"{scheme} {ratio:.0%}", model=model, passes=passes(ratio), wishes=wishes, rival=rival))
    return found


def _one(name: str, **options: str | bool) -> Callable[[float], Passes]:
    """A single pass."""
    return lambda ratio: [{name: {"ratio": ratio, "round_to": 8, **options}}]


def _chosen(model: str, *, sqnr: Sequence[float], speedup: Sequence[float]) -> list[Case]:
    """Scheme and rank chosen for each layer by measured errors and latencies, kept where measured faster."""
    aims = [("min_sqnr", each, f"{each:g} dB") for each in sqnr]
    aims += [("speedup", each, f"{each:g} times") for each in speedup]
    return [
        Case(name=f"factorize, {told}", model=model, passes=[{"factorize": {option: value, "time_limit": _LIMIT}}])
        for option, value, told in aims
    ]


_LIMIT = 90
"""Seconds after which `factorize` tries no other budget."""

_WHITENED = (Wish("gain", least=3),)
_CHANNEL, _SPATIAL = _one("factorize-svd", conv="channel"), _one("factorize-spatial")
_TUCKER, _CP = _one("factorize-tucker"), _one("factorize-cp")
_ASIS = _one("factorize-svd", conv="channel", refit=False)
_HIGH, _LOW = (0.4, 0.55, 0.7), (0.04, 0.08, 0.15, 0.3)

CASES = (
    *_scheme("lenet5", "SVD", _CHANNEL, (0.3,), beside=True),
    *_scheme("lenet5", "SVD, spatial", _one("factorize-svd", conv="spatial"), (0.15, 0.3), beside=True),
    *_chosen("lenet5", sqnr=(16, 20, 25), speedup=(2,)),
    *_scheme("minilm", "SVD", _CHANNEL, _HIGH, _WHITENED),
    *_chosen("minilm", sqnr=(15, 20, 25), speedup=()),
    *_scheme("open-nsfw", "SVD", _CHANNEL, _HIGH[:2], _WHITENED),
    # refitted weights learn of two photographs cut to pieces what others lack: at high ranks more than they make up for
    *_scheme("open-nsfw", "SVD, not refitted", _ASIS, _HIGH[2:], _WHITENED),
    *_scheme("open-nsfw", "Tucker", _TUCKER, (0.55,)),
    *_chosen("open-nsfw", sqnr=(15, 20, 25), speedup=()),
    *_scheme("charnet", "spatial", _SPATIAL, _LOW),
    *_scheme("charnet", "Tucker", _TUCKER, _LOW),
    *_scheme("charnet", "CP", _CP, _LOW[:3]),
    *_chosen("charnet", sqnr=(), speedup=(3,)),
)
