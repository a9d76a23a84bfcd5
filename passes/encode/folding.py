"""Whether ONNX Runtime really decodes the weights while it loads a model, and runs the dense graph."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.functions import DECODING_DOMAIN
from onnxpress.rewriter.skeleton import lift

# onnxruntime is imported where it is used: importing onnxpress stays light.


def undecoded_nodes(path: str | Path, *, disabled_optimizers: tuple[str, ...] = ()) -> list[str]:
    """Nodes that decode weights and are still there after ONNX Runtime optimised a model; empty if all is well.

    The optimised model is written to a temporary folder (weights in a file beside it) and read back without them.

    Args:
        path: of the encoded model.
        disabled_optimizers: of ONNX Runtime, by name; to see what happens where `ConstantFolding` is switched off.

    Returns:
        Operator and output of each such node.

    Raises:
        ModelError: the file is no model, or ONNX Runtime does not load it.
    """
    path = Path(path)
    names, prefixes = _traces(lift(path).proto)
    if not names:
        return []
    import onnxruntime

    with TemporaryDirectory() as folder:
        written = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # folding is basic
        options.optimized_model_filepath = str(written)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        try:
            onnxruntime.InferenceSession(
                str(path),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=list(disabled_optimizers) or None,
            )
        except Exception as error:  # ONNX Runtime raises many kinds
            raise ModelError(f"{path}: ONNX Runtime does not load it: {str(error).splitlines()[0]}") from error
        optimised = onnx.load(written, load_external_data=False)
    left = [n for n in _nodes(optimised.graph) if any(o in names or o.startswith(prefixes) for o in n.output)]
    return [f"{node.op_type} → {node.output[0]}" for node in left]


def _traces(model: onnx.ModelProto) -> tuple[set[str], tuple[str, ...]]:
    """What decoding nodes write, and how ONNX Runtime calls what their functions write inside."""
    names = {out for node in _nodes(model.graph) if node.domain == DECODING_DOMAIN for out in node.output}
    return names, tuple(f"_inlfunc_{f.name}_" for f in model.functions if f.domain == DECODING_DOMAIN)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)
