"""What branches give on average."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.prune.blocks.averages import Means, average
from onnxpress.passes.prune.blocks.residual import find_branches
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.shapes import infer_shapes


def only(model):
    (branch,) = find_branches(model, infer_shapes(model))[0]
    return branch


def block(build, op, weight, x):
    nodes = [helper.make_node(op, ["x", "w"], ["a"], name="fc"), helper.make_node("Add", ["x", "a"], ["y"])]
    return build(nodes, {"w": weight}, x=x)


def test_one_number_for_each_channel_over_batches_of_any_length(build, bench, random):
    model = block(build, "Conv", random.standard_normal((3, 3, 1, 1)).astype(np.float32), ("n", 3, "h", "w"))
    batches = [random.standard_normal(shape).astype(np.float32) for shape in ((2, 3, 4, 4), (5, 3, 2, 6))]
    branch = only(model)
    found = average(model, [branch], bench(model, *batches)).of(branch, np.dtype(np.float32))
    rows = np.concatenate([each.transpose(0, 2, 3, 1).reshape(-1, 3) for each in batches]).astype(np.float64)
    assert found.shape == (1, 3, 1, 1)
    expected = rows.mean(axis=0) @ model.array(model.graph.nodes[0].inputs[1]).reshape(3, 3).T
    np.testing.assert_allclose(found.reshape(-1), expected, rtol=1e-4, atol=1e-5)  # float32


def test_channels_of_a_product_come_last(build, bench, random):
    model = block(build, "MatMul", random.standard_normal((3, 3)).astype(np.float32), ("n", 4, 3))
    branch = only(model)
    x = random.standard_normal((5, 4, 3)).astype(np.float32)
    found = average(model, [branch], bench(model, x)).of(branch, np.dtype(np.float32))
    assert found.shape == (1, 1, 3)


def test_where_there_is_no_average_nothing_stands_in(build, random):
    branch = only(block(build, "MatMul", random.standard_normal((3, 3)).astype(np.float32), ("n", 3)))
    found = Means({}).of(branch, np.dtype(np.float16))
    assert (found.shape, found.dtype, float(found)) == ((), np.float16, 0.0)


def test_needs_samples(build, random):
    model = block(build, "MatMul", random.standard_normal((3, 3)).astype(np.float32), ("n", 3))
    with pytest.raises(FeedError, match="--data"):
        average(model, [only(model)], Workbench())
