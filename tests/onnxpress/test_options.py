"""Options of passes that others wrote are checked like our own."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from onnxpress import options
from onnxpress.options import read_pass
from onnxpress.passes.base import Pass, Workbench
from onnxpress.passes.report import Report
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model


@dataclass(frozen=True, kw_only=True)
class Foreign(Pass):
    """Written by somebody else."""

    name: ClassVar[str] = "foreign"
    strength: float
    rounds: tuple[int, ...] = (1, 2)

    def __post_init__(self) -> None:
        if self.strength < 0:
            raise ValueError("strength is negative")

    def apply(self, model: Model, bench: Workbench) -> Report:
        return self.report()


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(options, "known", lambda: {"foreign": "elsewhere:Foreign"})
    monkeypatch.setattr(options, "find", lambda name: Foreign)


def test_values_take_the_declared_types():
    made = read_pass({"foreign": {"strength": 1, "rounds": [3, 4]}}, "r.yaml: passes.0")
    assert made == Foreign(strength=1.0, rounds=(3, 4))


def test_an_option_without_default_must_be_given():
    with pytest.raises(ConfigError, match=r"^r.yaml: passes.0.strength: foreign needs this option$"):
        read_pass("foreign", "r.yaml: passes.0")


def test_what_the_pass_itself_refuses_is_named_too():
    with pytest.raises(ConfigError, match=r"^r.yaml: passes.0.strength: strength is negative$"):
        read_pass({"foreign": {"strength": -1}}, "r.yaml: passes.0")


def test_an_element_of_a_list_is_checked():
    with pytest.raises(ConfigError, match=r"passes.0.rounds: should be a valid integer.*not 'x'"):
        read_pass({"foreign": {"strength": 1, "rounds": ["x"]}}, "r.yaml: passes.0")
