from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxpress.calibration.session import Runner
from onnxpress.models import charnet
from onnxpress.models.fetch import FetchError


def _small() -> dict[str, np.ndarray]:
    """Weights of the committed layers' kernels and pieces, with few channels."""
    random = np.random.default_rng(0)
    shapes = [(4, 1, 9, 9), (4, 2, 9, 9), (8, 2, 8, 8), (12, 2, 1, 1)]
    found = {f"weight{k}": random.standard_normal(shape, np.float32) for k, shape in enumerate(shapes, 1)}
    return found | {f"bias{k}": random.standard_normal(shape[0], np.float32) for k, shape in enumerate(shapes, 1)}


def _reference(image: np.ndarray, given: dict[str, np.ndarray]) -> np.ndarray:
    """The network by definition: float64 [n, classes]."""
    x = image.astype(np.float64)
    for layer, pieces in enumerate((2, 2, 4, 4), 1):
        weight, bias = given[f"weight{layer}"], given[f"bias{layer}"]
        views = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))
        x = np.einsum("nihwab,oiab->nohw", views, weight.astype(np.float64)) + bias[:, None, None]
        x = x.reshape(len(x), pieces, -1, *x.shape[2:]).max(axis=1)
    return x.reshape(len(x), -1)


def test_the_graph_computes_convolutions_and_maxout(tmp_path: Path) -> None:
    given, image = _small(), np.random.default_rng(1).standard_normal((3, 1, 24, 24), np.float32)
    path = tmp_path / "small.onnx"
    onnx.save(charnet.build(given), path)
    with Runner(path) as runner:
        logits = runner.run({"image": image})["logits"]
    assert logits.shape == (3, 3)
    expected = _reference(image, given)
    # four sums of up to 162 products in float32, beside values of up to 1e4
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_the_committed_weights_have_the_shapes_of_the_paper() -> None:
    weights = charnet.weights()
    shapes = [weights[f"weight{layer}"].shape for layer in range(1, 5)]
    assert shapes == [(96, 1, 9, 9), (128, 48, 9, 9), (512, 64, 8, 8), (144, 128, 1, 1)]
    assert all(each.dtype == np.float32 for each in weights.values())


def test_is_built_once_into_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = charnet.cached(tmp_path)
    assert first.is_relative_to(tmp_path)
    monkeypatch.delattr(charnet, "build")
    assert charnet.cached(tmp_path) == first


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(FetchError, match=r"cannot store charnet in the cache: .*taken"):
        charnet.cached(tmp_path / "taken")
