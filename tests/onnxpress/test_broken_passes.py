"""Passes of other distributions that cannot be used are told of, and do not keep the others from working."""

import sys
from importlib.metadata import EntryPoint

import pytest

from onnxpress import recipe
from onnxpress.options import broken
from onnxpress.passes import registry

OPTION = """
from dataclasses import dataclass
from typing import ClassVar
from onnxpress.passes.base import Pass
@dataclass(frozen=True, kw_only=True)
class Broken(Pass):
    name: ClassVar[str] = "broken"
    option: "NoSuchType" = None
"""


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Declares a pass `broken` whose module holds the given text."""

    def declare(code: str) -> None:
        (tmp_path / "their_broken_pass.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "their_broken_pass", raising=False)
        points = [EntryPoint("broken", "their_broken_pass:Broken", registry.GROUP)]
        monkeypatch.setattr(registry.importlib.metadata, "entry_points", lambda group: points)
        registry.known.cache_clear()

    yield declare
    monkeypatch.undo()
    registry.known.cache_clear()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        ("raise RuntimeError('first line\\nsecond line')", "cannot be imported: first line"),
        ("Broken = (", "cannot be imported"),
        ("other = 1", "has no attribute 'Broken'"),
        ("class Broken: pass", "is not a subclass of Pass"),
        ("from onnxpress import Pass\nclass Broken(Pass): pass", "has no `name`"),
        (OPTION, "no schema can be made: name 'NoSuchType' is not defined"),
    ],
)
def test_a_broken_pass_is_told_of_in_a_line_and_left_out_of_the_schema(install, code, reason):
    install(code)
    assert list(broken()) == ["broken"]
    assert reason in broken()["broken"]
    assert len(broken()["broken"].splitlines()) == 1
    names = recipe.schema()["properties"]["passes"]["items"]["anyOf"][0]["enum"]
    assert "broken" not in names
    assert set(registry.BUILT_IN) <= set(names)


def test_none_of_our_own_is_broken():
    assert broken() == {}
