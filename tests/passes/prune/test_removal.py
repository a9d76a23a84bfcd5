"""Units go, and each weight counts for one group."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.prune.removal import remove
from onnxpress.rewriter.couplings import find_couplings


@pytest.fixture
def chain(build, random):
    """Two hidden layers of 8 and 12 neurons."""
    shapes = {"a": (6, 8), "b": (8, 12), "c": (12, 3)}
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="first"),
        helper.make_node("Relu", ["p"], ["q"]),
        helper.make_node("MatMul", ["q", "b"], ["r"], name="second"),
        helper.make_node("Relu", ["r"], ["s"]),
        helper.make_node("MatMul", ["s", "c"], ["y"], name="last"),
    ]
    return build(nodes, weights, x=("n", 6))


def halves(model):
    return {group: np.arange(group.size // 2) for group in find_couplings(model).groups if group.frozen is None}


def test_a_weight_counts_for_the_group_whose_units_it_makes(chain):
    _, sizes = remove(chain, halves(chain))
    # bytes: `first` holds a; `second` holds b, which `first` shortens too, and c, which no group makes
    assert sizes == {"first": (6 * 8 * 4, 6 * 4 * 4), "second": ((8 * 12 + 12 * 3) * 4, (4 * 6 + 6 * 3) * 4)}


def test_rows_that_are_left_are_known(chain):
    removed, _ = remove(chain, halves(chain))
    np.testing.assert_array_equal(removed.rows["first"], [4, 5, 6, 7])
    np.testing.assert_array_equal(removed.rows["second"], np.arange(6, 12))
    assert removed.consumers == {"second", "last"}
