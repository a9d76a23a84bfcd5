"""Ways to write a convolution are timed beside it, and what cannot be timed or written stays with the reason."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.prune.positions import faster
from onnxpress.passes.prune.positions.faster import Seen, Stopwatch, shapes_seen
from onnxpress.passes.prune.positions.positions import PrunePositions
from onnxpress.passes.prune.positions.products import products_for
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

    monkeypatch.setattr(faster, "in_turns", in_turns)


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

    monkeypatch.setattr(faster, "Runner", refuse)
    with pytest.raises(RefusalError, match="nothing could be timed: no kernel for this type"):
        measured(model)
    report = PrunePositions(error=0.0)(model).report
    assert "(nothing could be timed: no kernel for this type)" in report.changes[0].action


def test_shapes_come_from_the_model_and_else_from_a_first_batch(build, bench, random):
    weight = random.standard_normal((4, 4, 3, 3)).astype(np.float32)
    for x, samples, expected in (
        ((2, 4, 9, 8), None, Seen((2, 4, 9, 8), (9, 8))),
        (("n", 4, 9, 8), None, Seen((1, 4, 9, 8), (9, 8))),
        (("n", 4, "h", 8), None, None),
        (("n", 4, "h", 8), (3, 4, 7, 8), Seen((3, 4, 7, 8), (None, 8))),
        (None, (3, 4, 7, 8), Seen((3, 4, 7, 8), (None, None))),
    ):
        model = build([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": weight}, x=x)
        workbench = Workbench() if samples is None else bench(model, np.ones(samples, np.float32))
        assert shapes_seen(model, [model.graph.inputs[0]], workbench) == [expected]
