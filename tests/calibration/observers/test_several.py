"""Several observers of one tensor."""

import numpy as np
import pytest

from onnxpress.calibration.observers import MinMax, Observer, Reducible, SecondMoment, Several
from onnxpress.rewriter.errors import ConfigError


def test_shows_the_tensor_to_all():
    first, second = (Several({"range": MinMax(), "moment": SecondMoment()}) for _ in range(2))
    first.update(np.array([[1.0, 2.0]]))
    second.update(np.array([[3.0, 0.0]]))
    first.merge(second)
    state = first.state()
    assert (state["range/low"], state["range/high"]) == (0, 3)
    np.testing.assert_array_equal(state["moment/sum"], [[4, 2]])
    kind: Observer = first
    assert not isinstance(kind, Reducible)


def test_refuses_to_merge_other_observers():
    with pytest.raises(ConfigError, match="observers range cannot take in moment"):
        Several({"range": MinMax()}).merge(Several({"moment": SecondMoment()}))
