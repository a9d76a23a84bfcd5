"""Options of prune-channels that are refused, and those that need samples."""

import pytest

from onnxpress.passes.prune.channels.channels import PruneChannels
from onnxpress.passes.prune.channels.ranking import DATA_FREE, IMPORTANCES
from onnxpress.rewriter.errors import ConfigError, FeedError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give exactly one of pruning_ratio, count; got none"),
        (
            {"pruning_ratio": 0.5, "count": 1},
            "give exactly one of pruning_ratio, count; got pruning_ratio 0.5 and count 1",
        ),
        ({"pruning_ratio": 0.0}, "pruning_ratio must lie in (0, 1), got 0.0"),
        ({"pruning_ratio": 1}, "pruning_ratio must lie in (0, 1), got 1"),
        ({"pruning_ratio": True}, "pruning_ratio must lie in (0, 1), got True"),
        ({"pruning_ratio": 0.5, "max_pruning_ratio": 1.0}, "max_pruning_ratio must lie in (0, 1), got 1.0"),
        ({"pruning_ratio": 0.8, "max_pruning_ratio": 0.75}, "pruning_ratio must be at most max_pruning_ratio 0.75"),
        ({"count": 0}, "count must be a whole number of at least 1, got 0"),
        ({"count": 1, "round_to": 0}, "round_to must be a whole number of at least 1, got 0"),
        ({"count": 1, "min_kept": 0}, "min_kept must be a whole number of at least 1, got 0"),
        ({"count": 1, "target": "flops"}, "count 1 is taken from each group"),
        ({"count": 1, "global_pruning": True}, "count 1 is taken from each group"),
        ({"count": 1, "allocation": "uniform"}, "count 1 is taken from each group"),
        ({"pruning_ratio": 0.5, "target": "bytes"}, "target must be units or parameters or flops, got 'bytes'"),
        ({"pruning_ratio": 0.5, "importance": "l3"}, "importance must be l1 or l2"),
        ({"pruning_ratio": 0.5, "allocation": "even"}, "allocation must be error or uniform or global, got 'even'"),
        ({"pruning_ratio": 0.5, "global_pruning": True, "allocation": "error"}, "allocation must be left out"),
        ({"pruning_ratio": 0.5, "global_pruning": None}, "global_pruning must be true or false, got None"),
        ({"pruning_ratio": 0.5, "reconstruct": "yes"}, "reconstruct must be true or false, got 'yes'"),
        ({"pruning_ratio": 0.5, "sensitivity": 1}, "sensitivity must be true or false, got 1"),
        ({"pruning_ratio": 0.5, "kinds": "heads"}, "kinds must be a list of globs, got 'heads'"),
        ({"pruning_ratio": 0.5, "kinds": []}, "kinds must hold some of channels, neurons, heads, hidden, got ()"),
        ({"pruning_ratio": 0.5, "kinds": ["rows"]}, "kinds must hold some of channels, neurons, heads, hidden"),
        ({"pruning_ratio": 0.5, "ignored_layers": "last"}, "ignored_layers must be a list of globs, got 'last'"),
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(ConfigError) as caught:
        PruneChannels(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"importance": each}, f"importance '{each}'") for each in IMPORTANCES if each not in DATA_FREE),
        ({"reconstruct": True}, "reconstruct refits layers on samples"),
        ({"allocation": "error"}, "allocation 'error' tries samples"),
    ],
)
def test_asks_for_samples_where_options_need_them(chain, options, message):
    with pytest.raises(FeedError) as caught:
        PruneChannels(pruning_ratio=0.25, **options)(chain())
    assert message in str(caught.value)
    assert "--data" in str(caught.value)
