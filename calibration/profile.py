"""ONNX Runtime's profile of a run."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path


def count_nodes(path: Path) -> dict[str, Counter[str]]:
    """Count the nodes that ran; one that ran often, as in a loop, counts once.

    Args:
        path: the JSON file ONNX Runtime wrote: a list of events.

    Returns:
        Number of nodes by op type, by execution provider.
    """
    seen = set()
    for event in json.loads(path.read_text()):
        details = event.get("args", {})
        if event.get("cat") == "Node" and "provider" in details:
            seen.add((details["provider"], details.get("op_name", ""), event["name"], details.get("node_index")))
    placement: dict[str, Counter[str]] = {}
    for provider, op_type, _, _ in sorted(seen):
        placement.setdefault(provider, Counter())[op_type] += 1
    return placement
