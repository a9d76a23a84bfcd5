"""Resident memory of load, prune by magnitude, save, in a fresh interpreter.

    python -m benchmarks.memory [--folder DIR]

Two generated models: 2.6 GB of external data, and one file of 100 MB. Needs 6 GB of free disk.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from benchmarks.loading import peak_bytes

MODELS = {
    "2.6 GB, external data, weights of 67 MB": (39, 4096, True),
    "2.7 GB, external data, weights of 268 MB": (10, 8192, True),
    "100 MB, one file, weights of 17 MB": (6, 2048, False),
    "100 MB, one file, one weight": (1, 5000, False),
}
"""Layers, side of each square weight, whether the weights lie beside the model."""


def generate(path: Path, layers: int, side: int, external: bool) -> None:
    """Write a chain of MatMuls, one weight in memory at a time."""
    names = [f"h{i}" for i in range(layers + 1)]
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]], name=f"matmul{i}") for i in range(layers)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", side]) for name in (names[0], names[-1])]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    nbytes = 4 * side * side
    with path.with_suffix(".bin").open("wb") as stream:
        for i in range(layers):
            weight = np.random.default_rng(i).standard_normal((side, side), dtype=np.float32) / np.float32(side**0.5)
            tensor = graph.initializer.add(name=f"w{i}", data_type=TensorProto.FLOAT, dims=(side, side))
            if external:
                stream.write(weight)
                tensor.data_location = TensorProto.EXTERNAL
                place = {"location": path.with_suffix(".bin").name, "offset": i * nbytes, "length": nbytes}
                for key, value in place.items():
                    tensor.external_data.add(key=key, value=str(value))
            else:
                tensor.raw_data = weight.tobytes()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def prune(source: str, target: str) -> None:
    """Do the work and print what it took; runs in an interpreter of its own."""
    began = time.perf_counter()
    from onnxpress.passes.pipeline import Pipeline
    from onnxpress.passes.prune.zeros.magnitude import PruneMagnitude
    from onnxpress.rewriter.model import Model

    result = Pipeline([PruneMagnitude(sparsity=0.5)])(Model.load(source))
    size = result.model.save(target)
    print(json.dumps({"bytes": size, "peak": peak_bytes(), "seconds": time.perf_counter() - began}))


def main() -> None:
    """Measure both models and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the models are written, and removed again")
    folder = parser.parse_args().folder
    for name, (layers, side, external) in MODELS.items():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            source, target = Path(scratch) / "in.onnx", Path(scratch) / "out.onnx"
            generate(source, layers, side, external)
            call = f"from benchmarks.memory import prune; prune({str(source)!r}, {str(target)!r})"
            out = subprocess.run([sys.executable, "-c", call], check=True, capture_output=True, text=True).stdout
            took = json.loads(out)
        ratio = took["peak"] / took["bytes"]
        print(f"{name}: {took['bytes'] / 1e6:.0f} MB, peak {took['peak'] / 1e6:.0f} MB ({ratio:.2f} times its size)")


if __name__ == "__main__":
    main()
