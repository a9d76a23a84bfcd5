"""Takes units out of every group that allows it, and lets ONNX Runtime judge."""

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnxpress.rewriter.couplings import Group, find_couplings, remove_units
from onnxpress.rewriter.invariants import Interface, check
from onnxpress.rewriter.model import Model


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def draw(rng) -> Callable[..., np.ndarray]:
    """Weights of unit scale."""

    def make(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return make


@pytest.fixture
def groups() -> Callable[[Model], dict[str, Group]]:
    """Groups by name."""
    return lambda model: {group.name: group for group in find_couplings(model).groups}


@pytest.fixture
def thin(run) -> Callable[..., dict[str, Group]]:
    """Take every other unit out of all groups that allow it; the outputs must stay as they are.

    What reads those units is set to zero beforehand, so that they do not count. Returns the groups as they were.
    """

    def call(model: Model, **feed: np.ndarray) -> dict[str, Group]:
        found = find_couplings(model).groups
        gone = {group: np.arange(0, group.size, 2)[: group.size - 1] for group in found if group.frozen is None}
        assert gone, {group.name: group.frozen for group in found}
        for group, units in gone.items():
            _silence(model, group, units)
        interface, before = Interface.of(model), run(model, **feed)
        declared = [list(tensor.shape or ()) for tensor in [*model.graph.inputs, *model.graph.outputs]]
        remove_units(model, gone)
        check(model, interface)
        assert declared == [list(tensor.shape or ()) for tensor in [*model.graph.inputs, *model.graph.outputs]]
        for old, new in zip(before, run(model, **feed), strict=True):
            # sums of some dozen float32 terms, in another order
            np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-5)
        return {group.name: group for group in found}

    return call


def _silence(model: Model, group: Group, units: np.ndarray) -> None:
    for member in group.members:
        if member.role == "in" and isinstance(member.tensor, gs.Constant):
            values = np.array(model.array(member.tensor))
            np.moveaxis(values, member.axis, 0)[member.indices[units].reshape(-1)] = 0
            model.replace_weight(member.tensor, values)
