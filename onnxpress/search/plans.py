"""Ways to compress a model: passes in order, and routes along which one strength makes them gentler or stronger."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from onnxpress.passes.base import Pass, Workbench
from onnxpress.passes.blockwise.weights import QuantizeWeights
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.factorize.auto import Factorize
from onnxpress.passes.narrow.float16 import ConvertFloat16
from onnxpress.passes.prune.channels.channels import PruneChannels
from onnxpress.passes.quantize.dynamic import QuantizeDynamic
from onnxpress.passes.quantize.static import QuantizeStatic
from onnxpress.passes.share.budget import ShareBudget
from onnxpress.passes.share.entropy import ShareEntropy
from onnxpress.passes.share.kmeans import ShareKMeans
from onnxpress.passes.share.vectors import ShareVectors
from onnxpress.passes.strip import Strip
from onnxpress.recipe import plain
from onnxpress.search.budget import Goal


@dataclass(frozen=True, slots=True)
class Plan:
    """Passes in order, after normalisation.

    Attributes:
        name: what they do, in a few words.
        passes: in order.
    """

    name: str
    passes: tuple[Pass, ...]

    @property
    def options(self) -> tuple[dict[str, JsonValue], ...]:
        """The passes as a recipe would write them, each option written out."""
        return tuple({each.name: plain(each.options())} for each in self.passes)

    @property
    def key(self) -> str:
        """Two plans with the same passes and options have the same."""
        return key_of(self.passes)

    def behind(self, first: Plan) -> Plan:
        """This after another."""
        names = [each.name for each in (first, self) if each.passes]
        return Plan(", ".join(names) or self.name, (*first.passes, *self.passes))


def key_of(passes: Sequence[Pass]) -> str:
    """A name for passes with their options, 16 hexadecimal digits."""
    text = json.dumps([[each.name, plain(each.options())] for each in passes], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Route:
    """A family of plans.

    Attributes:
        name: of the family.
        plan: the plan of a strength in [0, 1]; a stronger one gains more and loses more.
        first: the strength to begin with.
        steps: candidates at most.
    """

    name: str
    plan: Callable[[float], Plan]
    first: float = 0.5
    steps: int = 4


NORMALISED = Plan("normalised", ())

_QUICK = ("svd", "channel", "spatial", "tucker")
"""Schemes that are fitted in closed form, or nearly so: the others take minutes a candidate."""

_LESS = 0.85
"""Of the smallest file so far: what a way that gains something new should come to."""

_FITTING = 60.0
"""Seconds after which `factorize` tries no other ranks within one candidate."""


def packed(plan: Plan) -> Plan:
    """A plan whose result is stored as small as can be."""
    return Plan(plan.name, (*plan.passes, Encode(measure=False), Strip()))


def sizes(*, learns: bool) -> list[Route]:
    """Routes to a smaller file.

    Args:
        learns: there are samples to learn from.
    """

    def shared(strength: float) -> Plan:
        if not strength:
            return packed(Plan("256 values", (ShareKMeans(bits=8),)))
        error = _rounded(0.01 * 50**strength)
        how = ShareEntropy(error=error, importance="hessian", refit=True) if learns else ShareEntropy(error=error)
        return packed(Plan(f"values within {error:.2g}", (how,)))

    def budgeted(strength: float) -> Plan:
        ratio = _rounded(4 * 30**strength)
        return packed(Plan(f"zeros and bits for {ratio:g}x", (ShareBudget(ratio=ratio),)))

    def vectors(strength: float) -> Plan:
        bits = round(8 - 5 * strength)
        return packed(Plan(f"pairs in {bits} bits", (ShareVectors(length=2, bits=bits),)))

    return [Route("sharing", shared, 0.4), Route("budget", budgeted, 0.2, 6), Route("sub-vectors", vectors, 0.0, 3)]


def numbers(bench: Workbench, goal: Goal) -> list[Route]:
    """Routes to narrower arithmetic, or narrower weights."""

    def static(strength: float) -> Plan:
        sqnr = round(40 - 40 * strength)
        return Plan(f"int8 from {sqnr} dB" if sqnr else "int8", (QuantizeStatic(smooth=True, min_sqnr=sqnr),))

    routes = [Route("static", static, 0.5, 3)]
    if bench.providers[0] == "CPUExecutionProvider":
        routes.append(_single("int8, ranges found while running", QuantizeDynamic()))
    else:
        routes.append(_single("float16", ConvertFloat16(form="compute")))
    if goal == "memory":
        routes.append(_single("8-bit weights multiplied as codes", QuantizeWeights(bits=8, form="run")))
    return routes


def structures(behind: Plan, goal: Goal, *, learns: bool, nbytes: int) -> list[Route]:
    """Routes to fewer or thinner layers, with what makes numbers narrower put behind.

    Args:
        behind: what follows.
        goal: what is to be gained.
        learns: there are samples to learn from.
        nbytes: of the smallest file so far.
    """

    def pruned(strength: float) -> Plan:
        ratio = round(0.05 + 0.55 * strength, 3)
        return behind.behind(Plan(f"{ratio:.0%} of channels gone", (PruneChannels(pruning_ratio=ratio),)))

    routes = [Route("channels", pruned, 0.3)]
    return [*routes, factors(_at_most(behind, _LESS * nbytes), goal)] if learns else routes


def factors(behind: Plan, goal: Goal, *, before: Plan = NORMALISED, first: float = 0.5) -> Route:
    """Thinner layers, where they gain something together with what follows.

    Args:
        behind: what follows.
        goal: what is to be gained.
        before: what comes first.
        first: the strength to begin with.
    """
    codes = any(isinstance(each, QuantizeStatic) for each in behind.passes)

    def plan(strength: float) -> Plan:
        sqnr = round(35 - 27 * strength)
        how = Factorize(
            min_sqnr=sqnr,
            goal="size" if goal == "size" else "latency",
            schemes=_QUICK,
            arithmetic="int8" if codes else "float",
            time_limit=_FITTING,
        )
        return behind.behind(Plan(f"thinner layers from {sqnr} dB", (how,)).behind(before))

    return Route("factors", plan, first, 3)


def together(best: Plan, behind: Plan, goal: Goal, *, nbytes: int) -> list[Route]:
    """Routes that the best plan may still go: where it takes channels away, thinner layers, too.

    Args:
        best: of all.
        behind: what it ends with.
        goal: what is to be gained.
        nbytes: of its file.
    """
    count = len(best.passes) - len(behind.passes)
    if not any(isinstance(each, PruneChannels) for each in best.passes[:count]):
        return []
    before = Plan(best.name.removesuffix(f", {behind.name}"), best.passes[:count])
    return [factors(_at_most(behind, _LESS * nbytes), goal, before=before, first=0.2)]


def _at_most(plan: Plan, nbytes: float) -> Plan:
    """The plan, with as many bytes to aim at where it aims at a part of those of the layers, which factors change."""
    if not any(isinstance(each, ShareBudget) for each in plan.passes):
        return plan
    share = ShareBudget(bytes=max(1, int(nbytes)))
    passes = tuple(share if isinstance(each, ShareBudget) else each for each in plan.passes)
    return Plan(f"zeros and bits for {share.bytes:,} bytes", passes)


def _single(name: str, how: Pass) -> Route:
    return Route(name, lambda strength: Plan(name, (how,)), steps=1)


def _rounded(value: float) -> float:
    """With two digits that count, so that equal strengths give equal plans."""
    return float(f"{value:.2g}")
