"""Second-order pruning of a model that reads tokens, from few samples."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxpress.passes.prune.zeros.second_order import PruneSecondOrder
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.sites import find_sites


@pytest.fixture
def reader(build):
    """Vectors of 400 tokens, of which some directions are strong, through two layers."""
    draw = np.random.default_rng(0)
    table = draw.standard_normal((400, 16)) @ draw.standard_normal((16, 48)) + 0.3 * draw.standard_normal((400, 48))
    weights = {
        "table": table.astype(np.float32),
        "a": draw.standard_normal((48, 64)).astype(np.float32),
        "b": draw.standard_normal((64, 12)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["p"], name="words"),
        helper.make_node("MatMul", ["p", "a"], ["q"], name="first"),
        helper.make_node("Relu", ["q"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"], name="second"),
    ]
    return build(nodes, weights, x=("n", "s"), dtype=TensorProto.INT64, gives=TensorProto.FLOAT)


def texts(seed, count=4):
    """Batches of two rows of 6 tokens."""
    return list(np.random.default_rng(seed).integers(0, 400, (count, 2, 6)))


def noise(run, original, model):
    wanted, found = (run(each, np.concatenate(texts(9, 200)))[0] for each in (original, model))
    return float(np.square(wanted - found).sum() / np.square(wanted).sum())


def test_few_samples_do_better_on_unseen_ones_with_variations(reader, bench, run):
    with_them, without = (
        PruneSecondOrder(pattern="2:4", vary=vary)(reader, bench(reader, *texts(0))) for vary in (True, False)
    )
    assert noise(run, reader, with_them.model) < 0.8 * noise(run, reader, without.model)


def test_the_report_says_how_many_variations_there_were(reader, bench):
    report = PruneSecondOrder(pattern="2:4")(reader, bench(reader, *texts(0))).report
    assert report.warnings == [
        "the samples hold 48 tokens, which is few: 96 variations of each teach, too; more samples of your own do better"
    ]
    assert PruneSecondOrder(pattern="2:4", vary=False)(reader, bench(reader, *texts(0))).report.warnings == []


def test_the_same_seed_gives_the_same_weights(reader, bench):
    first, second = (PruneSecondOrder(pattern="2:4")(reader, bench(reader, *texts(0))).model for _ in range(2))
    for one, other in zip(find_sites(first), find_sites(second), strict=True):
        np.testing.assert_array_equal(one.array(), other.array())


def test_vary_is_true_or_false():
    with pytest.raises(ConfigError, match="vary"):
        PruneSecondOrder(sparsity=0.5, vary=1)
