"""Sphinx extension: a line `{{ name }}` or `{{ name: words }}` of a page becomes what a function of that name makes.

So nothing that the code or the README says is written down once more. What is not found ends the build.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import command_reference
import pass_reference
import recipe_reference
import root_files
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

PARTS: Mapping[str, Callable[[str], str]] = {
    "file": root_files.whole,
    "code": root_files.code,
    "section": root_files.section,
    "passes": root_files.passes,
    "figures": root_files.figures,
    "options of passes": lambda _: pass_reference.page(),
    "commands": lambda _: command_reference.page(),
    "recipes": lambda _: recipe_reference.recipes(),
    "built-in recipes": lambda _: recipe_reference.built_in(),
    "fields of recipes": lambda _: recipe_reference.fields(),
}
"""What a name stands for; the functions take the words behind it."""


def setup(app: Sphinx) -> dict[str, bool]:
    """Have Sphinx ask for each page."""
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _fill(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the parts into a page, the only entry of `source`."""
    source[0] = re.sub(r"^{{ ([\w -]+?)(?:: (.+))? }}$", _part, source[0], flags=re.MULTILINE)


def _part(found: re.Match[str]) -> str:
    if found[1] not in PARTS:
        raise ExtensionError(f"{found[0]}: there is no such part; there are {', '.join(PARTS)}")
    return PARTS[found[1]](found[2] or "")
