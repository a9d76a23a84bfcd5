"""Functions named `module:function`."""

import re
import sys

import pytest

from onnxpress.calibration.plugins import blame, is_reference, load_function
from onnxpress.rewriter.errors import ConfigError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_imports_from_the_current_directory(here):
    (here / "mine_a.py").write_text("class C:\n    @staticmethod\n    def f(): return 3\n")
    assert load_function("mine_a:C.f")() == 3


@pytest.mark.parametrize(
    ("reference", "hint"),
    [
        ("mine", "'mine' is not of the form module:function"),
        ("mine:", "not of the form"),
        ("no_such_module:f", "no module 'no_such_module' in .* or among the installed packages"),
        ("no_such.module:f", "no module 'no_such' in"),
        ("mine_b:g", "module 'mine_b' has no 'g'"),
        ("mine_b:x", "'mine_b:x' is a int, not a function"),
        ("mine_c:f", "cannot be imported: mine_c raised ModuleNotFoundError at mine_c.py:1: No module named 'nope'"),
        ("mine_d:f", "cannot be imported: mine_d raised ZeroDivisionError at mine_d.py:1: division by zero"),
        ("mine_e:f", "cannot be imported: mine_e raised SyntaxError at mine_e.py:2: invalid syntax"),
        ("mine_f:f", "cannot be imported: mine_f called sys.exit at mine_f.py:2; raise an error or return instead"),
        ("mine_g:f", "cannot be imported: mine_g raised SyntaxError at mine_e.py:2: invalid"),
    ],
)
def test_refuses_in_one_line(here, reference, hint):
    (here / "mine_b.py").write_text("x = 1\n")
    (here / "mine_c.py").write_text("import nope\n")
    (here / "mine_d.py").write_text("1 / 0\n")
    (here / "mine_e.py").write_text("x = 1\ndef f(:\n")
    (here / "mine_f.py").write_text("import sys\nsys.exit(3)\n")
    (here / "mine_g.py").write_text("import mine_e\n")
    with pytest.raises(ConfigError, match=hint) as caught:
        load_function(reference)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a:b", "a.b:c.d", "a_1:b2"])
def test_knows_a_reference(text):
    assert is_reference(text)


@pytest.mark.parametrize("text", ["a", "C:\\x.npz", "1:b", "a:b:c", "./a:b", "a:b.npz/c"])
def test_knows_what_is_none(text):
    assert not is_reference(text)


def test_blames_the_line_that_parses_text_of_its_own():
    with pytest.raises(SyntaxError) as caught:
        compile("1 +", "<text>", "eval")
    assert re.fullmatch(r"m:f raised SyntaxError at test_plugins.py:\d+: invalid syntax", blame("m:f", caught.value))


def test_blames_without_a_trace():
    assert blame("m:f", ValueError("two\nlines")) == "m:f raised ValueError: two lines"
