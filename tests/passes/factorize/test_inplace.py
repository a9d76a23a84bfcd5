"""Chains timed in the whole model, and taken back."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.factorize import inplace
from onnxpress.passes.factorize.inplace import InPlace
from onnxpress.passes.factorize.offers import Offer
from onnxpress.passes.factorize.schemes.channel import SVDScheme


@pytest.fixture
def chain(build, random):
    """Products of matrices one behind the other, of several sizes."""

    def of(*sizes):
        tensors = ["x", *(f"t{number}" for number in range(len(sizes) - 2)), "y"]
        steps = zip(tensors, tensors[1:], sizes, sizes[1:], strict=False)
        nodes, weights = [], {}
        for number, (source, target, rows, columns) in enumerate(steps):
            nodes.append(helper.make_node("MatMul", [source, f"w{number}"], [target], name=f"m{number}"))
            weights[f"w{number}"] = random.standard_normal((rows, columns)).astype(np.float32)
        return build(nodes, weights, x=("n", sizes[0]))

    return of


def choice_of(**gains):
    return {name: Offer(name, SVDScheme(), (8,), 0.0, gain, 1.0) for name, gain in gains.items()}


def test_layers_of_one_geometry_are_decided_on_together(chain, clock):
    timed = clock()
    place = InPlace(chain(64, 64, 64, 48), Workbench())
    assert set(place.settle(choice_of(m0=1.0, m1=2.0, m2=0.5))) == {"m0", "m1", "m2"}
    assert len(timed) == 2
    assert len(place.kept) == 3


def test_what_was_decided_is_not_timed_again(chain, clock):
    timed = clock()
    place = InPlace(chain(64, 64, 64, 48), Workbench())
    place.settle(choice_of(m0=1.0, m1=2.0))
    place.settle(choice_of(m0=1.0))
    assert len(timed) == 1


def test_the_least_promising_goes_first_and_what_slows_goes(chain, clock, seconds):
    timed = clock(whole=lambda model: seconds(model) + any(n.name.startswith("m2_") for n in model.graph.nodes))
    place = InPlace(chain(64, 64, 64, 48), Workbench())
    left = place.settle(choice_of(m0=1.0, m1=2.0, m2=0.5))
    assert set(left) == {"m0", "m1"}
    assert set(place.refused) == {("m2", "svd")}
    assert len(timed) == 2
    assert set(place.settle(choice_of(m1=2.0, m2=9.0))) == {"m1"}


def test_many_groups_are_timed_in_few_runs(chain, clock, monkeypatch):
    monkeypatch.setattr(inplace, "GROUPS", 3)
    timed = clock()
    sizes = (64, 56, 48, 40, 32, 64, 72)
    InPlace(chain(*sizes), Workbench()).settle(choice_of(**{f"m{n}": 1.0 + n for n in range(6)}))
    assert len(timed) == 3


def test_nothing_more_is_timed_once_time_is_up(chain, clock):
    timed = clock()
    assert InPlace(chain(64, 64), Workbench(), lambda: True).settle(choice_of(m0=1.0))
    assert not timed
