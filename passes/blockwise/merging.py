"""Whether ONNX Runtime really merges products with the codes of their weights."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from onnxpress.calibration.providers import provider_name
from onnxpress.passes.base import Workbench
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.model import Model

# onnxruntime is imported where it is used: importing onnxpress stays light.


def unmerged(model: Model, outputs: Collection[str], bench: Workbench) -> set[str]:
    """Outputs of DequantizeLinear nodes that are still computed in every run after ONNX Runtime optimised the model.

    Args:
        model: swept.
        outputs: of the nodes in question.
        bench: names the providers.

    Raises:
        ModelError: ONNX Runtime does not load the model.
    """
    import onnxruntime

    with TemporaryDirectory(prefix="onnxpress-") as folder:
        path, written = Path(folder) / "model.onnx", Path(folder) / "optimised.onnx"
        model.save(path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = bench.threads or 0
        options.optimized_model_filepath = str(written)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        try:
            onnxruntime.InferenceSession(
                str(path), options, providers=[provider_name(each) for each in bench.providers]
            )
        except Exception as error:  # ONNX Runtime raises many kinds
            raise ModelError(f"ONNX Runtime does not load the model: {str(error).splitlines()[0]}") from error
        graph = onnx.load(written, load_external_data=False).graph
    names = {out for node in _every(graph) if node.op_type == "DequantizeLinear" for out in node.output}
    return names & set(outputs)


def runtime_name() -> str:
    """`ONNX Runtime 1.32.0`."""
    import onnxruntime

    return f"ONNX Runtime {onnxruntime.__version__}"


def _every(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    found = list(graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found += _every(attribute.g)
    return found
