"""Models whose units are pruned, and samples that make some of them stand in for others."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxpress.rewriter.sites import find_sites


@pytest.fixture
def chain(build, random):
    """Three layers: 16 neurons go from the first to the second, 12 from the second to the last."""

    def of(dtype=np.float32, *, bias=True):
        weights = {
            "a": random.standard_normal((6, 16)) / 3,
            "b": random.standard_normal((16, 12)) / 4,
            "c": random.standard_normal((12, 3)) / 4,
        }
        biases = {"a0": random.standard_normal(16), "b0": random.standard_normal(12)} if bias else {}
        nodes = [
            helper.make_node("Gemm", ["x", "a", "a0"][: 2 + bias], ["p"], name="first"),
            helper.make_node("Relu", ["p"], ["q"]),
            helper.make_node("Gemm", ["q", "b", "b0"][: 2 + bias], ["r"], name="second"),
            helper.make_node("Relu", ["r"], ["s"]),
            helper.make_node("MatMul", ["s", "c"], ["y"], name="last"),
        ]
        stored = {name: array.astype(dtype) for name, array in (weights | biases).items()}
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return build(nodes, stored, x=("n", 6), dtype=kind)

    return of


@pytest.fixture
def images(build, random):
    """Two convolutions with a residual connection around the second, and a classifier."""
    shapes = {"a": (8, 3, 3, 3), "b": (16, 8, 3, 3), "c": (8, 16, 1, 1), "d": (8, 4)}
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["p"], name="stem", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["p", "b"], ["q"], name="wide", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["q"], ["r"]),
        helper.make_node("Conv", ["r", "c"], ["s"], name="narrow"),
        helper.make_node("Add", ["p", "s"], ["t"]),
        helper.make_node("GlobalAveragePool", ["t"], ["u"]),
        helper.make_node("Flatten", ["u"], ["v"]),
        helper.make_node("Gemm", ["v", "d"], ["y"], name="classes"),
    ]
    return build(nodes, weights, x=("n", 3, "h", "w"))


@pytest.fixture
def branched(build, random):
    """A branch of two layers, and two more behind it."""
    shapes = {"a": (6, 16), "b": (16, 6), "c": (6, 16), "d": (16, 6)}
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    stored = [numpy_helper.from_array(weights[name], name) for name in "ab"]
    ends = [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)]
    layers = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="in"),
        helper.make_node("Tanh", ["p"], ["q"]),
        helper.make_node("MatMul", ["q", "b"], ["t"], name="out"),
    ]
    yes = helper.make_graph(layers, "yes", [], ends, stored)
    no = helper.make_graph([helper.make_node("Identity", ["x"], ["t"])], "no", [], ends)
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["which"]),
        helper.make_node("If", ["which"], ["u"], then_branch=yes, else_branch=no),
    ]
    behind = [
        helper.make_node("MatMul", ["u", "c"], ["v"], name="wide"),
        helper.make_node("Tanh", ["v"], ["w"]),
        helper.make_node("MatMul", ["w", "d"], ["y"], name="narrow"),
    ]
    zero = {"zero": np.float32(0)}

    def of(*, more):
        if more:
            return build([*nodes, *behind], zero | {name: weights[name] for name in "cd"}, x=("n", 6))
        return build([*nodes, helper.make_node("Neg", ["u"], ["y"])], zero, x=("n", 6))

    return of


@pytest.fixture
def rows(bench, random):
    """A workbench whose samples lie near a few directions, so that units can stand in for one another."""

    def of(model, count=8, each=16, dtype=np.float32):
        mixed = random.standard_normal((count, each, 4)) @ random.standard_normal((4, 6))
        return bench(model, *(mixed + 0.1 * random.standard_normal(mixed.shape)).astype(dtype))

    return of


@pytest.fixture
def deaden():
    """Make some units of a weight zero."""

    def of(model, name, units, axis):
        site = next(site for site in find_sites(model) if site.name == name)
        weight = site.array().copy()
        np.moveaxis(weight, axis, 0)[units] = 0
        model.replace_weight(site.weight, weight)

    return of


@pytest.fixture
def relative(run):
    """‖error‖ / ‖outputs‖ of a pruned model, over the samples of a workbench."""

    def of(pruned, model, bench):
        pairs = [(run(pruned, batch["x"])[0], run(model, batch["x"])[0]) for batch in bench.feed]
        return np.linalg.norm([a - b for a, b in pairs]) / np.linalg.norm([b for _, b in pairs])

    return of


@pytest.fixture
def removed():
    """Units that are gone, by group of a report."""

    def of(report):
        return {c.site: int(c.action.split()[0]) for c in report.changes if " removed" in c.action}

    return of


@pytest.fixture
def shapes_of():
    """Shapes of all weights of a model."""

    def of(model):
        return {site.name: site.shape for site in find_sites(model)}

    return of
