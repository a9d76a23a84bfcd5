"""From encoded weights back to dense ones, file to file."""

from __future__ import annotations

from pathlib import Path

from onnxpress.artifact import Artifact, check_output, check_places, deliver, scratch
from onnxpress.passes.base import Workbench
from onnxpress.passes.encode.decode import Decode
from onnxpress.passes.encode.evaluate import decoded_weights
from onnxpress.rewriter.model import Model
from onnxpress.runtime import check_runtime


def decode_file(model: str | Path, out: str | Path) -> tuple[int, int]:
    """Write a model whose weights are all dense, bit for bit what they decode to.

    Args:
        model: a file.
        out: where the result goes; a file there is replaced.

    Returns:
        How many weights were encoded, and the bytes written.

    Raises:
        ModelError: the input cannot be read or decoded, or the result not written.
        ConfigError: `out` cannot be used.
    """
    check_runtime()
    out = Path(out)
    check_places({"output": out}, models=[Path(model)])
    check_output(out)
    loaded = Model.load(model)
    count = len(decoded_weights(loaded)) + len(loaded.sparse_weights())
    with scratch(out) as folder:
        Decode()(loaded, Workbench()).model.save(folder / out.name)
        return count, deliver(folder / out.name, out, keep=Artifact.of(model).files).nbytes
