"""Layers as models of their own."""

import numpy as np
from onnx import helper

from onnxpress.calibration.session import Runner
from onnxpress.passes.stopwatch import alone
from onnxpress.rewriter.sites import find_sites


def test_a_layer_alone_computes_what_it_does_in_its_model_but_for_the_bias(build, random):
    weight, bias = (random.standard_normal(shape).astype(np.float32) for shape in ((4, 3, 2, 2), (4,)))
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["t"], strides=[2, 2]),
        helper.make_node("LeakyRelu", ["t"], ["y"]),
    ]
    model = build(nodes, {"w": weight, "b": bias}, x=(1, 3, 6, 6))
    (site,) = find_sites(model)
    found = alone(site.uses[0], weight, (1, 3, 6, 6), {"": model.opset})
    assert [node.op for node in found.graph.nodes] == ["Conv", "Relu"]  # an activation that is fused as well
    x = random.standard_normal((1, 3, 6, 6)).astype(np.float32)
    with Runner(found.to_proto().SerializeToString(), threads=1) as runner:
        (y,) = runner.run({"x": x}).values()
    expected = np.einsum("ncyixj,ocij->noyx", x.reshape(1, 3, 3, 2, 3, 2), weight)
    np.testing.assert_allclose(y, np.maximum(expected, 0), rtol=1e-5, atol=1e-5)
