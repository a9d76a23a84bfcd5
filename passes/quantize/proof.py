"""A quantized model is loaded and run before anybody is told that it is done."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from onnxpress.calibration.batches import Batch
from onnxpress.calibration.session import Runner
from onnxpress.passes.base import Workbench
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.model import Model


def prove(model: Model, before: Model, bench: Workbench, *, name: str) -> None:
    """Load a model in ONNX Runtime and run the first sample, if there is one.

    Args:
        model: after the pass, swept.
        before: the same model before it.
        bench: brings the sample.
        name: of the pass.

    Raises:
        ModelError: it does not load, or gives NaN or infinities where the model before did not.
    """
    batch = None if bench.feed is None else next(iter(bench.feed), None)
    try:
        odd = _odd_outputs(model, batch, bench)
    except ModelError as error:
        raise ModelError(f"{name} made a model that does not load, exclude the layer it names: {error}") from error
    if odd and (new := odd - _odd_outputs(before, batch, bench)):
        raise ModelError(
            f"{name}: output '{min(new)}' became NaN or infinite on the first sample; "
            "exclude layers of very large values from the pass"
        )


def _odd_outputs(model: Model, batch: Batch | None, bench: Workbench) -> set[str]:
    """Names of the outputs that hold NaN or infinities."""
    with TemporaryDirectory(prefix="onnxpress-") as folder:
        path = Path(folder) / "model.onnx"
        model.save(path)
        with Runner(path, providers=bench.providers, threads=bench.threads) as runner:
            if batch is None:
                return set()
            outputs = runner.run(batch)
    floats = {name: array for name, array in outputs.items() if array.dtype.kind == "f"}
    return {name for name, array in floats.items() if not np.isfinite(array).all()}
