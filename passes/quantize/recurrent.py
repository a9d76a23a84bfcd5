"""LSTMs on 8-bit codes: ONNX Runtime's DynamicQuantizeLSTM, whose activations get their range in every run.

    gates = s_x s_W Σ (q_x − z_x) q_W + s_h s_R Σ (q_h − z_h) q_R + b

x is rounded once for the whole sequence, h anew in each step; the gates' functions and the cell state stay float. It
needs no ranges from samples, and runs inside of If and Loop, too. GRU and RNN have no such operator.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.base import Workbench
from onnxpress.passes.quantize.lstm import CodedWeight, Level, Lstm, LstmWriter, Setting, measure_lstms
from onnxpress.passes.quantize.rules import is_standard
from onnxpress.passes.quantize.storage import check_float32
from onnxpress.passes.report import Report
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site

LEAST = 20_000
"""Weights in one direction of an LSTM from which it is faster on codes: a step below that is mostly the rounding of h.

Speed on codes over float, one core of an x86 with AVX-512 VNNI, ONNX Runtime 1.32, medians of calls in turns; from
left to right batch 1 with 1, 10 and 100 steps, batch 16 with 100 steps:

    input = hidden = 32    8,192 weights   0.93  0.88  0.78  1.02
                     64   32,768           0.97  1.15  1.40  1.34
                    128  131,072           1.21  1.63  1.95  1.87
                    256  524,288           1.98  2.52  2.65  2.35
                    512    2.1 million     2.56  3.32  3.62  2.73

Input 48, hidden 48 (18,432 weights) has 0.98 to 1.0, input 16, hidden 64 (20,480) 0.97 to 1.4.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LstmPlan:
    """Which LSTMs can compute on codes; nodes are named (see `key_of`), so it holds for every copy of the model.

    Attributes:
        setting: how.
        levels: how good they are, for those that can.
        reasons: why the others stay float.
    """

    setting: Setting
    levels: dict[str, Level]
    reasons: dict[str, str]


@dataclass(frozen=True, slots=True)
class Left:
    """What `write_lstms` leaves to the pass that called it.

    Attributes:
        sites: the weights it did not touch, in their order.
        reasons: why an LSTM stays float, by `key_of`.
        count: LSTMs that compute on codes now.
    """

    sites: list[Site]
    reasons: dict[str, str]
    count: int


def key_of(node: gs.Node) -> str:
    """What plans call a node: its first output that has a name."""
    return next((str(tensor.name) for tensor in node.outputs if tensor.name), "")


def plan_lstms(model: Model, sites: Sequence[Site], setting: Setting, *, bench: Workbench) -> LstmPlan:
    """Find the LSTMs that are faster on codes, and good enough.

    Args:
        model: in float; it is not changed.
        sites: its weights that may be touched, of all kinds.
        setting: how.
        bench: the samples, where there are any, tell how good an LSTM of the main graph is on codes.
    """
    survey = _Survey(sites)
    survey.refuse(lambda layer: _doubt(layer, bench))
    found = measure_lstms(model, survey.layers, survey.coded(setting), bench)
    survey.refuse(lambda layer: _loss(found[id(layer.node)], setting.layer_sqnr))
    levels = {key_of(layer.node): found[id(layer.node)] for layer in survey.layers}
    return LstmPlan(setting=setting, levels=levels, reasons=survey.reasons)


def write_lstms(
    model: Model, sites: Sequence[Site], plan: LstmPlan, report: Report, *, floats: Collection[str] = ()
) -> Left:
    """Let the LSTMs of a plan compute on codes.

    Args:
        model: the one that the plan is for, or a copy; it is rewritten, and the caller sweeps it.
        sites: its weights that may be touched, of all kinds.
        plan: which LSTMs.
        report: gets a change for each weight that becomes codes, and nothing for what is left.
        floats: nodes of the plan that stay float all the same, by `key_of`.
    """
    survey = _Survey(sites)
    survey.refuse(lambda layer: plan.reasons.get(key_of(layer.node)))
    survey.refuse(lambda layer: "it loses too much on codes" if key_of(layer.node) in floats else None)
    coded = survey.coded(plan.setting)
    writer = LstmWriter(model, coded)
    for layer in survey.layers:
        writer.replace(layer)
    for site in survey.sites:
        _tell(report, site, coded[id(site)], survey.worst(site, plan), plan.setting)
    changed = {id(site) for site in survey.sites}
    return Left([site for site in sites if id(site) not in changed], survey.reasons, len(survey.layers))


