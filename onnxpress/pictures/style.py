"""How a page looks, and the few lines that let its tables be sorted and searched."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files


@cache
def style() -> str:
    """The style sheet."""
    return _asset("page.css")


@cache
def script() -> str:
    """The script; no name of a model is in it."""
    return _asset("page.js")


@cache
def policy() -> str:
    """What the page may do: nothing is loaded, and no script but ours runs, whatever the names in a model are."""
    digest = base64.b64encode(hashlib.sha256(script().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def _asset(name: str) -> str:
    return files("onnxpress.pictures").joinpath(name).read_text(encoding="utf-8")
