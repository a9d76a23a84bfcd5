"""What the CPU of this machine makes of 8-bit products.

Without a dot-product instruction (VNNI), x86 multiplies uint8 by int8 with `vpmaddubsw`, which adds pairs of products
in 16 bits and saturates: 2 · 255 · 127 = 64770 > 32767. Weights of 7 bits cannot overflow: 2 · 255 · 64 = 32640.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
_X86 = ("x86_64", "amd64", "i386", "i686", "x86")
_DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "avx_vnni_int8")


@dataclass(frozen=True, slots=True)
class Host:
    """The CPU that quantized models will be tried on.

    Attributes:
        machine: its architecture, as `platform.machine()` says.
        flags: instruction sets; None where the operating system does not tell.
    """

    machine: str
    flags: frozenset[str] | None

    @property
    def is_x86(self) -> bool:
        """Whether it is of Intel's architecture."""
        return self.machine.lower() in _X86

    @property
    def saturates(self) -> bool:
        """Whether 8-bit products may saturate; taken for true where the CPU tells nothing."""
        if not self.is_x86:
            return False
        return self.flags is None or self.flags.isdisjoint(_DOT_PRODUCTS)

    def describe(self) -> str:
        """The reason for `saturates`, in a few words."""
        if not self.is_x86:
            return f"{self.machine} adds 8-bit products in 32 bits"
        if self.flags is None:
            return f"{self.machine} of unknown instruction sets"
        found = [flag for flag in _DOT_PRODUCTS if flag in self.flags]
        return f"{self.machine} with {found[0]}" if found else f"{self.machine} without VNNI"


def detect() -> Host:
    """The CPU of this machine."""
    return Host(platform.machine(), _flags(CPUINFO))


def _flags(path: Path) -> frozenset[str] | None:
    """The instruction sets that Linux lists for the first core."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    listed = (line.partition(":")[2] for line in lines if line.lower().startswith(("flags", "features")))
    first = next(listed, None)
    return None if first is None else frozenset(first.split())
