"""JUnit reports are XML that readers of GitLab and GitHub understand."""

from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest

from onnxpress.junit import Case, junit, write_junit
from onnxpress.rewriter.errors import ConfigError

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def read(*cases):
    return ElementTree.fromstring(junit(cases, suite="pipeline", when=WHEN).encode())


def test_counts_what_there_is():
    root = read(
        Case(name="run", seconds=2.5),
        Case(name="min_sqnr", problem="failure", kind="min_sqnr", message="SQNR is 3 dB", output="measured 3 dB"),
        Case(name="a", problem="error", message="broke"),
        Case(name="b", problem="skipped", message="not reached"),
    )
    (suite,) = root
    for element in (root, suite):
        counts = {key: element.get(key) for key in ("tests", "failures", "errors", "skipped", "time")}
        assert counts == {"tests": "4", "failures": "1", "errors": "1", "skipped": "1", "time": "2.500"}
    assert (root.tag, suite.tag, suite.get("name")) == ("testsuites", "testsuite", "pipeline")
    assert suite.get("timestamp") == "2026-01-02T03:04:05"


def test_a_failure_says_what_it_is_and_what_was_measured():
    ((case,),) = read(Case(name="min_sqnr", problem="failure", kind="min_sqnr", message="is 3", output="measured 3"))
    assert case.attrib == {"name": "min_sqnr", "classname": "pipeline", "time": "0.000"}
    failure, output = case
    assert (failure.tag, failure.attrib, failure.text) == ("failure", {"message": "is 3", "type": "min_sqnr"}, "is 3")
    assert (output.tag, output.text) == ("system-out", "measured 3")


def test_a_case_that_is_well_holds_no_problem():
    ((case,),) = read(Case(name="run"))
    assert list(case) == []


@pytest.mark.parametrize("text", ["\x00\x1b[31m", "]]><", "&amp;", "\ud800", "a\nb", "\ufffe"])
def test_any_text_out_of_a_model_gives_valid_xml(text):
    ((case,),) = read(Case(name=text + "x", problem="error", message=text, output=text + "y"))
    assert case.get("name").endswith("x")


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot write"):
        write_junit([Case(name="run")], tmp_path / "none" / "junit.xml", suite="pipeline")
