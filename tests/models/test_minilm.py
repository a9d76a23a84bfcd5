import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from scipy.special import erf, softmax

from onnxpress.calibration.batches import Array
from onnxpress.models import zoo
from onnxpress.models.fetch import FetchError
from onnxpress.models.minilm import build, build_file, vocabulary
from onnxpress.models.wordpiece import WordPiece, pad

WIDTH, HEADS, INNER, LAYERS = 12, 3, 20, 2


def tiny_weights() -> dict[str, Array]:
    """Random weights of a BERT of 2 layers, by PyTorch's names."""
    generator = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (30, WIDTH),
        "embeddings.position_embeddings.weight": (16, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        "embeddings.LayerNorm.weight": (WIDTH,),
        "embeddings.LayerNorm.bias": (WIDTH,),
    }
    linear = {f"attention.self.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value")}
    linear |= {"attention.output.dense": (WIDTH, WIDTH), "intermediate.dense": (INNER, WIDTH)}
    linear |= {"output.dense": (WIDTH, INNER)}
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        for name, shape in linear.items():
            shapes |= {f"{at}.{name}.weight": shape, f"{at}.{name}.bias": shape[:1]}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{at}.{name}.weight": (WIDTH,), f"{at}.{name}.bias": (WIDTH,)}
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def forward(weights: dict[str, Array], ids: Array, mask: Array) -> Array:
    """The sentence encoder in NumPy, in float64."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}

    def linear(x: Array, at: str) -> Array:
        return x @ w[f"{at}.weight"].T + w[f"{at}.bias"]

    def normalise(x: Array, at: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12) * w[f"{at}.weight"] + w[f"{at}.bias"]

    def heads(x: Array) -> Array:
        return x.reshape(*ids.shape, HEADS, WIDTH // HEADS).transpose(0, 2, 1, 3)

    tables = "embeddings.{}_embeddings.weight".format
    x = w[tables("word")][ids] + w[tables("position")][: ids.shape[1]] + w[tables("token_type")][0]
    x = normalise(x, "embeddings.LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        q, k, v = (heads(linear(x, f"{at}.attention.self.{part}")) for part in ("query", "key", "value"))
        scores = q @ k.swapaxes(-1, -2) / np.sqrt(WIDTH // HEADS)
        scores = np.where(mask[:, None, None, :] == 1, scores, -np.inf)
        context = (softmax(scores, axis=-1) @ v).transpose(0, 2, 1, 3).reshape(x.shape)
        x = normalise(linear(context, f"{at}.attention.output.dense") + x, f"{at}.attention.output.LayerNorm")
        inner = linear(x, f"{at}.intermediate.dense")
        inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
        x = normalise(linear(inner, f"{at}.output.dense") + x, f"{at}.output.LayerNorm")
    mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True))


def run(model: onnx.ModelProto | str, batch: dict[str, Array]) -> Array:
    source = model if isinstance(model, str) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["sentence_embedding"], batch)[0])


def test_the_graph_computes_what_numpy_does() -> None:
    batch = pad([[2, 7, 9, 11, 3], [2, 29, 3], [2, 3]])
    found = run(build(tiny_weights(), layers=LAYERS, heads=HEADS), batch)
    expected = forward(tiny_weights(), batch["input_ids"], batch["attention_mask"])
    # float32 against float64 over two layers; the embeddings have length one
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_padding_changes_nothing() -> None:
    model = build(tiny_weights(), layers=LAYERS, heads=HEADS)
    alone, padded = pad([[2, 7, 9, 3]]), pad([[2, 7, 9, 3], [2, 1, 1, 1, 1, 1, 1, 3]])
    np.testing.assert_allclose(run(model, alone)[0], run(model, padded)[0], rtol=1e-5, atol=1e-6)


def test_the_graph_looks_like_an_export() -> None:
    model = build(tiny_weights(), layers=LAYERS, heads=HEADS)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("MatMul") == LAYERS * 8
    assert kinds.count("LayerNormalization") == LAYERS * 2 + 1
    assert kinds.count("Erf") == kinds.count("Softmax") == LAYERS
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]


def test_an_archive_without_the_files_leaves_nothing(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(FetchError, match=r"model\.safetensors"):
        build_file(tmp_path / "model.zip", tmp_path / "out" / "minilm.onnx")
    with pytest.raises(FetchError, match=r"tokenizer\.json"):
        vocabulary(tmp_path / "model.zip")
    assert not list((tmp_path / "out").rglob("*"))


def test_the_vocabulary_is_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("tokenizer.json", json.dumps({"model": {"vocab": {"b": 1, "c": 2, "a": 0}}}))
    assert vocabulary(tmp_path / "model.zip") == ["a", "b", "c"]


@pytest.mark.network
def test_similar_sentences_are_near() -> None:
    tokenizer = WordPiece(vocabulary(zoo.minilm_archive()))
    texts = ["A cat sits on the mat.", "A kitten is lying on a rug.", "The stock market fell sharply today."]
    rows = run(str(zoo.path("minilm")), pad([tokenizer.encode(text, longest=64) for text in texts]))
    cosine = rows @ rows.T
    np.testing.assert_allclose(np.diag(cosine), 1, rtol=0, atol=1e-5)
    assert cosine[0, 1] > 0.5 > 0.2 > max(cosine[0, 2], cosine[1, 2])
