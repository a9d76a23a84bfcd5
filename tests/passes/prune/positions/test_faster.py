"""Ways to write a convolution are timed beside it, and what cannot be timed or written stays with the reason."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes import stopwatch
from onnxpress.passes.base import Workbench
from onnxpress.passes.prune.positions.faster import Stopwatch
from onnxpress.passes.prune.positions.positions import PrunePositions
from onnxpress.passes.prune.positions.products import products_for
from onnxpress.passes.seen import Seen
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.sites import find_sites


@pytest.fixture
def model(build, random):
    """A convolution of which four positions in a square are left."""
    weight = np.zeros((4, 4, 3, 3), np.float32)
    weight[:, :, :2, :2] = random.standard_normal((4, 4, 2, 2))
    return build([helper.make_node("Conv", ["x", "w"], ["y"], name="conv")], {"w": weight}, x=(1, 4, 9, 9))


def measured(model, *, providers=("CPUExecutionProvider",)):
    site = find_sites(model)[0]
    weight = site.array()
    products = products_for((weight != 0).any(axis=0), groups=1)
    watch = Stopwatch(Workbench(providers=providers, threads=1), {"": 17})
    return watch.best(site.uses[0], weight, products, Seen((1, 4, 9, 9), (9, 9)))


def rounds(monkeypatch, *times):
    """Seconds of the convolution and of all other ways, round by round, of one provider after the other."""
    left = list(times)

    def in_turns(runners, batches, *, seconds, rounds):
        return np.array([[dense, *[way] * (len(runners) - 1)] for dense, way in left.pop(0)])

    monkeypatch.setattr(stopwatch, "in_turns", in_turns)


def test_is_sure_where_three_of_four_rounds_were_faster(model, monkeypatch):
    rounds(monkeypatch, [(2.0, 1.0), (2.0, 1.0), (2.0, 1.0), (1.5, 1.0), (1.0, 2.0)])
    found = measured(model)
    assert (found.speedup, found.sure) == (2.0, True)
    rounds(monkeypatch, [(2.0, 1.0), (2.0, 1.0), (2.0, 1.0), (1.0, 2.0), (1.0, 2.0)])
    assert not measured(model).sure


def test_of_several_providers_the_slowest_counts(model, monkeypatch):
    rounds(monkeypatch, [(3.0, 1.0)], [(1.5, 1.0)])
    assert measured(model, providers=("cpu", "CPUExecutionProvider")).speedup == 1.5


def test_what_no_provider_can_run_is_a_reason(model, monkeypatch):
    def refuse(*args, **options):
        raise ModelError("no kernel for this type")

    monkeypatch.setattr(stopwatch, "Runner", refuse)
    with pytest.raises(RefusalError, match="nothing could be timed: no kernel for this type"):
        measured(model)
    report = PrunePositions(error=0.0)(model).report
    assert "(nothing could be timed: no kernel for this type)" in report.changes[0].action
