"""Which ONNX Runtime is installed, and whether its files are whole.

ONNX Runtime comes as several distributions (onnxruntime, onnxruntime-gpu, onnxruntime-openvino, …) that all unpack
into the one package `onnxruntime`. pip sees no clash: the last one installed overwrites the files of the others, and
removing any of them removes what they share. So onnxpress requires none of them by itself (extras `cpu` and `gpu`
do), and looks here at what it finds before it runs anything.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.metadata import Distribution
from pathlib import Path

from onnxpress.rewriter.errors import ProviderError

OLDEST = (1, 24, 1)
"""The oldest ONNX Runtime that is tested; the extras require it, an ONNX Runtime found installed may be older."""

PACKAGE = "onnxruntime/__init__.py"
MARKED = (PACKAGE, "onnxruntime/capi/build_and_package_info.py")
"""Small files that name variant and version: their hashes tell whose files lie in the folder, at no cost."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """The ONNX Runtime that runs the models.

    Attributes:
        distribution: what pip calls it; None where it was installed by other means.
        version: of ONNX Runtime.
        providers: the execution providers it was built with, in its own order of preference.
    """

    distribution: str | None
    version: str
    providers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """A distribution whose record says that it installed the package `onnxruntime`.

    Attributes:
        name: of the distribution.
        version: of the distribution.
        folder: where it was installed, the site-packages.
        hashes: path below `folder` to the recorded sha256, urlsafe base64; empty where none was recorded.
    """

    name: str
    version: str
    folder: Path
    hashes: dict[str, str]


def check_runtime() -> Runtime:
    """Import ONNX Runtime, having looked that it is one whole variant and new enough.

    Raises:
        ProviderError: none is installed, several are, another overwrote its files, it is too old, or does not load.
    """
    claim = find_claim(sys.path)
    try:
        # Imported here: onnxpress itself must import, and tell what to do, where ONNX Runtime is missing or broken.
        import onnxruntime

        providers = tuple(onnxruntime.get_available_providers())
    except (ImportError, AttributeError) as error:
        name = claim.name if claim else "onnxruntime"
        raise ProviderError(f"{name} does not load ({_first_line(error)}); mend it with: {_mend([name])}") from error
    return Runtime(claim.name if claim else None, str(onnxruntime.__version__), providers)


def find_claim(paths: Sequence[str]) -> Claim | None:
    """Find the one distribution that owns the package `onnxruntime` on `paths`.

    Args:
        paths: folders in the order of import, as in `sys.path`.

    Returns:
        The owner; None for a package that no distribution claims (built from source, or a system package).

    Raises:
        ProviderError: none is installed, several are, another overwrote its files, or it is too old.
    """
    spec = PathFinder.find_spec("onnxruntime", list(paths))
    whole = spec is not None and spec.origin is not None  # a folder without __init__.py is what an uninstall left
    folders = [Path(spec.origin).parent.parent] if spec and spec.origin else [Path(path) for path in paths]
    claims = [claim for folder in folders for claim in _claims(folder)]
    if not claims:
        if whole:
            return None
        raise ProviderError(
            'no ONNX Runtime is installed: pip install "onnxpress[cpu]", or "onnxpress[gpu]" for NVIDIA devices'
        )
    if len({claim.name for claim in claims}) > 1:
        names = sorted(claim.name for claim in claims)
        raise ProviderError(
            f"{' and '.join(names)} are installed together and overwrite each other's files; keep one: {_mend(names)}"
        )
    _check(claims[0])
    return claims[0]


def _claims(folder: Path) -> Iterator[Claim]:
    """Yield the distributions in `folder` that installed the package; others (…-extensions, …-genai) are not meant."""
    for pattern in ("onnxruntime*.dist-info", "ort_*.dist-info"):
        for place in sorted(folder.glob(pattern)):
            distribution = Distribution.at(place)
            # Not `distribution.files`: from Python 3.12 on it leaves out files that are gone.
            rows = list(csv.reader((distribution.read_text("RECORD") or "").splitlines()))
            if any(row[0] == PACKAGE for row in rows if row):
                hashes = {row[0]: row[1] for row in rows if len(row) > 1 and row[0] in MARKED}
                yield Claim(distribution.metadata["Name"], distribution.version, folder, hashes)


def _check(claim: Claim) -> None:
    """Refuse a distribution that is too old, or whose files are another's."""
    if tuple(int(number) for number in re.findall(r"\d+", claim.version)[:3]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise ProviderError(
            f"{claim.name} {claim.version} is too old; take {oldest} or newer: "
            f'pip install --upgrade "{claim.name}>={oldest}"'
        )
    for path, recorded in claim.hashes.items():
        if recorded != _sha256(claim.folder / path):
            raise ProviderError(
                f"{path} of {claim.name} {claim.version} was overwritten or removed by another ONNX Runtime; "
                f"mend it with: {_mend([claim.name])}"
            )


def _sha256(path: Path) -> str | None:
    """The hash of a file in the form that RECORD uses; None where there is no file."""
    try:
        digest = hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return None
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _mend(names: Sequence[str]) -> str:
    """The command that leaves one whole variant: a special one, where there is one, was wanted on purpose."""
    keep = next((name for name in names if name != "onnxruntime"), "onnxruntime")
    return f"pip uninstall -y {' '.join(names)} && pip install --force-reinstall --no-deps {keep}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
