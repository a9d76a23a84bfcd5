"""Whatever is built of the known operators: what was zero before can be taken out, what is free can change places."""

from collections.abc import Callable

import numpy as np
import pytest
from onnx import helper

from onnxpress.rewriter.couplings import Group, find_couplings, reasons_to_stay, reorder_units
from onnxpress.rewriter.model import Model

Step = Callable[..., None]


def concat(g) -> None:
    x, shape = g.pick(g.choose([2, 3, 4]))
    axis = int(g.random.integers(1, len(shape)))
    fits = [n for n in g.live if len(g.shapes[n]) == len(shape) and _but(g.shapes[n], axis) == _but(shape, axis)]
    y = g.choose(fits)
    width = shape[axis] + g.shapes[y][axis]
    if width <= 24:
        g.then("Concat", [x, y], _with(shape, axis, width), axis=axis)


def split(g) -> None:
    x, shape = g.pick(g.choose([2, 3, 4]))
    axis = int(g.choose([1, len(shape) - 1]))
    if shape[axis] < 4:
        return
    first = int(g.choose([shape[axis] // 2, g.random.integers(1, shape[axis])]))
    sizes = [first, shape[axis] - first]
    parts = g.node("Split", [x, g.constant(np.array(sizes))], *[_with(shape, axis, s) for s in sizes], axis=axis)
    g.live.append(g.choose(parts))
    if sizes[0] == sizes[1] and g.random.random() < 0.7:
        g.then(
            g.choose(["Mul", "Add"]), [parts[0], g.one("Sigmoid", [parts[1]], g.shapes[parts[1]])], g.shapes[parts[0]]
        )


def cut(g) -> None:
    x, shape = g.pick(g.choose([2, 3, 4]))
    axis = int(g.random.integers(1, len(shape)))
    if shape[axis] < 3:
        return
    start = int(g.random.integers(0, shape[axis] - 1))
    end = int(g.random.integers(start + 1, shape[axis] + 1))
    bounds = [g.constant(np.array([v])) for v in (start, end if end < shape[axis] else 1 << 40, axis - len(shape))]
    g.then("Slice", [x, *bounds], _with(shape, axis, end - start))


def gather(g) -> None:
    x, shape = g.pick(g.choose([2, 3, 4]))
    axis = int(g.random.integers(1, len(shape)))
    rows = g.random.integers(-shape[axis], shape[axis], int(g.random.integers(1, 9)))
    g.then("Gather", [x, g.constant(rows)], _with(shape, axis, len(rows)), axis=axis)


def pad(g) -> None:
    x, shape = g.pick(g.choose([3, 4]))
    axis, width = int(g.random.integers(1, len(shape))), int(g.random.integers(0, 3))
    widths = np.zeros((2, len(shape)), np.int64)
    widths[:, axis] = width, 1
    g.then("Pad", [x, g.constant(widths.reshape(-1))], _with(shape, axis, shape[axis] + width + 1))


def resize(g) -> None:
    x, (n, c, h, w) = g.pick(4)
    if h * w > 64:
        return
    if g.random.random() < 0.5:
        g.then("Resize", [x, "", g.constant(np.array([1.0, 1.0, 2.0, 2.0]))], (n, c, 2 * h, 2 * w), mode="nearest")
    else:
        g.then("Resize", [x, "", "", g.constant(np.array([n, c, h + 1, w]))], (n, c, h + 1, w), mode="linear")


def blocks(g) -> None:
    x, (n, c, h, w) = g.pick(4)
    if c % 4 == 0:
        mode = g.choose(["DCR", "CRD"])
        g.then("DepthToSpace", [x], (n, c // 4, 2 * h, 2 * w), blocksize=2, mode=mode)
    elif h % 2 == 0 and w % 2 == 0:
        g.then("SpaceToDepth", [x], (n, 4 * c, h // 2, w // 2), blocksize=2)


def shuffle(g) -> None:
    x, (n, c, h, w) = g.pick(4)
    groups = g.divisor(c)
    apart = g.one("Reshape", [x, g.constant(np.array([0, groups, c // groups, h, w]))], (n, groups, c // groups, h, w))
    turned = g.one("Transpose", [apart], (n, c // groups, groups, h, w), perm=[0, 2, 1, 3, 4])
    g.then("Reshape", [turned, g.constant(np.array([0, -1, h, w]))], (n, c, h, w))


def transpose(g) -> None:
    x, shape = g.pick(g.choose([3, 4]))
    perm = [0, *(1 + g.random.permutation(len(shape) - 1)).tolist()]
    g.then("Transpose", [x], tuple(shape[axis] for axis in perm), perm=perm)


def flatten(g) -> None:
    x, shape = g.pick(g.choose([3, 4]))
    size = int(np.prod(shape[1:]))
    if size > 600:
        return
    form = g.choose(["Flatten", "Reshape", "last"])
    if form == "Flatten":
        flat = g.one("Flatten", [x], (shape[0], size))
    elif form == "Reshape":
        flat = g.one("Reshape", [x, g.constant(np.array([0, -1]))], (shape[0], size))
    else:  # [N, …, H, W] -> [N, …, H·W]
        g.then(
            "Reshape", [x, g.constant(np.array([0] * (len(shape) - 2) + [-1]))], (*shape[:-2], shape[-2] * shape[-1])
        )
        return
    g.then("Gemm", [flat, g.weight(7, size), g.weight(7)], (shape[0], 7), transB=1)


def unsqueeze(g) -> None:
    x, shape = g.pick(g.choose([2, 3]))
    axis = int(g.random.integers(1, len(shape) + 1))
    wide = g.one("Unsqueeze", [x, g.constant(np.array([axis]))], (*shape[:axis], 1, *shape[axis:]))
    if g.random.random() < 0.5:
        g.live.append(wide)
    else:
        g.then("Squeeze", [g.one("Relu", [wide], g.shapes[wide]), g.constant(np.array([axis]))], shape)


def repeat(g) -> None:
    x, shape = g.pick(g.choose([2, 3]))
    axis = int(g.random.integers(1, len(shape)))
    if shape[axis] > 8:
        return
    if g.random.random() < 0.5:
        times = np.ones(len(shape), np.int64)
        times[axis] = 2
        g.then("Tile", [x, g.constant(times)], _with(shape, axis, 2 * shape[axis]))
    else:
        wide = g.one("Unsqueeze", [x, g.constant(np.array([1]))], (shape[0], 1, *shape[1:]))
        target = g.constant(np.array([1, 3, *shape[1:]]))
        g.then("Expand", [wide, target], (shape[0], 3, *shape[1:]))


def linear(g, x: str, width: int) -> str:
    shape = (*g.shapes[x][:-1], width)
    return g.one("Add", [g.one("MatMul", [x, g.weight(g.shapes[x][-1], width)], shape), g.weight(width)], shape)


def attention(g) -> None:
    """Heads by Reshape and Transpose, as exporters write them; the batch size may be read off at run time."""
    x, (n, t, d) = g.pick(3)
    heads, each = int(g.choose([2, 3])), int(g.choose([2, 4]))
    width = heads * each
    if g.random.random() < 0.5:
        shapes = [(n, t, width)] * 3
        parts = g.node("Split", [linear(g, x, 3 * width), g.constant(np.array([width] * 3))], *shapes, axis=2)
    else:
        parts = [linear(g, x, width) for _ in range(3)]
    target = g.constant(np.array([0, 0, heads, each]))
    if g.random.random() < 0.5:
        size = g.one("Shape", [x], (3,))
        batch = g.one("Gather", [size, g.constant(np.array([0]))], (1,))
        target = g.one("Concat", [batch, g.constant(np.array([t, heads, each]))], (4,), axis=0)
    split = [g.one("Reshape", [part, target], (n, t, heads, each)) for part in parts]
    query, value = (g.one("Transpose", [split[i]], (n, heads, t, each), perm=[0, 2, 1, 3]) for i in (0, 2))
    key = g.one("Transpose", [split[1]], (n, heads, each, t), perm=[0, 2, 3, 1])
    scores = g.one("Mul", [g.one("MatMul", [query, key], (n, heads, t, t)), g.weight(1)], (n, heads, t, t))
    scores = g.one("Softmax", [scores], (n, heads, t, t), axis=-1)
    context = g.one(
        "Transpose", [g.one("MatMul", [scores, value], (n, heads, t, each))], (n, t, heads, each), perm=[0, 2, 1, 3]
    )
    merged = g.one("Reshape", [context, g.constant(np.array([0, 0, width]))], (n, t, width))
    g.then("Add", [x, linear(g, merged, d)], (n, t, d))


def gram(g) -> None:
    """x·xᵀ of one tensor: two factors that are activations."""
    x, (n, t, d) = g.pick(3)
    y = g.one("MatMul", [x, g.weight(d, 6)], (n, t, 6))
    turned = g.one("Transpose", [y], (n, 6, t), perm=[0, 2, 1])
    scores = g.one("Softmax", [g.one("MatMul", [y, turned], (n, t, t))], (n, t, t), axis=2)
    g.then("MatMul", [scores, x], (n, t, d))


def gated(g) -> None:
    x, (n, t, d) = g.pick(3)
    gate, up = g.one("Sigmoid", [linear(g, x, 10)], (n, t, 10)), linear(g, x, 10)
    inner = g.one("Mul", [gate, up], (n, t, 10))
    g.then("Add", [linear(g, inner, d), x], (n, t, d))


def recurrent(g) -> None:
    x, (n, t, d) = g.pick(3)
    op, hidden = g.choose(["LSTM", "GRU", "RNN"]), 5
    directions = int(g.random.integers(1, 3))
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op] * hidden
    weights = [g.weight(directions, gates, d), g.weight(directions, gates, hidden), g.weight(directions, 2 * gates)]
    direction = ["forward", "bidirectional"][directions - 1]
    inputs = [g.one("Transpose", [x], (t, n, d), perm=[1, 0, 2]), *weights]
    shapes = (t, directions, n, hidden), (directions, n, hidden)
    y, last = g.node(op, inputs, *shapes, hidden_size=hidden, direction=direction)
    if g.random.random() < 0.7:
        turned = g.one("Transpose", [y], (n, t, directions, hidden), perm=[2, 0, 1, 3])
        g.then("Reshape", [turned, g.constant(np.array([0, 0, -1]))], (n, t, directions * hidden))
    else:
        g.then("Transpose", [last], (n, directions, hidden), perm=[1, 0, 2])


def branch(g) -> None:
    """Both branches read a tensor from outside."""
    x, shape = g.pick(g.choose([2, 3]))
    result = (*shape[:-1], 7)
    graphs = []
    for index, inner in enumerate(("Relu", "Tanh")):
        names = [f"{each}{len(g.nodes)}_{index}" for each in ("inner", "end")]
        nodes = [
            helper.make_node(inner, [x], names[:1]),
            helper.make_node("MatMul", [names[0], g.weight(shape[-1], 7)], names[1:]),
        ]
        graphs.append(
            helper.make_graph(nodes, inner, [], [helper.make_tensor_value_info(names[1], 1, ["N", *result[1:]])])
        )
    condition = g.constant(np.array(bool(g.random.integers(2))))
    g.then("If", [condition], result, then_branch=graphs[0], else_branch=graphs[1])


def fused(g) -> None:
    x, shape = g.pick(g.choose([2, 3]))
    op = g.choose(["BiasGelu", "FastGelu", "FusedMatMul", "QuickGelu"])
    if op == "FusedMatMul":
        g.then(op, [x, g.weight(6, shape[-1])], (*shape[:-1], 6), domain="com.microsoft", transB=1, alpha=0.5)
    else:
        g.then(op, [x, g.weight(shape[-1])][: 1 if op == "QuickGelu" else 2], shape, domain="com.microsoft")


MOVES: list[Step] = [
    concat, concat, split, split, cut, gather, pad, resize, blocks, shuffle, transpose, transpose, flatten, unsqueeze,
    repeat, attention, attention, gram, gated, recurrent, branch, fused,
]  # fmt: skip


def _but(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _with(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


def grow(make, steps: list[Step], seed: int):
    g = make(seed, opset=[17, 18, 21][seed % 3], start=["image", "sequence", "ids"][seed // 3 % 3])
    wanted = len(g.live) + int(g.random.integers(4, 13))
    for _ in range(60):
        if len(g.live) >= wanted:
            break
        step = steps[g.random.integers(len(steps))]
        try:
            step(g)
        except TypeError:
            continue  # there is no live tensor of the rank it works on
    return g


def choose_units(model: Model, random: np.random.Generator) -> dict[Group, np.ndarray]:
    chosen = {}
    for group in find_couplings(model).groups:
        if group.frozen is None and random.random() < 0.7:
            count = int(random.integers(1, group.size))
            chosen[group] = random.permutation(group.size)[:count]
    return chosen


def count_weights(model: Model) -> int:
    return sum(int(np.prod(c.shape)) for c in model.constants() if c.dtype == np.float32)


@pytest.mark.parametrize("block", range(8))
def test_removing_what_is_zero_changes_no_output(random_graph, layers, remove_exactly, block: int) -> None:
    for seed in range(16 * block, 16 * block + 16):
        g = grow(random_graph, [*layers, *MOVES], seed)
        model = g.model()
        chosen = choose_units(model, g.random)
        before = count_weights(model)
        remove_exactly(model, chosen, wholly=True, **g.feed)
        assert not chosen or count_weights(model) < before, seed


@pytest.mark.parametrize("block", range(4))
def test_any_order_of_units_that_may_have_one_changes_no_output(random_graph, layers, run, block: int) -> None:
    reordered = 0
    for seed in range(16 * block, 16 * block + 16):
        g = grow(random_graph, [*layers, *MOVES], seed)
        model = g.model()
        free = [group for group in find_couplings(model).groups if group.frozen is None]
        stay = reasons_to_stay(model, free)
        orders = {group: g.random.permutation(group.size) for group in free if group not in stay}
        before = run(model, **g.feed)
        reorder_units(model, orders)
        reordered += len(orders)
        for old, new in zip(before, run(model, **g.feed), strict=True):
            # float32 sums of up to some hundred terms, in another order
            np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-5, err_msg=str(seed))
    assert reordered > 8
