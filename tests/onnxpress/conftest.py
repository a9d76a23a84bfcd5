"""A small model, samples for it, and passes that do one thing each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxpress import judging
from onnxpress.cli import main
from onnxpress.passes.base import Pass, Workbench
from onnxpress.passes.report import Report
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites

WIDE = 64


@dataclass(frozen=True, kw_only=True)
class Halve(Pass):
    """Halve all weights, or as it is told."""

    name: ClassVar[str] = "halve"
    factor: float = 0.5
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()

    def apply(self, model: Model, bench: Workbench) -> Report:
        report = self.report()
        for site in find_sites(model):
            array = site.array()
            model.replace_weight(site.weight, (array * np.float32(self.factor)).astype(array.dtype))
            report.change(site.name, "scaled", bytes_before=site.nbytes, bytes_after=site.nbytes, error=0.5)
        report.skip("graph", "not a layer")
        report.warnings.append("weights were scaled")
        return report


@dataclass(frozen=True, kw_only=True)
class Bloat(Pass):
    """Say a lot in the model's documentation."""

    name: ClassVar[str] = "bloat"

    def apply(self, model: Model, bench: Workbench) -> Report:
        model.header.doc_string = "x" * 100_000
        return self.report()


@dataclass(frozen=True, kw_only=True)
class Slow(Pass):
    """Put a hundred large products before the output that change nothing."""

    name: ClassVar[str] = "slow"

    def apply(self, model: Model, bench: Workbench) -> Report:
        proto = model.to_proto()
        last = proto.graph.node[-1]
        output = last.output[0]
        width = 512
        wide, back = np.zeros((10, width), np.float32), np.zeros((width, 10), np.float32)
        for name, array in (("wide", wide), ("back", back), ("square", np.eye(width, dtype=np.float32))):
            proto.graph.initializer.append(numpy_helper.from_array(array, name))
        last.output[0] = "fast"
        names = [f"slow_{k}" for k in range(30)]
        proto.graph.node.append(helper.make_node("MatMul", ["fast", "wide"], ["slow_0"], name="widen"))
        for left, right in pairwise(names):
            proto.graph.node.append(helper.make_node("MatMul", [left, "square"], [right], name=right))
        proto.graph.node.append(helper.make_node("MatMul", [names[-1], "back"], ["nothing"], name="narrow"))
        proto.graph.node.append(helper.make_node("Add", ["fast", "nothing"], [output], name="sum"))
        model.reset(Model.from_proto(proto).skeleton())
        return self.report()


def build() -> onnx.ModelProto:
    """x [n, 8] -> Gemm 64 -> Relu -> MatMul 10 -> y; MatMul's weight in a Constant node, as exports have it."""
    random = np.random.default_rng(0)
    first, second = (random.standard_normal(shape).astype(np.float32) for shape in ((WIDE, 8), (WIDE, 10)))
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], name="first", transB=1),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Constant", [], ["v"], name="held", value=numpy_helper.from_array(second, "v")),
        helper.make_node("MatMul", ["r", "v"], ["y"], name="second"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(first, "w"), numpy_helper.from_array(np.zeros(WIDE, np.float32), "b")],
    )
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The small model in a file."""
    folder = tmp_path / "input"
    folder.mkdir()
    path = folder / "small.onnx"
    onnx.save(build(), path)
    return path


@pytest.fixture
def samples(tmp_path: Path, model: Path) -> Path:
    """64 labelled samples of the small model, as it labels them itself."""
    x = np.random.default_rng(1).standard_normal((64, 8)).astype(np.float32)
    arrays = {each.name: numpy_helper.to_array(each) for each in build().graph.initializer}
    second = numpy_helper.to_array(build().graph.node[2].attribute[0].t)
    y = np.maximum(x @ arrays["w"].T + arrays["b"], 0) @ second
    path = tmp_path / "samples.npz"
    np.savez(path, x=x, labels=y.argmax(axis=1))
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A place for results, in a folder that holds nothing else."""
    folder = tmp_path / "output"
    folder.mkdir()
    return folder / "result.onnx"


@pytest.fixture
def halve() -> Pass:
    return Halve()


@pytest.fixture
def bloat() -> Pass:
    return Bloat()


@pytest.fixture
def slow() -> Pass:
    return Slow()


@pytest.fixture
def quick(monkeypatch):
    """Timing that does not wait: the figures do not matter here."""
    bench = judging.bench
    monkeypatch.setattr(judging, "bench", lambda *a, **k: bench(*a, **{**k, "seconds": 0.01}))


@pytest.fixture
def run(capsys, quick):
    """Run a command in this program: its status, standard output, standard error."""

    def run(*arguments):
        capsys.readouterr()
        status = main([str(each) for each in arguments])
        return (status, *capsys.readouterr())

    return run


@pytest.fixture
def refused(run, out):
    """Run a command that must end with a status, one line on standard error, and nothing written."""

    def refused(*arguments, status=2, kind="error"):
        ended, printed, complaint = run(*arguments)
        assert (ended, printed) == (status, ""), complaint
        assert complaint.count("\n") == 1
        assert complaint.startswith(f"onnxpress: {kind}: ")
        assert not list(out.parent.iterdir())
        return complaint

    return refused


@pytest.fixture(scope="module")
def cluster():
    """A Dask scheduler and two workers, each a program of its own."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=":0"
    ) as started:
        yield started.scheduler_address.removeprefix("tcp://")
