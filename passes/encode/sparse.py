"""Sparse initializers: ONNX's own form of weights that are nearly all zero.

ONNX Runtime makes them dense while it reads the file, in any opset, so no node decodes them. Positions are linear and
stand in the field of variable length: one to three bytes each in weights of up to two million elements, where eight
would be usual. That makes it the smallest form of some dozens of elements.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import numpy_helper

from onnxpress.passes.kernels.arrays import Array, bits_of
from onnxpress.rewriter.evaluate import evaluate
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.skeleton import Skeleton
from onnxpress.rewriter.weights import SparseForm, onnx_dtype, read, values_of

IR_VERSION = 6
"""From here on models may have sparse initializers."""
_CHECK_OPSET, _CHECK_IR_VERSION = 21, 10
"""Of the models that are made to see what ONNX Runtime reads."""


def sparse_form(weight: Array) -> SparseForm:
    """The elements whose bits are not all zero, and their positions.

    Args:
        weight: at least one axis and one element; of at least a byte an element.
    """
    flat = np.ascontiguousarray(weight).reshape(-1)
    places = np.flatnonzero(bits_of(flat))
    found = onnx.SparseTensorProto(
        values=numpy_helper.from_array(flat[places]),
        indices=onnx.TensorProto(data_type=onnx.TensorProto.INT64, dims=places.shape, int64_data=places.tolist()),
        dims=weight.shape,
    )
    return SparseForm(found)


def store_sparse(model: Model, constant: gs.Constant) -> None:
    """Make a constant a sparse initializer."""
    model.replace_weight(constant, sparse_form(read(constant)))
    model.header.ir_version = max(model.header.ir_version, IR_VERSION)


def read_by_runtime(constants: Sequence[gs.Constant], threads: int | None) -> list[Array]:
    """What ONNX Runtime makes of sparse initializers.

    Raises:
        ModelError: it does not read them.
    """
    skeleton = Skeleton(onnx.ModelProto(ir_version=_CHECK_IR_VERSION))
    skeleton.proto.opset_import.add(domain="", version=_CHECK_OPSET)
    graph = skeleton.proto.graph
    graph.name = "sparse"
    for number, constant in enumerate(constants):
        values = values_of(constant)
        if not isinstance(values, SparseForm):
            raise ValueError(f"'{constant.name}' is not sparse")
        graph.sparse_initializer.append(values.tensor)
        graph.sparse_initializer[-1].values.name = f"w{number}"
        graph.node.append(onnx.helper.make_node("Identity", [f"w{number}"], [f"y{number}"]))
        graph.output.append(
            onnx.helper.make_tensor_value_info(f"y{number}", onnx_dtype(values.dtype), list(values.shape))
        )
    return evaluate(skeleton, optimise=False, threads=threads)
