"""What was measured is found again, by the same search only."""

import numpy as np
import pytest

from onnxpress.calibration.batches import Sample
from onnxpress.calibration.feeds import Feed
from onnxpress.rewriter.errors import ConfigError
from onnxpress.search.ledger import Ledger, fingerprint
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