_Doubt: TypeAlias = Callable[[Lstm], str | None]
"""Why a layer should stay float; None where it need not."""


class _Survey:
    """The LSTMs that may compute on codes, and why others may not."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self.reasons: dict[str, str] = {}
        self.layers: list[Lstm] = []
        self._keys: dict[int, str] = {}  # taken before a node loses its outputs
        by_weight = {id(site.weight): site for site in sites}
        uses = [use for site in sites for use in site.uses if use.node.op == "LSTM" and is_standard(use.node)]
        for use in {id(use.node): use for use in uses}.values():
            key = self._keys[id(use.node)] = key_of(use.node)
            w, r = (by_weight.get(id(tensor)) for tensor in use.node.inputs[1:3])
            if w is None or r is None:
                self.reasons[key] = "its other weight is computed at run time, or left out by the recipe"
            else:
                self.layers.append(Lstm(use.graph, use.node, (w, r)))
        self._drop_shared()

    @property
    def sites(self) -> list[Site]:
        """The weights of the layers, each once."""
        return list({id(site): site for layer in self.layers for site in layer.sites}.values())

    def coded(self, setting: Setting) -> dict[int, CodedWeight]:
        """These weights as codes, by the identity of their sites."""
        return {id(site): CodedWeight.of(site, setting) for site in self.sites}

    def worst(self, site: Site, plan: LstmPlan) -> Level:
        """How good the worst of the layers is that read a weight."""
        keys = [self._keys[id(layer.node)] for layer in self.layers if any(site is each for each in layer.sites)]
        return min((plan.levels[key] for key in keys), key=lambda level: level.decibels)

    def refuse(self, doubt: _Doubt) -> None:
        """Drop the layers that `doubt` gives a reason against, and those that share a weight with them."""
        for layer in self.layers:
            if (reason := doubt(layer)) is not None:
                self.reasons[key_of(layer.node)] = reason
        self.layers = [layer for layer in self.layers if key_of(layer.node) not in self.reasons]
        self._drop_shared()

    def _drop_shared(self) -> None:
        while True:
            kept = {id(layer.node) for layer in self.layers}
            odd = [layer for layer in self.layers if not all(id(node) in kept for node in _users(layer))]
            if not odd:
                return
            shared = "it shares a weight with a node that stays float"
            self.reasons.update((key_of(layer.node), shared) for layer in odd)
            self.layers = [layer for layer in self.layers if key_of(layer.node) not in self.reasons]


def _users(layer: Lstm) -> Iterator[gs.Node]:
    return (use.node for site in layer.sites for use in site.uses)


def _doubt(layer: Lstm, bench: Workbench) -> str | None:
    """Why an LSTM cannot compute on codes, or gains nothing by it."""
    node, sites = layer.node, layer.sites
    if bench.providers[0] != "CPUExecutionProvider":
        return f"ONNX Runtime has an LSTM on 8-bit codes for the CPU only, not for {bench.providers[0]}"
    if node.attrs.get("layout", 0):
        return "ONNX Runtime runs no LSTM with layout 1; export it with batch_first=False"
    try:
        for site in sites:
            check_float32(site)
            if not np.isfinite(site.array()).all():
                return "its weight holds NaN or infinities; train or export it again"
    except RefusalError as refusal:
        return str(refusal)
    count = sum(site.size // site.shape[0] for site in sites)
    if any(site.size == 0 for site in sites) or count < LEAST:
        return f"with {count} weights in a direction it is not faster on codes; {LEAST} are the least"
    return None


def _loss(level: Level, least: float) -> str | None:
    if level.decibels >= least:
        return None
    of = "on codes it has" if level.seen else "its weights on codes have"
    return f"{of} {level.decibels:.1f} dB, layer_sqnr is {least:g}"


def _tell(report: Report, site: Site, coded: CodedWeight, level: Level, setting: Setting) -> None:
    kind = "int8 per channel" if setting.per_channel else "int8"
    seen = f", {level.decibels:.1f} dB" if level.seen else ""
    report.change(
        site.name,
        f"{kind}, activations uint8 by the range of each run{seen}",
        bytes_before=site.nbytes,
        bytes_after=coded.nbytes,
        error=coded.error,
    )
