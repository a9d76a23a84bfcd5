from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxpress.passes.selection import LAZY, RefusalError
from onnxpress.passes.share.alone import AlonePass, Shared
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites
from onnxpress.rewriter.weights import values_of


@dataclass(frozen=True, kw_only=True)
class Halves(AlonePass):
    """Halves every weight that is positive somewhere."""

    name: ClassVar[str] = "halves"

    def shared(self, weight, *, seed):
        if not (weight.array > 0).any():
            raise RefusalError("has nothing to halve")
        error = 0.5 if np.isfinite(weight.array).all() else np.nan
        return Shared(lambda array: array / 2, f"halved with seed {seed}", error)


def _model(weight):
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], "test", ends[:1], ends[1:])
    graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return Model.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


@pytest.mark.parametrize("size", [20, int((LAZY / 4) ** 0.5) + 1])
def test_gives_small_weights_and_promised_large_ones_what_they_become(size):
    weight = np.ones((size, size), np.float32)
    result = Halves()(_model(weight))
    (site,) = find_sites(result.model)
    np.testing.assert_array_equal(values_of(site.weight).load(), weight / 2)
    (change,) = result.report.changes
    assert (change.site, change.action, change.error) == ("fc", "halved with seed 0", 0.5)
    assert change.bytes_before == change.bytes_after == weight.nbytes


def test_a_refused_site_is_skipped_with_the_reason():
    (skip,) = Halves()(_model(-np.ones((20, 20), np.float32))).report.skips
    assert (skip.site, skip.reason) == ("fc", "has nothing to halve")


def test_an_error_that_is_no_number_is_not_told():
    weight = np.ones((20, 20), np.float32)
    weight[0] = np.inf
    (change,) = Halves()(_model(weight)).report.changes
    assert change.error is None
