"""The example in CONTRIBUTING.md is a pass that works."""

import importlib
import re
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxpress.passes.base import Pass, Workbench
from onnxpress.passes.pipeline import Pipeline
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def prune_random(tmp_path, monkeypatch) -> type[Pass]:
    block = re.search(r"```python\n(.*?class PruneRandom.*?)```", CONTRIBUTING.read_text(encoding="utf-8"), re.DOTALL)
    assert block
    (tmp_path / "their_random_pass.py").write_text(textwrap.dedent("   " + block[1].lstrip()), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_random_pass", raising=False)
    module = importlib.import_module("their_random_pass")
    return module.PruneRandom


def test_example_prunes_and_leaves_the_callers_model_alone(prune_random):
    weight = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 64]), ("y", [1, 32])))
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")
    graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(weight, "w")])
    proto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    model = Model.from_proto(proto)

    result = Pipeline([prune_random(sparsity=0.75)])(model, Workbench(seed=1))

    (pruned,) = (numpy_helper.to_array(each) for each in result.model.to_proto().graph.initializer)
    assert 0.7 < np.mean(pruned == 0) < 0.8  # 2048 draws: 0.75 within five standard deviations
    np.testing.assert_array_equal(pruned[pruned != 0], weight[pruned != 0])
    assert [change.site for change in result.reports[-1].changes] == ["dense"]
    np.testing.assert_array_equal(numpy_helper.to_array(model.to_proto().graph.initializer[0]), weight)


def test_example_refuses_an_option_out_of_range(prune_random):
    with pytest.raises(ConfigError, match=r"prune-random: sparsity must lie in \[0, 1\), got 1\.5"):
        prune_random(sparsity=1.5)
