"""Files of the project's root inside of pages, whole or in parts, so that no figure stands twice."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

from sphinx.errors import ExtensionError

ROOT = Path(__file__).parents[2]
LINKS = {
    "(benchmarks/README.md)": "(/benchmarks.md)",
    "(docs/architecture.md)": "(/architecture.md)",
    "(CONTRIBUTING.md)": "(/contributing.md)",
}
"""Links of the README, and where they lead in the site."""
FIGURES = "How well it works"
PASSES = "Passes"


def whole(path: str) -> str:
    """A file of the project."""
    return (ROOT / path).read_text(encoding="utf-8")


def code(path: str) -> str:
    """A file of the project as a block of code."""
    language = {".py": "python", ".yaml": "yaml", ".toml": "toml"}[Path(path).suffix]
    return f"```{language}\n{whole(path).rstrip()}\n```"


def section(heading: str) -> str:
    """A section of the README, without its heading.

    Raises:
        ExtensionError: there is none of that name.
    """
    _, found, rest = whole("README.md").partition(f"\n## {heading}\n")
    if not found:
        raise ExtensionError(f"README.md has no section {heading!r}")
    text = rest.partition("\n## ")[0].strip()
    for link, place in LINKS.items():
        text = text.replace(link, place)
    return text


def passes(globs: str) -> str:
    """Rows of the README's table of passes: those with a pass that matches one of the globs, parted by blanks.

    Raises:
        ExtensionError: none does.
    """
    head, rule, *rows = (line for line in section(PASSES).splitlines() if line.startswith("|"))
    chosen = [row for row in rows if _matches(row, globs.split())]
    if not chosen:
        raise ExtensionError(f"README.md: no row of the table of passes matches {globs}")
    return "\n".join([head, rule, *map(_linked, chosen)])


def figures(beginning: str) -> str:
    """What begins with these words among the README's figures: a paragraph, or a table with the paragraph above it.

    Raises:
        ExtensionError: nothing does.
    """
    blocks = section(FIGURES).split("\n\n")
    for number, block in enumerate(blocks):
        if block.removeprefix("| ").startswith(beginning):
            above = [each for each in blocks[:number] if not each.startswith("|")]
            return f"{above[-1]}\n\n{block}" if block.startswith("|") and above else block
    raise ExtensionError(f"README.md: nothing under {FIGURES!r} begins with {beginning!r}")


def _matches(row: str, globs: list[str]) -> bool:
    """Whether a row of the table tells of a pass that is meant."""
    names = re.findall(r"`([^`]+)`", row.split("|")[1])
    return any(fnmatch(name, glob) for name in names for glob in globs)


def _linked(row: str) -> str:
    """A row whose passes lead to their options."""
    cells = row.split("|")
    cells[1] = re.sub(r"`([^`]+)`", r"[`\1`](/reference/passes.md#\1)", cells[1])
    return "|".join(cells)
