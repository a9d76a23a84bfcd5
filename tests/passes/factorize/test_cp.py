import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.factorize.cp import FactorizeCP
from onnxpress.passes.kernels import tensor
from onnxpress.rewriter.errors import ConfigError


@pytest.fixture
def conv(build):
    """Builds a model of one 3x3 convolution, a sum of some rank-one kernels."""

    def build_conv(terms=3, shape=(12, 10, 3, 3), **attrs):
        rng = np.random.default_rng(0)
        factors = [np.linalg.qr(rng.standard_normal((size, size)))[0][:, :terms] for size in shape]
        weight = np.einsum("ar,br,cr,dr->abcd", *factors).astype(np.float32)
        node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", **attrs)
        return build([node], {"w": weight}, x=(1, shape[1], 9, 9))

    return build_conv


def test_recovers_a_kernel_of_low_rank(conv):
    result = FactorizeCP(rank=3)(conv())
    (change,) = result.report.changes
    assert change.action == "rank 3 of 90, 8.6% of the parameters, 8.6% of the multiply-adds"
    assert change.error < 1e-3  # alternating least squares rests at a change of 1e-6
    assert [node.attrs["group"] for node in result.model.graph.nodes] == [1, 3, 1]


def test_energy_finds_the_smallest_rank(conv):
    (change,) = FactorizeCP(energy=0.99)(conv()).report.changes
    assert change.action.startswith("rank 3 of 90, ")
    (change,) = FactorizeCP(energy=0.99, round_to=4)(conv()).report.changes
    assert change.action.startswith("rank 4 of 90, ")


def test_refuses_energy_that_no_saving_rank_keeps(build):
    weight = np.random.default_rng(0).standard_normal((6, 6, 3, 3)).astype(np.float32)
    model = build([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": weight}, x=(1, 6, 9, 9))
    (skip,) = FactorizeCP(energy=0.99)(model).report.skips
    assert skip.reason.startswith("rank 15, the largest that saves anything, keeps ")
    assert skip.reason.endswith("% of the energy, less than 99.0%")
    (skip,) = FactorizeCP(energy=0.99, round_to=16)(model).report.skips
    assert skip.reason == "rank 16 saves nothing: 16·(6+3·3+6) ≥ 6·6·3·3"


def test_a_stride_counts_for_the_first_layer(conv):
    (skip,) = FactorizeCP(rank=18)(conv(strides=[3, 3])).report.skips
    assert skip.reason == (
        "rank 18 saves no multiply-adds: 18·(10·9+3·3+12) ≥ 12·10·3·3 for each position of the output"
    )


def test_refuses_a_degenerate_decomposition(build, monkeypatch):
    a, b = np.eye(2)  # rank 3, which rank 2 comes near with growing, cancelling terms (de Silva and Lim, 2008)
    kernel = sum(np.einsum("i,j,k->ijk", *term) for term in ((a, a, b), (a, b, a), (b, a, a)))
    monkeypatch.setattr(tensor, "_EXPLODED", 1.5)
    model = build([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": kernel.astype(np.float32)}, x=(1, 2, 9))
    (skip,) = FactorizeCP(rank=2, always=True, iterations=2000)(model).report.skips
    assert skip.reason.startswith("CP of rank 2 is degenerate")


def test_refuses_no_iterations():
    with pytest.raises(ConfigError, match="factorize-cp: iterations must be a whole number of at least 1, got 0"):
        FactorizeCP(rank=2, iterations=0)
