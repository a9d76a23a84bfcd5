"""A model of two layers, and random small graphs of the operators that couplings know."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxpress.rewriter.model import Model

BATCH = 2
# fmt: off
UNARY = [
    "Abs", "Cos", "Elu", "Erf", "HardSigmoid", "Identity", "LeakyRelu", "Neg", "Relu", "Sigmoid", "Softplus", "Tanh",
]
# fmt: on


class RandomGraph:
    """Grows a valid DAG, one random step after the other; `live` are tensors that a step may read."""

    def __init__(self, seed: int, *, opset: int, start: str) -> None:
        self.random = np.random.default_rng(seed)
        self.opset, self.nodes, self.weights = opset, [], {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.feed: dict[str, np.ndarray] = {}
        self.live: list[str] = []
        if start == "image":
            self.input("image", (BATCH, 3, 8, 8))
            self.then("Conv", ["image", self.weight(8, 3, 3, 3)], (BATCH, 8, 8, 8), pads=[1, 1, 1, 1])
        elif start == "sequence":
            self.input("sequence", (BATCH, 6, 5))
            self.then("MatMul", ["sequence", self.weight(5, 8)], (BATCH, 6, 8))
        else:
            self.shapes["ids"] = (BATCH, 6)
            self.feed["ids"] = self.random.integers(0, 11, (BATCH, 6))
            self.then("Gather", [self.weight(11, 8), "ids"], (BATCH, 6, 8))

    def input(self, name: str, shape: tuple[int, ...]) -> None:
        self.shapes[name] = shape
        self.feed[name] = self.random.standard_normal(shape).astype(np.float32)

    def weight(self, *shape: int, hint: str = "w") -> str:
        """A constant of unit scale, or positive and far from 0 where it divides."""
        values = self.random.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))
        return self.constant(np.abs(values) + 1 if hint == "divisor" else values, hint=hint)

    def constant(self, values: object, *, hint: str = "c") -> str:
        name = f"{hint}{len(self.weights)}"
        array = np.asarray(values)
        self.weights[name] = array.astype(np.float32) if array.dtype.kind == "f" else array
        self.shapes[name] = array.shape
        return name

    def node(
        self, op: str, inputs: list[str], *shapes: tuple[int, ...], domain: str = "", **attrs: object
    ) -> list[str]:
        outputs = [f"t{len(self.nodes)}_{index}" for index in range(len(shapes))]
        self.nodes.append(helper.make_node(op, inputs, outputs, f"{op}{len(self.nodes)}", domain=domain, **attrs))
        self.shapes.update(zip(outputs, shapes, strict=True))
        return outputs

    def one(self, op: str, inputs: list[str], shape: tuple[int, ...], domain: str = "", **attrs: object) -> str:
        return self.node(op, inputs, shape, domain=domain, **attrs)[0]

    def then(self, op: str, inputs: list[str], shape: tuple[int, ...], **attrs: object) -> None:
        """A node whose result later steps may read."""
        self.live.append(self.one(op, inputs, shape, **attrs))

    def pick(self, rank: int) -> tuple[str, tuple[int, ...]] | None:
        """A live tensor of a rank, a late one rather than an early one."""
        names = [name for name in self.live if len(self.shapes[name]) == rank]
        if not names:
            return None
        name = names[int(len(names) * np.sqrt(self.random.random()))]
        return name, self.shapes[name]

    def choose(self, options: list) -> object:
        return options[self.random.integers(len(options))]

    def divisor(self, number: int) -> int:
        return self.choose([d for d in range(1, number + 1) if number % d == 0])

    def model(self) -> Model:
        """Everything that nobody reads goes through a last layer into an output."""
        read = {name for node in self.nodes for name in node.input}
        ends = [name for name in self.live if name not in read][-4:] or self.live[-1:]
        outputs = []
        for name in ends:
            *before, width = self.shapes[name]
            last = self.weight(width, 3)
            if len(self.shapes[name]) == 4:
                before, last = (
                    [*self.shapes[name][:1], 3, *self.shapes[name][2:]],
                    self.weight(3, self.shapes[name][1], 1, 1),
                )
                outputs.append(self.one("Conv", [name, last], tuple(before)))
            else:
                outputs.append(self.one("MatMul", [name, last], (*before, 3)))
        symbolic = bool(self.random.integers(2))
        graph = helper.make_graph(
            self.nodes,
            "random",
            [self._declare(name, symbolic=symbolic) for name in self.feed],
            [self._declare(name, symbolic=symbolic) for name in outputs],
            [onnx.numpy_helper.from_array(array, name) for name, array in self.weights.items()],
            value_info=[]
            if symbolic
            else [self._declare(n, symbolic=False) for n in self.live if self.random.random() < 0.3],
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return Model.from_proto(helper.make_model(graph, ir_version=8, opset_imports=opsets))

    def _declare(self, name: str, *, symbolic: bool) -> onnx.ValueInfoProto:
        kind = TensorProto.INT64 if name == "ids" else TensorProto.FLOAT
        shape = self.shapes[name]
        return helper.make_tensor_value_info(name, kind, ["N", *shape[1:]] if symbolic else shape)


def conv(g) -> None:
    x, (n, c, h, w) = g.pick(4)
    groups = g.choose([1, 1, c, g.divisor(c)])
    out = groups * int(g.random.integers(1, 4)) if groups > 1 else int(g.random.integers(4, 10))
    kernel = int(g.choose([1, 3]))
    inputs = [x, g.weight(out, c // groups, kernel, kernel), g.weight(out)][: g.choose([2, 3])]
    g.then("Conv", inputs, (n, out, h, w), group=groups, pads=[kernel // 2] * 4)


def conv_transpose(g) -> None:
    x, (n, c, h, w) = g.pick(4)
    groups = g.choose([1, c, g.divisor(c)])
    each = int(g.random.integers(1, 4))
    inputs = [x, g.weight(c, each, 3, 3), g.weight(each * groups)]
    g.then("ConvTranspose", inputs, (n, each * groups, h, w), group=groups, pads=[1] * 4)


def batch_norm(g) -> None:
    x, shape = g.pick(4)
    parameters = [g.weight(shape[1]) for _ in range(3)] + [g.weight(shape[1], hint="divisor")]
    g.then("BatchNormalization", [x, *parameters], shape)


def instance_norm(g) -> None:
    x, shape = g.pick(4)
    g.then("InstanceNormalization", [x, g.weight(shape[1]), g.weight(shape[1])], shape, epsilon=0.1)


def group_norm(g) -> None:
    x, shape = g.pick(4)
    if g.opset < 18:
        return
    groups = g.divisor(shape[1])
    width = shape[1] if g.opset >= 21 else groups
    g.then("GroupNormalization", [x, g.weight(width), g.weight(width)], shape, num_groups=groups, epsilon=0.1)


def norm(g) -> None:
    x, shape = g.pick(g.choose([2, 3, 4]))
    op = g.choose(["LayerNormalization", "LpNormalization", "Softmax", "LogSoftmax", "CumSum", "LRN"])
    axis = int(g.random.integers(-1, len(shape)))
    if op == "LayerNormalization":
        g.then(op, [x, g.weight(*shape[axis:]), g.weight(*shape[axis:])], shape, axis=axis)
    elif op == "CumSum":
        g.then(op, [x, g.constant(np.int64(axis))], shape)
    elif op == "LRN":
        if len(shape) == 4:
            g.then(op, [x], shape, size=3)
    else:
        g.then(op, [x], shape, axis=axis)


def unary(g) -> None:
    x, shape = g.pick(g.choose([2, 3, 4]))
    g.then(g.choose(UNARY), [x], shape)


def with_constant(g) -> None:
    x, shape = g.pick(g.choose([2, 3, 4]))
    width = [size if g.random.random() < 0.7 else 1 for size in shape[1:]]
    while len(width) > 1 and width[0] == 1:
        width = width[1:]
    op = g.choose(["Add", "Sub", "Mul", "Div", "PRelu", "Max", "Where"])
    if op == "Where":
        condition = g.constant(g.random.random(width) < 0.5)
        g.then(op, [condition, x, g.weight(*width)], shape)
        return
    other = g.weight(*width, hint="divisor" if op == "Div" else "w")
    inputs = [other, x] if op in ("Add", "Max") and g.random.random() < 0.3 else [x, other]
    g.then(op, inputs, shape)


def binary(g) -> None:
    """Two tensors of equal shape, and often one tensor twice."""
    x, shape = g.pick(g.choose([2, 3, 4]))
    y = g.choose([name for name in g.live if g.shapes[name] == shape])
    g.then(g.choose(["Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean"]), [x, y], shape)


def residual(g) -> None:
    x, shape = g.pick(4)
    inner = g.one("Conv", [x, g.weight(5, shape[1], 1, 1), g.weight(5)], (shape[0], 5, *shape[2:]))
    inner = g.one("Relu", [inner], g.shapes[inner])
    outer = g.one("Conv", [inner, g.weight(shape[1], 5, 1, 1)], shape)
    g.then("Add", [x, outer], shape)


def pool(g) -> None:
    x, (n, c, h, w) = g.pick(4)
    op = g.choose(["MaxPool", "AveragePool", "LpPool"])
    if h % 2 == 0 and w % 2 == 0 and g.random.random() < 0.5:
        g.then(op, [x], (n, c, h // 2, w // 2), kernel_shape=[2, 2], strides=[2, 2])
    else:
        g.then(op, [x], (n, c, h, w), kernel_shape=[3, 3], pads=[1] * 4)


def unpool(g) -> None:
    x, (n, c, h, w) = g.pick(4)
    if h % 2 or w % 2:
        return
    small = (n, c, h // 2, w // 2)
    values, where = g.node("MaxPool", [x], small, small, kernel_shape=[2, 2], strides=[2, 2])
    g.then("MaxUnpool", [values, where], (n, c, h, w), kernel_shape=[2, 2], strides=[2, 2])


def squeeze_excite(g) -> None:
    x, (n, c, h, w) = g.pick(4)
    pooled = g.one(g.choose(["GlobalAveragePool", "GlobalMaxPool"]), [x], (n, c, 1, 1))
    inner = g.one("Relu", [g.one("Conv", [pooled, g.weight(3, c, 1, 1)], (n, 3, 1, 1))], (n, 3, 1, 1))
    gate = g.one("Sigmoid", [g.one("Conv", [inner, g.weight(c, 3, 1, 1)], (n, c, 1, 1))], (n, c, 1, 1))
    g.then("Mul", [x, gate], (n, c, h, w))


def reduce(g) -> None:
    x, shape = g.pick(4)
    keep = int(g.random.integers(2))
    op = g.choose(["ReduceMean", "ReduceMax", "ReduceSum"])
    result = (*shape[:2], 1, 1) if keep else shape[:2]
    if g.opset >= 18 or op == "ReduceSum":
        g.then(op, [x, g.constant(np.array([2, -1]))], result, keepdims=keep)
    else:
        g.then(op, [x], result, axes=[2, -1], keepdims=keep)


def matmul(g) -> None:
    x, shape = g.pick(g.choose([2, 3, 4]))
    width = int(g.random.integers(4, 9))
    form = g.choose(["MatMul", "Einsum", "Gemm"])
    if form == "Gemm" and len(shape) == 2:
        turned = int(g.random.integers(2))
        w = g.weight(width, shape[1]) if turned else g.weight(shape[1], width)
        bias = g.weight(*g.choose([(width,), (1, width), (1,), ()]))
        g.then("Gemm", [x, w, bias], (shape[0], width), transB=turned, alpha=0.5)
    elif form == "Einsum" and len(shape) == 3:
        equation, w = g.choose([("btd,de->bte", g.weight(shape[2], width)), ("...d,ed", g.weight(width, shape[2]))])
        equation = equation if "->" in equation else f"{equation}->...e"
        g.then("Einsum", [x, w], (*shape[:-1], width), equation=equation)
    else:
        g.then("MatMul", [x, g.weight(shape[-1], width)], (*shape[:-1], width))


LAYERS = [
    conv, conv, conv_transpose, batch_norm, instance_norm, group_norm, norm, unary, unary, with_constant, binary,
    residual, pool, unpool, squeeze_excite, reduce, matmul, matmul,
]  # fmt: skip


@pytest.fixture
def random_graph() -> Callable[..., RandomGraph]:
    """The class, for tests that grow graphs."""
    return RandomGraph


@pytest.fixture
def layers() -> list[Callable[[RandomGraph], None]]:
    """Steps of the operators that compute; those that move elements stand in the test of removal."""
    return LAYERS


@pytest.fixture
def model(parse) -> Model:
    """Six neurons that may go or change places, three that may not."""
    random = np.random.default_rng(0)
    weights = {"w": (4, 6), "b": (6,), "last": (6, 3)}
    return parse(
        "g (float[2,4] x) => (float[2,3] y) <float[2,6] h, float[2,6] r> "
        "{ h = Gemm(x, w, b) r = Relu(h) y = MatMul(r, last) }",
        **{name: random.standard_normal(shape).astype(np.float32) for name, shape in weights.items()},
    )
