from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxpress.calibration.batches import Array
from onnxpress.calibration.metrics import top1
from onnxpress.calibration.session import Runner
from onnxpress.models import fashion, zoo
from onnxpress.models.efficientnet import build

STAGES = [
    (8, 4, 3, 1, 1),
    (4, 6, 3, 2, 6),
    (6, 8, 5, 2, 6),
    (8, 8, 3, 3, 6),
    (8, 10, 5, 3, 6),
    (10, 12, 5, 4, 6),
    (12, 16, 3, 1, 6),
]


def tiny_weights() -> dict[str, Array]:
    """Random weights of a narrow EfficientNet-Lite0, by PyTorch's names."""
    random = np.random.default_rng(0)
    found: dict[str, Array] = {}

    def layer(conv: str, norm: str, *shape: int) -> None:
        deviation = np.sqrt(2 / np.prod(shape[1:]))
        found[f"{conv}.weight"] = (random.standard_normal(shape) * deviation).astype(np.float32)
        for name in ("weight", "running_var"):
            found[f"{norm}.{name}"] = random.uniform(0.5, 1.5, shape[0]).astype(np.float32)
        for name in ("bias", "running_mean"):
            found[f"{norm}.{name}"] = random.standard_normal(shape[0]).astype(np.float32)

    layer("_conv_stem", "_bn0", 8, 3, 3, 3)
    block = 0
    for first, out, kernel, repeats, expansion in STAGES:
        for into in [first] + [out] * (repeats - 1):
            at, wide = f"_blocks.{block}", into * expansion
            if expansion > 1:
                layer(f"{at}._expand_conv", f"{at}._bn0", wide, into, 1, 1)
            layer(f"{at}._depthwise_conv", f"{at}._bn1", wide, 1, kernel, kernel)
            layer(f"{at}._project_conv", f"{at}._bn2", out, wide, 1, 1)
            block += 1
    layer("_conv_head", "_bn1", 20, 16, 1, 1)
    return found


def run(model: onnx.ModelProto, x: Array) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": x})[0])


def test_the_graph_is_what_the_exporter_writes() -> None:
    model = build(tiny_weights(), (np.ones((10, 20), np.float32), np.zeros(10, np.float32)))
    found = Counter(node.op_type for node in model.graph.node)
    # 16 blocks of 3 convolutions, the first of 2, between a first and a last one; no ReLU6 behind the narrow ones
    assert (found["Conv"], found["BatchNormalization"], found["Clip"], found["Pad"]) == (49, 49, 33, 17)
    assert (found["Add"], found["GlobalAveragePool"], found["Flatten"], found["Gemm"]) == (9, 1, 1, 1)
    assert found.total() == 160


def test_the_head_multiplies_the_pooled_features() -> None:
    weights, random = tiny_weights(), np.random.default_rng(1)
    head = random.standard_normal((10, 20)).astype(np.float32), random.standard_normal(10).astype(np.float32)
    image = random.standard_normal((2, 3, 224, 224)).astype(np.float32)
    features = run(build(weights, None), image)
    assert features.shape == (2, 20)
    assert features.std() > 0.01
    np.testing.assert_allclose(run(build(weights, head), image), features @ head[0].T + head[1], rtol=1e-4, atol=1e-4)


@pytest.mark.network
def test_articles_are_told_apart() -> None:
    with Runner(zoo.path("effnet-lite0"), threads=2) as runner:
        assert top1(runner, fashion.labelled(samples=200)) > 0.84
