import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.factorize.train import FactorizeTrain


@pytest.fixture
def conv(build):
    """A convolution whose kernel is a train of ranks 2, 3 and 2."""
    rng = np.random.default_rng(0)
    cores = [rng.standard_normal(shape) for shape in ((12, 2), (2, 3, 3), (3, 3, 2), (2, 10))]
    kernel = np.einsum("or,rbq,qas,si->oiab", *cores).astype(np.float32)
    return build([helper.make_node("Conv", ["x", "w"], ["y"], name="conv")], {"w": kernel}, x=(1, 10, 9, 9))


def test_finds_the_ranks_that_the_kernel_has(conv):
    result = FactorizeTrain(energy=0.99999)(conv)
    (change,) = result.report.changes
    assert change.action.startswith("ranks 2 of 10, 3 of 30 and 2 of 12, ")
    assert change.error < 1e-5  # float32
    assert [each.name for each in result.model.graph.nodes] == ["conv_first", "conv_side0", "conv_side1", "conv_last"]
    assert [each.attrs["kernel_shape"] for each in result.model.graph.nodes] == [[1, 1], [3, 1], [1, 3], [1, 1]]


def test_ends_of_full_rank_get_no_layer(conv):
    result = FactorizeTrain(rank=10, always=True)(conv)
    assert [each.name for each in result.model.graph.nodes] == ["conv_side0", "conv_side1", "conv_last"]
    assert result.report.changes[0].error < 1e-5


@pytest.mark.parametrize("ratio", [0.2, 0.5])
def test_keeps_to_the_ratio(conv, ratio):
    (change,) = FactorizeTrain(ratio=ratio)(conv).report.changes
    assert 0.6 * ratio * change.bytes_before < change.bytes_after <= ratio * change.bytes_before
