"""Shapes of activations."""

import numpy as np
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.seen import Seen, shapes_seen


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
