"""Options of prune-blocks that are refused."""

import pytest

from onnxpress.passes.prune.blocks.blocks import PruneBlocks
from onnxpress.rewriter.errors import ConfigError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give exactly one of count, pruning_ratio, min_sqnr; got none"),
        ({"count": 1, "min_sqnr": 20.0}, "give exactly one of count, pruning_ratio, min_sqnr"),
        ({"count": 0}, "count must be a whole number of at least 1, got 0"),
        ({"pruning_ratio": 1}, "pruning_ratio must lie in (0, 1), got 1"),
        ({"min_sqnr": float("nan")}, "min_sqnr must be a number of decibels, got nan"),
        ({"min_sqnr": "20"}, "min_sqnr must be a number of decibels, got '20'"),
        ({"count": 1, "stand_in": "median"}, "stand_in must be nothing or mean, got 'median'"),
        ({"count": 1, "gates": 1}, "gates must be true or false, got 1"),
        ({"count": 1, "reconstruct": "yes"}, "reconstruct must be true or false, got 'yes'"),
        ({"count": 1, "ignored_layers": "fc"}, "ignored_layers must be a list of globs, got 'fc'"),
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(ConfigError) as caught:
        PruneBlocks(**options)
    assert message in str(caught.value)
