"""What a structure is, and the weight that it gives a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.encode.vectors import call
from onnxpress.passes.kernels.arrays import Array, Float64Array
from onnxpress.passes.selection import Layout
from onnxpress.rewriter.edits import add_node, redirect
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site
from onnxpress.rewriter.weights import onnx_dtype, values_of

Shape = tuple[int, int]
"""Of a weight: outputs and inputs."""

FLOAT = np.dtype(np.float32)
"""Of parameters that are multiplied when a session is created."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Adds nodes that run to the main graph.

    Attributes:
        model: takes them.
        hint: for their names.
        dtype: of activations.
    """

    model: Model
    hint: str
    dtype: np.dtype[Any]

    def node(self, op: str, *inputs: gs.Tensor, attrs: dict[str, object] | None = None) -> gs.Tensor:
        """Add a node; what it gives."""
        name = f"{self.hint}_{op.lower()}"
        return add_node(self.model, self.model.graph, op, inputs, hint=name, attrs=attrs)

    def constant(self, array: Array) -> gs.Constant:
        """A constant, numbers in the type of the activations."""
        whole = np.issubdtype(array.dtype, np.integer)
        values = np.array(array, None if whole else self.dtype, order="C")  # NumPy's contiguous ones have an axis
        return self.model.add_weight(f"{self.hint}_constant", values)

    def sizes(self, *values: int) -> gs.Constant:
        """Sizes or places as constant."""
        return self.constant(np.array(values, np.int64))

    def reshape(self, tensor: gs.Tensor, *sizes: int) -> gs.Tensor:
        """Another shape."""
        return self.node("Reshape", tensor, self.sizes(*sizes))


@dataclass(frozen=True, slots=True)
class Way:
    """How X·Wᵀ is computed without the dense W.

    Attributes:
        name: for a report.
        write: adds the nodes that take X [n, in] and give what is [n, out].
    """

    name: str
    write: Callable[[Steps, gs.Tensor], gs.Tensor]


class Form(Protocol):
    """A weight [out, in] told by few parameters."""

    @property
    def parameters(self) -> tuple[Array, ...]:
        """What is stored."""

    def dense(self) -> Array:
        """The weight."""

    def rounded(self, dtype: np.dtype[Any]) -> Self:
        """The same with parameters as a model stores them whose weights are of this type.

        Raises:
            RefusalError: that type cannot hold them.
        """

    def decoded(self, model: Model, hint: str) -> gs.Variable:
        """Add the nodes that compute the weight of constants, for ONNX Runtime to fold.

        Args:
            model: takes nodes and functions.
            hint: for the names of the parameters.
        """

    def ways(self) -> tuple[Way, ...]:
        """How products with it can be written.

        Raises:
            RefusalError: in no way that could be faster.
        """


class Structure(Protocol):
    """A family of weights."""

    @property
    def name(self) -> str:
        """For a report."""

    def nbytes(self, shape: Shape, itemsize: int) -> int:
        """Bytes of the parameters of a weight whose elements take so many each."""

    def fit(self, target: Array, metric: Float64Array | None, seed: int) -> Form:
        """The weight W for which tr((W − T)·H·(W − T)ᵀ) is least, or nearly so.

        Raises:
            ValueError: it cannot be found.
        """

    def example(self, shape: Shape) -> Form:
        """Any weight, to time."""


def stored_bytes(form: Form) -> int:
    """Bytes of the parameters."""
    return sum(int(each.nbytes) for each in form.parameters)


def decode_at_load(model: Model, site: Site, form: Form) -> gs.Variable:
    """Let nodes compute a site's weight from its parameters; ONNX Runtime folds them when a session is created.

    Args:
        model: takes the nodes and their functions.
        site: whose weight is replaced, for all its users.
        form: the weight, rounded.

    Returns:
        What takes the place of the constant.
    """
    dtype, layout = values_of(site.weight).dtype, Layout.of(site)
    rows = form.decoded(model, site.weight.name)
    if form.parameters[0].dtype != dtype:
        rows = call(model, "Widen", [rows], attrs={"to": onnx_dtype(dtype)})
    order = layout.order()
    sizes = model.add_weight("k", np.array([site.shape[axis] for axis in order], np.int64))
    weight = gs.Variable(model.names.fresh(site.weight.name), dtype, list(site.shape))
    call(model, "Arrange", [rows, sizes], weight, attrs={"perm": [int(axis) for axis in np.argsort(order)]})
    redirect(model, model.graph, site.weight, weight)
    return weight


def cut(model: Model, wide: gs.Variable, whole: Shape, wanted: Shape) -> gs.Variable:
    """The first rows and columns of what nodes compute."""
    if whole == wanted:
        return wide
    return call(model, "Cut", [wide, *(model.add_weight("k", np.array(size, np.int64)) for size in wanted)])


def small(model: Model, *values: int) -> list[gs.Constant]:
    """Whole numbers of 32 bits, each a constant."""
    return [model.add_weight("k", np.array(value, np.int32)) for value in values]


def sizes(model: Model, *values: int) -> gs.Constant:
    """Sizes as constant, for a Reshape."""
    return model.add_weight("k", np.array(values, np.int64))
