"""What quantized models are made for: named presets of codes and of where they stand.

| target | activations | weights | placement |
|---|---|---|---|
| cpu-avx2 | uint8 | 7 bits, or uint8 for layers to which the last bit matters | ONNX Runtime on CPUs |
| cpu-vnni | uint8 | int8 | the same |
| arm | uint8 | int8 | the same |
| cuda | int8, symmetric | int8 | as TensorRT |
| tensorrt | int8, symmetric | int8 | before layers and the other branch of a residual Add; bias in float |
| npu | uint16 | int8 | every tensor |

x86 without VNNI adds two products of uint8 and int8 in 16 bits, where they saturate. Products with weights of 7 bits
cannot; those of uint8 by uint8 are added in 32 bits, by slower instructions (ONNX Runtime's `x64quantprecision`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from onnxpress.passes.base import Pass
from onnxpress.passes.kernels.affine import INT8_SYMMETRIC, UINT8, Grid
from onnxpress.passes.quantize.coding import WEIGHT_CODES, WeightCodes
from onnxpress.passes.quantize.host import Host
from onnxpress.passes.quantize.rules import CPU, NPU, TENSORRT, Rules
from onnxpress.passes.selection import check_choice

UINT16 = Grid(0, 65535, np.dtype(np.uint16))


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a quantized model is made for.

    Attributes:
        name: of the preset.
        activation: codes of activations.
        symmetric: the zero point of activations is 0.
        weights: codes that weights may have; where there are several, the first one unless another is measured better.
        float_bias: the bias of a layer stays float.
        rules: how operators stand to codes.
        everywhere: every tensor becomes codes; the rules only tell which nodes are layers.
        opset: the first that has these codes.
        remark: what must be said of it; empty where nothing.
    """

    name: str
    activation: Grid = UINT8
    symmetric: bool = False
    weights: tuple[WeightCodes, ...] = (WEIGHT_CODES["int8"],)
    float_bias: bool = False
    rules: Rules = field(default_factory=lambda: CPU)
    everywhere: bool = False
    opset: int = 13  # the first with one scale a channel
    remark: str = ""

    @property
    def recurrent(self) -> bool:
        """Whether LSTMs can compute on codes there; ONNX Runtime has them on CPUs."""
        return self.rules is CPU

    def suits(self, host: Host) -> bool:
        """Whether a machine is what the model is made for, so that speed measured on it counts."""
        return self.rules is CPU and self.name == own_target(host).name

    def adjusted(self, *, activation: Grid | None, reduce_range: bool | None) -> Target:
        """The target with what a caller sets himself.

        Args:
            activation: codes of activations; None leaves them.
            reduce_range: weights of 7 bits, or of 8 signed; None leaves them.
        """
        weights = self.weights if reduce_range is None else (WEIGHT_CODES["int7" if reduce_range else "int8"],)
        return replace(self, weights=weights, activation=activation or self.activation)


_CUDA = (
    "ONNX Runtime's CUDA provider computes on codes in MatMulInteger alone and turns all others back into float when "
    "it runs; for speed take target tensorrt with its provider, or convert-float16"
)

TARGETS: Mapping[str, Target] = {
    each.name: each
    for each in (
        Target(name="cpu-avx2", weights=(WEIGHT_CODES["int7"], WEIGHT_CODES["uint8"])),
        Target(name="cpu-vnni"),
        Target(name="arm"),
        Target(name="cuda", activation=INT8_SYMMETRIC, symmetric=True, float_bias=True, rules=TENSORRT, remark=_CUDA),
        Target(name="tensorrt", activation=INT8_SYMMETRIC, symmetric=True, float_bias=True, rules=TENSORRT),
        Target(name="npu", activation=UINT16, rules=NPU, everywhere=True, opset=21),
    )
}


def own_target(host: Host) -> Target:
    """The target that a CPU is."""
    if host.saturates:
        return TARGETS["cpu-avx2"]
    return TARGETS["cpu-vnni" if host.is_x86 else "arm"]


def choose_target(name: str | None, host: Host) -> Target:
    """The target of that name; None for the CPU itself.

    Raises:
        KeyError: there is none of that name.
    """
    return own_target(host) if name is None else TARGETS[name]


def caution(target: Target, host: Host) -> str | None:
    """What a user must know who quantizes for another machine than the one that tries the model; None where it is it.

    Weights that suit cpu-avx2 suit all CPUs, but those for others saturate there.
    """
    said = [target.remark] if target.remark else []
    if target.name != own_target(host).name:
        left = "speed and saturation on the target were" if target.rules is CPU else "its speed was"
        said.append(f"made for {target.name}, tried on {host.describe()}: {left} not measured")
    return "; ".join(said) or None


def say_codes(target: Target, used: Collection[str], host: Host, *, asked: str | None = None) -> str:
    """Which codes the weights got, and why, for the report: `weights of 8 bits: x86_64 with avx512_vnni runs it`.

    Args:
        target: what the model is made for.
        used: names of the codes.
        host: the CPU that it was tried on.
        asked: what to say where the caller chose.
    """
    words = {"int8": "8 bits", "int7": "7 bits", "uint8": "8 bits without sign"}
    kinds = " and ".join(words[each.name] for each in target.weights if each.name in used)
    own = own_target(host).name == target.name
    return f"weights of {kinds}: {asked or (f'{host.describe()} runs it' if own else f'made for {target.name}')}"


def check_target(owner: Pass, field: str) -> None:
    """Refuse what is no target's name, unless it is None.

    Raises:
        ConfigError: names the field.
    """
    if getattr(owner, field) is not None:
        check_choice(owner, field, tuple(TARGETS))
