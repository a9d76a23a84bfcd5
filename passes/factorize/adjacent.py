"""Linear layers directly behind one another, and the one layer that both are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.factorize.chain import Attributes
from onnxpress.passes.factorize.rank import Products
from onnxpress.passes.inputs import activation_of
from onnxpress.passes.intercepts import intercept_of
from onnxpress.passes.kernels.arrays import Float64Array
from onnxpress.passes.selection import Layout, RefusalError
from onnxpress.rewriter.edits import output_ids
from onnxpress.rewriter.model import DEFAULT_DOMAINS, Model
from onnxpress.rewriter.shapes import infer_shapes
from onnxpress.rewriter.sites import Site, Use, find_sites

_POINTWISE = "only a kernel of one position can be taken into another"


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """Two layers, the second of which reads what the first gives, perhaps plus a constant.

    Attributes:
        first: its weight.
        second: the same, of an equal kind: both convolve, both multiply rows or both columns.
        use: of the first weight.
        reader: of the second.
        between: nodes that stand between the two.
        others: why what the first gives must stay; None where nobody else reads it.
    """

    first: Site
    second: Site
    use: Use
    reader: Use
    between: tuple[gs.Node, ...]
    others: str | None

    @property
    def name(self) -> str:
        """Of both."""
        return f"{self.first.name} · {self.second.name}"

    @property
    def middle(self) -> int:
        """Width of what lies between."""
        return self.first.shape[self.first.axis("out")]

    @property
    def sides(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of both kernels; empty for matrices."""
        convolves = self.first.op == "Conv"
        return (self.first.shape[2:], self.second.shape[2:]) if convolves else ((), ())

    @property
    def wide_behind(self) -> bool:
        """Whether the second layer sees several positions."""
        return math.prod(self.sides[1]) > 1

    def check(self, model: Model) -> None:
        """Refuse layers that no single one can stand for.

        Raises:
            RefusalError: says why.
        """
        if self.others:
            raise RefusalError(self.others)
        if self.use.graph is not model.graph or self.reader.graph is not model.graph:
            raise RefusalError("they run inside a branch or a loop")
        outputs = output_ids(model)
        for site in (self.first, self.second):
            if len(site.weight.outputs) > 1 or id(site.weight) in outputs:
                raise RefusalError(f"the weight of '{site.name}' is read by others, too, and would have to stay")
        if self.first.op == "Conv":
            self._check_convolutions(model)
        else:
            self._check_matrices()
        self._check_bias(model)

    def _check_matrices(self) -> None:
        for site in (self.first, self.second):
            if len(site.shape) != 2:
                raise RefusalError(f"the weight of '{site.name}' is a stack of matrices")
        if self.second.node.attrs.get("transA", 0):
            raise RefusalError(f"'{self.second.name}' transposes what lies between")
        if self.first.node.attrs.get("transA", 0) and self.second.op != "Gemm":
            raise RefusalError(f"'{self.first.name}' transposes what it reads, which a {self.second.op} cannot")

    def _check_convolutions(self, model: Model) -> None:
        for site in (self.first, self.second):
            if site.groups > 1:
                raise RefusalError(f"'{site.name}' has {site.groups} groups")
        front, behind = (
            _Window.of(self.first.node, len(self.sides[0])),
            _Window.of(self.second.node, len(self.sides[1])),
        )
        if not self.wide_behind:
            if behind.padded:
                raise RefusalError(f"'{self.second.name}' pads what lies between")
            if front.automatic and max(behind.strides) > 1:
                raise RefusalError(f"the padding of '{self.first.name}' follows from its strides, which would change")
            return
        if math.prod(self.sides[0]) > 1:
            shown = " and ".join("x".join(map(str, each)) for each in self.sides)
            raise RefusalError(f"have kernels of {shown}: {_POINTWISE}")
        if front.padded or max(front.strides) > 1:
            raise RefusalError(f"'{self.first.name}' pads or strides before a wider kernel")
        if behind.padded and self.bias(model) is not None:
            raise RefusalError(f"the bias of '{self.first.name}' ends where '{self.second.name}' pads with zeros")

    def _check_bias(self, model: Model) -> None:
        mine = intercept_of(model, self.first)
        allowed = [] if mine is None or self.first.op != "MatMul" else [mine.node]
        for node in self.between:
            if node.op == "Add" and all(node is not each for each in allowed):
                raise RefusalError(f"Add '{node.name}' between them is no bias of one number for each output")
        if mine is not None and self.between and len(mine.shape) > 1:
            self._check_rank(model, len(mine.shape))
        if mine is None and self.first.op != "MatMul" and _third(self.first.node):
            raise RefusalError(f"'{self.first.name}' has a bias that is computed, or not one for each output")
        if self.second.op != "MatMul" and self.bias(model) is not None and intercept_of(model, self.second) is None:
            raise RefusalError(f"the bias of '{self.first.name}' cannot be added to that of '{self.second.name}'")

    def _check_rank(self, model: Model, rank: int) -> None:
        """A constant of more axes than what it is added to makes that grow."""
        shape = infer_shapes(model).shape(self.use.node.outputs[0])
        if self.first.op == "MatMul" and (shape is None or len(shape) < rank):
            raise RefusalError(f"a constant of {rank} axes is added between them, to what may have fewer")

    def bias(self, model: Model) -> Float64Array | None:
        """What the first layer adds to its outputs, [middle]; None for nothing."""
        intercept = intercept_of(model, self.first)
        found = np.zeros(0) if intercept is None else intercept.read(model) * self._alpha()
        return found if found.any() else None

    def delta(self, model: Model) -> Float64Array | None:
        """What the second makes of it, [out], in units of its product W·x; None for nothing."""
        bias, rows = self.bias(model), self._rows(self.second)
        return None if bias is None else np.asarray(rows.reshape(len(rows), self.middle, -1).sum(axis=2) @ bias)

    def _alpha(self) -> float:
        return float(self.first.node.attrs.get("alpha", 1.0)) if self.first.op == "Gemm" else 1.0

    def _rows(self, site: Site) -> Float64Array:
        rows: Float64Array = Layout.of(site).to_rows(site.array()).astype(np.float64)
        return rows

    def product(self) -> Float64Array:
        """The weight of the one layer, as rows [out, in·∏ sides] (`Layout.to_rows`)."""
        front, behind = self._rows(self.first) * self._alpha(), self._rows(self.second)
        if not self.wide_behind:
            return behind @ front
        wide = behind.reshape(len(behind), self.middle, -1)
        kernels: Float64Array = np.einsum("omt,mi->oit", wide, front, optimize=True)
        return kernels.reshape(len(behind), -1)

    def layout(self) -> Layout:
        """How the second node stores it."""
        inside = self.first.shape[self.first.axis("in")]
        sides = self.sides[self.wide_behind]
        sizes = [
            inside if axis == "in" else size for axis, size in zip(self.second.axes, self.second.shape, strict=True)
        ]
        return Layout(self.second.axes, (*sizes[: len(sizes) - len(sides)], *sides))

    def attributes(self) -> Attributes:
        """Of the one layer."""
        attrs = dict(self.second.node.attrs)
        if self.first.op != "Conv":
            return attrs | ({"transA": 1} if self.first.node.attrs.get("transA", 0) else {})
        if self.wide_behind:
            return attrs
        rank = len(self.sides[0])
        strides = zip(*(_Window.of(site.node, rank).strides for site in (self.first, self.second)), strict=True)
        return {
            **self.first.node.attrs,
            "kernel_shape": list(self.sides[0]),
            "strides": [first * second for first, second in strides],
        }

    def multiply_adds(self) -> tuple[Products, Products]:
        """Of one layer, and of both, for each position of the output."""
        inside, out = self.first.shape[self.first.axis("in")], self.second.shape[self.second.axis("out")]
        front, behind = self.sides
        skipped = math.prod(_Window.of(self.second.node, len(behind)).strides) if behind else 1
        one = (inside, out, *self.sides[self.wide_behind])
        return Products((one,)), Products(((inside, self.middle, *front, skipped), (self.middle, out, *behind)))

    def refuse_if_none_saved(self) -> None:
        """Refuse where the two take as little as one would.

        Raises:
            RefusalError: the figures.
        """
        one, two = self.multiply_adds()
        if one.value >= two.value:
            raise RefusalError(f"one layer takes no fewer multiply-adds: {one} ≥ {two}")
        if one.value >= (both := self.first.size + self.second.size):
            raise RefusalError(f"one layer holds no fewer weights: {one} ≥ {both}")


