"""Passes are found by name, ours and others'."""

from importlib.metadata import EntryPoint

import pytest

from onnxpress.passes import registry
from onnxpress.passes.base import Pass
from onnxpress.rewriter.errors import ConfigError


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_built_in_pass_calls_itself_by_its_name(name):
    found = registry.find(name)
    assert issubclass(found, Pass)
    assert found.name == name


def test_a_wrong_name_is_answered_with_the_near_ones():
    with pytest.raises(ConfigError, match="no pass is called 'prune_magnitude'; did you mean prune-magnitude"):
        registry.find("prune_magnitude")


def test_a_name_like_no_other_is_answered_with_all():
    with pytest.raises(ConfigError, match=r"there are .*encode.*share-kmeans"):
        registry.find("zzz")


@pytest.fixture
def others(monkeypatch):
    """Entry points of other distributions: `name=module:attribute` each."""

    def install(*declared: str) -> None:
        points = [EntryPoint(*each.split("="), registry.GROUP) for each in declared]
        monkeypatch.setattr(registry.importlib.metadata, "entry_points", lambda group: points)
        registry.known.cache_clear()

    yield install
    monkeypatch.undo()
    registry.known.cache_clear()


def test_finds_the_passes_of_other_distributions(others):
    others("mine=onnxpress.passes.normalise:Normalise", "encode=os:sep")
    assert registry.find("mine").name == "normalise"
    assert registry.find("encode").name == "encode"  # ours cannot be replaced


@pytest.mark.parametrize("reference", ["nowhere.at_all:Pass", "os:nothing", "os:sep"])
def test_refuses_an_entry_point_that_is_no_pass(others, reference):
    others(f"mine={reference}")
    with pytest.raises(ConfigError, match="pass 'mine' is declared as"):
        registry.find("mine")
