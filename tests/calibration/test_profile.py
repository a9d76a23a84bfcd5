"""ONNX Runtime's profile."""

import json

from onnxpress.calibration.profile import count_nodes


def event(name, provider, op, index, cat="Node"):
    return {"cat": cat, "name": name, "args": {"provider": provider, "op_name": op, "node_index": index}}


def test_counts_each_node_once_by_provider(tmp_path):
    events = [
        event("a_kernel_time", "CPU", "Conv", "1"),
        event("a_kernel_time", "CPU", "Conv", "1"),
        event("b_kernel_time", "CPU", "Conv", "2"),
        event("c_kernel_time", "CUDA", "Relu", "3"),
        event("load", "CPU", "Conv", "9", cat="Session"),
        {"cat": "Node", "name": "a_fence_before", "args": {"op_name": "Conv"}},
        {"cat": "Node", "name": "bare"},
    ]
    (tmp_path / "p.json").write_text(json.dumps(events))
    assert count_nodes(tmp_path / "p.json") == {"CPU": {"Conv": 2}, "CUDA": {"Relu": 1}}
