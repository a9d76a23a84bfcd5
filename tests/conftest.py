"""What all tests share: reproducible property tests, and the tests marked `cuda` skipped where there is no device."""

import functools
from collections import Counter

import onnx
import onnxruntime
import pytest
from hypothesis import settings
from onnx import TensorProto, helper

# No deadline: other work on the machine must not fail a test. Derandomised: the same examples in every run.
settings.register_profile("onnxpress", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("onnxpress")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") and (reason := why_no_cuda()):
        pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how the cases of ONNX's own suite ended, which the tests of normalisation count in shards."""
    total: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, counts in getattr(report, "user_properties", []):
            if name == "backend suite":
                total.update(counts)
    if total:
        terminalreporter.write_line("ONNX backend suite: " + ", ".join(f"{n} {how}" for how, n in total.most_common()))


@functools.cache
def why_no_cuda() -> str | None:
    """The reason why nothing runs on a CUDA device here; None where it does."""
    provider = "CUDAExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        return "this ONNX Runtime is built without CUDA (scripts/test --gpu installs the one that is)"
    # Only a session tells: ONNX Runtime falls back to the CPU where the device or CUDA's libraries are missing.
    session = onnxruntime.InferenceSession(_identity().SerializeToString(), providers=[provider])
    return None if provider in session.get_providers() else "no CUDA device that ONNX Runtime can use"


def _identity() -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [x], [y])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
