"""JUnit XML: what GitLab, GitHub and Jenkins show as tests, here the gates of a deployment and the run itself.

The elements are those that all three read: `testsuites`, `testsuite` with its counts, `testcase` with `failure`,
`error` or `skipped`, and `system-out` for what was measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from onnxpress.report import write_text
from onnxpress.terminal import clean

SUITE = "onnxpress"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test.

    Attributes:
        name: unlike all others of the suite, and the same in every run, by which runs are compared.
        seconds: that it took.
        problem: `failure` of what was tested, `error` of the run, `skipped` where it did not come to it; None is well.
        kind: of the problem, in a word.
        message: what the problem is.
        output: what was measured.
    """

    name: str
    seconds: float = 0.0
    problem: Literal["failure", "error", "skipped"] | None = None
    kind: str = ""
    message: str = ""
    output: str = ""


def write_junit(cases: Sequence[Case], path: Path, *, suite: str, when: datetime | None = None) -> None:
    """Write a report, whole or not at all.

    Args:
        cases: tests of one suite.
        path: of the file; GitLab wants its name to end in `.xml`.
        suite: the name under which they are shown.
        when: the run began, with a time zone; None means now.

    Raises:
        ConfigError: the file cannot be written.
    """
    write_text(junit(cases, suite=suite, when=when), path)


def junit(cases: Sequence[Case], *, suite: str, when: datetime | None = None) -> str:
    """The report as text; see `write_junit`."""
    found = Counter(each.problem for each in cases)
    counts = {
        "tests": str(len(cases)),
        "failures": str(found["failure"]),
        "errors": str(found["error"]),
        "skipped": str(found["skipped"]),
        "time": f"{sum(each.seconds for each in cases):.3f}",
    }
    # Without a time zone, as the schema of Ant's reports has it.
    moment = (when or datetime.now(UTC)).astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    root = ElementTree.Element("testsuites", {"name": SUITE, **counts})
    listed = ElementTree.SubElement(root, "testsuite", {"name": clean(suite), "timestamp": moment, **counts})
    for each in cases:
        _add(listed, each, clean(suite))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _add(suite: ElementTree.Element, case: Case, classname: str) -> None:
    """One test; no text holds characters that XML has not, as names out of a model may."""
    attributes = {"name": clean(case.name), "classname": classname, "time": f"{case.seconds:.3f}"}
    made = ElementTree.SubElement(suite, "testcase", attributes)
    if case.problem is not None:
        told = {"message": clean(case.message), **({"type": case.kind} if case.kind else {})}
        ElementTree.SubElement(made, case.problem, told).text = clean(case.message)
    if case.output:
        ElementTree.SubElement(made, "system-out").text = clean(case.output)
