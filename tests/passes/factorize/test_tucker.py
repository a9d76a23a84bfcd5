import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.factorize.tucker import FactorizeTucker


@pytest.fixture
def conv(build):
    """Builds a model of one 3x3 convolution, by default of Tucker ranks 5 and 4 and some noise."""

    def build_conv(out=20, channels=16, r_out=5, r_in=4, noise=0.01):
        rng = np.random.default_rng(0)
        core, first, last = rng.standard_normal((r_out, r_in, 9)), rng.standard_normal((r_in, channels)), None
        last = rng.standard_normal((out, r_out))
        kernel = np.einsum("or,rsk,si->oik", last, core, first)
        kernel += noise * np.linalg.norm(kernel) / np.sqrt(kernel.size) * rng.standard_normal(kernel.shape)
        node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
        weight = kernel.reshape(out, channels, 3, 3).astype(np.float32)
        return build([node], {"w": weight}, x=(1, channels, 9, 9))

    return build_conv


def test_finds_the_ranks_that_the_kernel_has(conv):
    (change,) = FactorizeTucker(energy=0.99)(conv()).report.changes
    assert change.action.startswith("ranks 5 of 20 and 4 of 16, ")
    assert change.error < 0.01  # what is left is part of the noise


def test_keeps_the_energy_asked_for(conv):
    (change,) = FactorizeTucker(energy=0.8)(conv(noise=0.3)).report.changes
    assert change.error**2 <= 0.2


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.6])
def test_keeps_to_the_ratio_with_ranks_in_proportion(conv, ratio):
    (change,) = FactorizeTucker(ratio=ratio)(conv()).report.changes
    assert 0.6 * ratio * change.bytes_before < change.bytes_after <= ratio * change.bytes_before


def test_a_side_of_full_rank_gets_no_layer(conv):
    result = FactorizeTucker(rank=3)(conv(channels=3, r_in=3))
    assert [node.name for node in result.model.graph.nodes] == ["conv_core", "conv_last"]
    result = FactorizeTucker(rank=5)(conv(out=5))
    assert [node.name for node in result.model.graph.nodes] == ["conv_first", "conv_core"]


def test_refuses_full_ranks_with_the_figures(conv):
    (skip,) = FactorizeTucker(rank=99)(conv()).report.skips
    assert skip.reason == "ranks 20 and 16 save nothing: 16·16 + 16·20·3·3 + 20·20 ≥ 20·16·3·3"


def test_refuses_a_ratio_that_no_ranks_fit(conv):
    (skip,) = FactorizeTucker(ratio=0.01)(conv()).report.skips
    assert skip.reason.startswith("ratio 0.01 is too small: ranks 1 and 2 leave 2.4% of the parameters, ")


def test_ranks_are_multiples_if_asked(conv):
    (change,) = FactorizeTucker(energy=0.99, round_to=4)(conv()).report.changes
    assert change.action.startswith("ranks 8 of 20 and 4 of 16, ")
    (change,) = FactorizeTucker(ratio=0.6, round_to=4)(conv()).report.changes
    assert change.action.startswith("ranks 12 of 20 and 12 of 16, 60.0% of the parameters")
