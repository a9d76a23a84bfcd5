from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxpress.calibration.feeds import open_feed
from onnxpress.passes.base import Workbench
from onnxpress.rewriter.model import Model


@pytest.fixture
def bench() -> Callable[..., Workbench]:
    """A workbench with the given batches of x."""
    return lambda model, *batches: Workbench(
        feed=open_feed([{"x": batch} for batch in batches], inputs=model.inputs), threads=1
    )


@pytest.fixture
def fused(tmp_path: Path, open_session) -> Callable[[Model], Counter]:
    """Counts the operators that ONNX Runtime's own rewriting leaves."""

    def count(model: Model) -> Counter:
        path = tmp_path / "optimised.onnx"
        open_session(model, str(path))
        return Counter(node.op_type for node in onnx.load(path).graph.node)

    return count


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)
