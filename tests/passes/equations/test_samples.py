"""How samples are parted and counted, and how often they run."""

import numpy as np
import pytest

from onnxpress.calibration.feeds import open_feed
from onnxpress.calibration.session import Runner
from onnxpress.passes.base import Workbench
from onnxpress.passes.equations import equations
from onnxpress.rewriter.errors import FeedError
from onnxpress.rewriter.sites import find_sites


def pairs_of(original, samples, **options):
    """The equations of a model that nobody pruned."""
    model = original.clone()
    return [pair for _, pair in equations(model, original, find_sites(model), samples, **options)]


def test_parts_samples(chain, bench, batches):
    pair, _ = pairs_of(chain, bench(chain, *batches))
    assert (pair.fit.count, pair.held_out.count) == (22, 5)
    feed = bench(chain, np.concatenate(batches)[:24])
    pair, _ = pairs_of(chain, feed, held_out=0.5)
    assert (pair.fit.count, pair.held_out.count) == (12, 12)


@pytest.mark.parametrize(("rows", "count"), [(30, 30), (1000, 300)])
def test_sums_about_as_many_rows_as_asked(chain, bench, array, rows, count):
    batches = [array(100, 6) for _ in range(3)]
    # four rows for each of six inputs are the least
    assert [pair.total.count for pair in pairs_of(chain, bench(chain, *batches), rows=rows)] == [count] * 2


def test_counts_batches_of_a_feed_that_does_not_tell(chain, batches):
    feed = open_feed(iter([{"x": batch} for batch in batches]), inputs=chain.inputs)
    assert feed.count is None
    pair, _ = pairs_of(chain, Workbench(feed=feed, threads=1))
    assert (pair.fit.count, pair.held_out.count) == (22, 5)


def test_rows_that_are_not_finite_are_left_out(chain, bench, batches):
    broken = [batch.copy() for batch in batches]
    broken[0][1, 2], broken[3][0, 0] = np.nan, np.inf
    pair, _ = pairs_of(chain, bench(chain, *broken))
    assert pair.total.count == 25
    assert np.isfinite(pair.total.moment).all()
    empty = [np.full_like(batch, np.nan) for batch in batches]
    refusal, _ = pairs_of(chain, bench(chain, *empty))
    assert str(refusal) == "the samples show it too few rows without NaN or infinities"


def test_refuses_to_work_without_samples(chain):
    with pytest.raises(FeedError, match="give some with --data"):
        next(equations(chain, chain.clone(), find_sites(chain), Workbench()))


@pytest.mark.parametrize("part", [0.0, 1.0])
def test_refuses_to_hold_out_nothing_or_all(chain, bench, batches, part):
    with pytest.raises(ValueError, match=r"held_out .* must lie in \(0, 1\)"):
        next(equations(chain, chain.clone(), find_sites(chain), bench(chain, *batches), held_out=part))


def test_a_model_that_is_its_own_original_runs_once(chain, bench, batches, monkeypatch):
    runs = []
    run = Runner.run

    def count(self, *given, **options):
        runs.append(1)
        return run(self, *given, **options)

    monkeypatch.setattr(Runner, "run", count)
    own = list(equations(chain, chain, find_sites(chain), bench(chain, *batches)))
    once = len(runs)
    runs.clear()
    twice = list(equations(chain, chain.clone(), find_sites(chain), bench(chain, *batches)))
    assert once == len(batches)  # the first layer reads an input, the second what one run gives
    assert len(runs) == 2 * once
    for (_, one), (_, other) in zip(own, twice, strict=True):
        np.testing.assert_array_equal(one.total.moment, other.total.moment)
        np.testing.assert_array_equal(one.total.cross, other.total.cross)


def test_leaves_the_models_as_they_are(chain, bench, batches):
    model = chain.clone()
    before = model.to_proto().SerializeToString(), chain.to_proto().SerializeToString()
    list(equations(model, chain, find_sites(model), bench(chain, *batches)))
    assert before == (model.to_proto().SerializeToString(), chain.to_proto().SerializeToString())
