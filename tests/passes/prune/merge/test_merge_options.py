"""Options of merge-neurons that are refused."""

import pytest

from onnxpress.passes.prune.merge.merge import MergeNeurons
from onnxpress.rewriter.errors import ConfigError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give exactly one of pruning_ratio, count, max_error; got none"),
        ({"count": 1, "max_error": 0.1}, "give exactly one of pruning_ratio, count, max_error"),
        ({"pruning_ratio": 1.0}, "pruning_ratio must lie in (0, 1), got 1.0"),
        ({"pruning_ratio": True}, "pruning_ratio must lie in (0, 1), got True"),
        ({"count": 0}, "count must be a whole number of at least 1, got 0"),
        ({"max_error": -1}, "max_error must be a number of at least 0, got -1"),
        ({"max_error": float("nan")}, "max_error must be a number of at least 0, got nan"),
        ({"count": 1, "by": "size"}, "by must be weights or activations, got 'size'"),
        ({"count": 1, "round_to": 0}, "round_to must be a whole number of at least 1, got 0"),
        ({"count": 1, "min_kept": 0}, "min_kept must be a whole number of at least 1, got 0"),
        ({"count": 1, "kinds": ("rows",)}, "kinds must be some of channels, neurons, heads, hidden, got ('rows',)"),
        ({"count": 1, "reconstruct": 1}, "reconstruct must be true or false, got 1"),
        ({"count": 1, "include": "fc"}, "include must be a list of globs, got 'fc'"),
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(ConfigError) as caught:
        MergeNeurons(**options)
    assert message in str(caught.value)