@dataclass(frozen=True, slots=True)
class _Window:
    """Where a convolution looks."""

    strides: tuple[int, ...]
    padded: bool
    automatic: bool

    @classmethod
    def of(cls, node: gs.Node, rank: int) -> _Window:
        strides = tuple(int(each) for each in node.attrs.get("strides") or (1,) * rank)
        auto = str(node.attrs.get("auto_pad") or "NOTSET")
        same = auto.startswith("SAME")
        pads = any(node.attrs.get("pads") or ()) and auto == "NOTSET"
        return cls(strides, same or pads, same)


def adjacent(model: Model) -> list[Neighbours]:
    """All linear layers directly behind one another, in graph order."""
    sites = [(site, use) for site in find_sites(model) for use in site.uses if _kind(use)]
    readers = {id(use.node): (site, use) for site, use in sites}
    outputs = output_ids(model)
    return [each for site, use in sites for each in _behind(site, use, readers, outputs)]


def _behind(site: Site, use: Use, readers: Mapping[int, tuple[Site, Use]], outputs: set[int]) -> Iterator[Neighbours]:
    """The layers that read what one gives."""
    tensor, between, others = use.node.outputs[0], list[gs.Node](), None
    while True:
        others = others or _other(site, tensor, outputs)
        for node in tensor.outputs:
            second, reader = readers.get(id(node), (None, None))
            if second is None or reader is None or activation_of(reader) is not tensor or _kind(reader) != _kind(use):
                continue
            yield Neighbours(site, second, use, reader, tuple(between), others)
        passed = next((node for node in tensor.outputs if _transparent(node)), None)
        if others or passed is None:
            return
        between.append(passed)
        tensor = passed.outputs[0]


def _other(site: Site, tensor: gs.Tensor, outputs: set[int]) -> str | None:
    if id(tensor) in outputs:
        return f"what '{site.name}' gives is an output, too"
    return f"what '{site.name}' gives is read by {len(tensor.outputs)} nodes" if len(tensor.outputs) > 1 else None


def _transparent(node: gs.Node) -> bool:
    if (node.domain or "") not in DEFAULT_DOMAINS:
        return False
    adds = node.op == "Add" and any(isinstance(each, gs.Constant) for each in node.inputs)
    return bool(node.op == "Identity" or adds)


def _kind(use: Use) -> str | None:
    """What a layer does with an activation; None where it is no layer that could be merged."""
    node = use.node
    if (node.domain or "") not in DEFAULT_DOMAINS or isinstance(activation_of(use), gs.Constant):
        return None
    if node.op == "Conv":
        return "convolves"
    if node.op == "MatMul":
        return "rows" if use.index else "columns"
    return "rows" if node.op == "Gemm" and use.index == 1 else None


def _third(node: gs.Node) -> bool:
    return len(node.inputs) > 2 and not node.inputs[2].is_empty()
