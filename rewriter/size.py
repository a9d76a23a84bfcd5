"""How large a model would be on disk, without writing it."""

from __future__ import annotations

from onnxpress.rewriter.model import Model
from onnxpress.rewriter.save import INLINE_LIMIT, boundary_of
from onnxpress.rewriter.skeleton import Skeleton, is_marked, lay_out, tensors

_NAMED = "model-000000000000.data"
"""As long as the name of the file with the weights is, where the model is called `model.onnx`."""


def saved_size(model: Model) -> int:
    """Bytes that `model.save` would write, external data included; no weight is read or computed.

    Exact for one file. With weights in a file of their own it counts as `model.onnx`: the name of that file stands in
    the model once for each weight.
    """
    skeleton = model.skeleton()
    external = model.external or sum(values.nbytes for values in skeleton.table) > INLINE_LIMIT
    return (_place_all(skeleton) if external else 0) + lay_out(skeleton).length


def _place_all(skeleton: Skeleton) -> int:
    """Let the tensors point into a file of their own; gives its size."""
    size = 0
    for tensor in tensors(skeleton.proto.graph):
        if not is_marked(tensor):
            continue
        values = skeleton.values(tensor)
        assert values is not None
        offset = size + -size % boundary_of(values)
        size = offset + values.nbytes
        tensor.ClearField("external_data")
        for key, value in (("location", _NAMED), ("offset", str(offset)), ("length", str(values.nbytes))):
            tensor.external_data.add(key=key, value=value)
    return size
