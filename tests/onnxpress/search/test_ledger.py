"""What was measured is found again, by the same search only."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from onnxpress.calibration.batches import Sample
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.metrics import Top1, load_metric
from onnxpress.rewriter.errors import ConfigError
from onnxpress.search.ledger import Ledger, code_of, fingerprint, unspoilt
from onnxpress.search.trial import Trial

TRIAL = Trial(name="a", key="k", passes=({"encode": {}},), outcome="accepted", nbytes=3, sqnr=float("inf"), seconds=2)


def test_trials_are_there_after_an_interruption(tmp_path):
    first = Ledger(tmp_path / "s", {"goal": "size"})
    first.note(TRIAL)
    second = Ledger(tmp_path / "s", {"goal": "size"})
    assert second.recall("k") == TRIAL
    assert second.recall("other") is None
    assert second.spent == 2
    assert second.trials == []  # until the search comes to it
    second.note(TRIAL)
    second.note(TRIAL)
    assert second.trials == [TRIAL]


def test_another_search_is_refused(tmp_path):
    Ledger(tmp_path / "s", {"goal": "size", "seed": 0})
    with pytest.raises(ConfigError, match=r"holds another search \(seed differ\)"):
        Ledger(tmp_path / "s", {"goal": "size", "seed": 1})


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ConfigError, match="holds something else"):
        Ledger(tmp_path, {"goal": "size"})
    assert (tmp_path / "mine.txt").read_text() == "precious"


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_what_is_no_statement_of_a_search_is_named(tmp_path, content):
    (tmp_path / "search.json").write_text(content)
    with pytest.raises(ConfigError, match="is not of a search"):
        Ledger(tmp_path, {})


def test_a_search_killed_as_it_began_goes_on(tmp_path):
    (tmp_path / "trials").mkdir()
    (tmp_path / ".search.json.abc.part").write_text("{")
    Ledger(tmp_path, {"goal": "size"})
    Ledger(tmp_path, {"goal": "size"})


def test_a_broken_trial_is_named(tmp_path):
    Ledger(tmp_path / "s", {}).note(TRIAL)
    (tmp_path / "s" / "trials" / "k.json").write_text("{")
    with pytest.raises(ConfigError, match=r"k\.json is no trial"):
        Ledger(tmp_path / "s", {})


def test_fingerprints_tell_samples_apart():
    def feed(value, label):
        return Feed([Sample({"x": np.full((2, 2), value, np.float32)}, np.array([label, label]))], count=1)

    assert fingerprint(feed(1, 0)) == fingerprint(feed(1, 0))
    assert len({fingerprint(feed(*each)) for each in ((1, 0), (2, 0), (1, 1))}) == 3


def test_equal_files_are_known_again_in_the_order_of_this_run(tmp_path):
    first, second = (replace(TRIAL, key=key, digest="d") for key in "kl")
    Ledger(tmp_path / "s", {}).note(first)
    ledger = Ledger(tmp_path / "s", {})
    assert ledger.twin("d") is None  # until the search comes to it
    ledger.note(first)
    ledger.note(second)
    assert ledger.twin("d") == first
    assert ledger.twin("other") is None
    assert ledger.twin("") is None


def fail(folder, *, measured=False):
    with unspoilt(folder):
        ledger = Ledger(folder, {"goal": "size"})
        (folder / "models").mkdir()
        if measured:
            ledger.note(TRIAL)
        raise ConfigError("no")


def test_a_search_that_fails_at_once_leaves_no_folder(tmp_path):
    for folder in (tmp_path / "s", tmp_path / "new" / "s"):
        with pytest.raises(ConfigError, match="no"):
            fail(folder)
    assert not list(tmp_path.iterdir())
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no"):
        fail(tmp_path / "empty")
    assert [each.name for each in tmp_path.rglob("*")] == ["empty"]


def test_what_was_measured_or_was_there_before_stays(tmp_path):
    with pytest.raises(ConfigError, match="no"):
        fail(tmp_path / "s", measured=True)
    assert Ledger(tmp_path / "s", {"goal": "size"}).recall("k") == TRIAL
    Ledger(tmp_path / "t", {"goal": "size"})
    with pytest.raises(ConfigError, match="no"):
        fail(tmp_path / "t")
    assert (tmp_path / "t" / "search.json").is_file()


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """Write a module with a metric, and load it anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def load(source):
        (tmp_path / "mine_of_ledger.py").write_text(source, encoding="utf-8")
        sys.modules.pop("mine_of_ledger", None)
        return load_metric("mine_of_ledger:score")

    yield load
    sys.modules.pop("mine_of_ledger", None)


def test_the_code_of_a_metric_tells_it_from_what_it_was(measure):
    first = code_of(measure("def score(runner):\n    return 1.0\n"))
    again = code_of(measure("def score(runner):\n    return 1.0\n"))
    other = code_of(measure("HALF = 0.5\ndef score(runner):\n    return HALF\n"))
    assert first == again
    assert len({first, other, code_of(Top1()), None}) == 4


def test_a_metric_without_source_has_no_code():
    typed = type("Typed", (), {"name": "typed", "__call__": lambda self, runner, feed, /: 1.0})
    assert code_of(typed()) is None
    assert code_of(load_metric("operator:neg")) is None
    assert code_of(None) is None
