from pathlib import Path

import pytest

from onnxpress.passes.quantize import host
from onnxpress.passes.quantize.host import Host, detect


@pytest.mark.parametrize(
    ("machine", "flags", "saturates"),
    [
        ("x86_64", frozenset({"avx2"}), True),
        ("x86_64", frozenset({"avx2", "avx512f"}), True),
        ("x86_64", frozenset({"avx2", "avx_vnni"}), False),
        ("AMD64", frozenset({"avx512_vnni"}), False),
        ("x86_64", None, True),
        ("aarch64", frozenset({"asimd"}), False),
        ("arm64", None, False),
    ],
)
def test_saturates_only_on_x86_without_dot_products(machine, flags, saturates):
    assert Host(machine, flags).saturates is saturates


def test_says_why():
    assert Host("x86_64", frozenset({"avx512_vnni"})).describe() == "x86_64 with avx512_vnni"
    assert Host("x86_64", frozenset()).describe() == "x86_64 without VNNI"
    assert "unknown" in Host("x86_64", None).describe()
    assert "32 bits" in Host("aarch64", None).describe()


def test_reads_the_flags_that_linux_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    listed = tmp_path / "cpuinfo"
    listed.write_text("processor\t: 0\nflags\t\t: sse avx2 avx512_vnni\n\nprocessor\t: 1\nflags\t\t: sse\n")
    monkeypatch.setattr(host, "CPUINFO", listed)
    assert detect().flags == {"sse", "avx2", "avx512_vnni"}
    monkeypatch.setattr(host, "CPUINFO", tmp_path / "nothing")
    assert detect().flags is None
