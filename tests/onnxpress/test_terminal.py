"""Text for pipes is plain, text for terminals is drawn."""

import io

import pytest
import typer

from onnxpress.calibration.progress import Silent
from onnxpress.terminal import Table, brief, clean, complain, plain, progress, say, show

TABLE = Table("sizes", ("name", ">bytes"), [["a", "10"], ["longer", "2,000"]], ["in all 2,010"])


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_aligns_columns():
    assert plain(TABLE) == "sizes\nname    bytes\na          10\nlonger  2,000\nin all 2,010\n"


def test_a_pipe_gets_no_drawing():
    stream = io.StringIO()
    show(TABLE, stream=stream)
    assert stream.getvalue() == plain(TABLE) + "\n"


def test_a_terminal_gets_a_drawing(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    show(TABLE, stream=stream)
    assert "─" in stream.getvalue()
    assert "2,000" in stream.getvalue()


def test_a_dumb_terminal_gets_none(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    show(TABLE, stream=stream)
    assert stream.getvalue() == plain(TABLE) + "\n"


def test_long_names_keep_both_ends():
    long = "a" * 30 + "/" + "b" * 30
    assert brief(["conv1", long]) == ["conv1", "a" * 27 + "…" + "b" * 28]
    assert brief([]) == []


def test_names_that_would_look_alike_stay_whole():
    names = ["a" * 40 + middle + "b" * 40 for middle in "xy"]
    assert brief([*names, "c" * 90, "c" * 90]) == [*names, *["c" * 27 + "…" + "c" * 28] * 2]


def test_control_characters_are_blanks():
    assert clean("a\x1b[2Jb\nc\r") == "a [2Jb c "


def test_a_complaint_is_one_line(capsys):
    complain("first\nsec\x07ond")
    assert capsys.readouterr().err == "onnxpress: error: first sec ond\n"


def test_progress_is_silent_in_a_pipe():
    with progress() as bars:
        assert isinstance(bars, Silent)


def test_progress_is_drawn_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    with progress() as bars:
        assert list(bars.track(iter([1, 2]), label="[work]")) == [1, 2]
    assert "[work]" in stream.getvalue()


def test_what_an_old_locale_cannot_write_is_replaced():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    say("64×8", stream=stream)
    stream.seek(0)
    assert stream.read() == "64?8\n"


def test_a_reader_that_went_away_ends_the_program(tmp_path):
    with (tmp_path / "gone").open("w", encoding="utf-8") as stream:

        class Gone(io.StringIO):
            def flush(self):
                raise BrokenPipeError

            def fileno(self):
                return stream.fileno()

        with pytest.raises(typer.Exit) as caught:
            say("text", stream=Gone())
    assert caught.value.exit_code == 141
