"""Seconds of layers and their chains: which ranks are timed, what lies between, each geometry once."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.base import Workbench
from onnxpress.passes.factorize import latency
from onnxpress.passes.factorize.blanks import with_blanks
from onnxpress.passes.factorize.latency import POINTS, Ladder, Stopwatch
from onnxpress.passes.factorize.schemes import SCHEMES
from onnxpress.passes.factorize.schemes.channel import ChannelScheme, SVDScheme
from onnxpress.passes.factorize.schemes.cp import CPScheme
from onnxpress.passes.factorize.schemes.spatial import SpatialScheme
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.sites import find_sites

DOMAINS = {"": 17}


@pytest.fixture
def conv(build, random):
    """A model of one convolution."""

    def of(out=32, channels=16, side=3, **attrs):
        node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", **attrs)
        weight = random.standard_normal((out, channels, side, side)).astype(np.float32)
        return build([node], {"w": weight}, x=("n", channels * attrs.get("group", 1), 8, 8))

    return of


def site_of(model):
    return find_sites(model)[0]


def test_ranks_are_multiples_of_8_that_save_something(conv):
    ladder = Ladder.of(ChannelScheme(), site_of(conv(out=96, channels=64)))
    assert ladder.ranks == tuple((rank,) for rank in range(8, 88, 8))
    np.testing.assert_allclose(ladder.work, [rank * (64 * 9 + 96) / (64 * 9 * 96) for (rank,) in ladder.ranks])


def test_ranks_of_small_layers_are_closer(conv):
    assert Ladder.of(ChannelScheme(), site_of(conv(out=20, channels=16))).ranks[:2] == ((2,), (4,))
    assert Ladder.of(SpatialScheme(), site_of(conv(out=20, channels=1, side=5))).ranks == ((1,), (2,), (3,), (4,))


def test_sums_of_so_many_terms_that_fitting_takes_minutes_are_left_out(conv):
    site = site_of(conv(out=512, channels=64))
    (rank,) = Ladder.of(CPScheme(), site).ranks[-1]
    assert rank * site.size <= 5e7 < (rank + 8) * site.size


def test_refuses_what_saves_nothing(conv, build, random):
    with pytest.raises(RefusalError, match="no rank of 'channel' saves anything"):
        Ladder.of(ChannelScheme(), site_of(conv(out=1)))
    with pytest.raises(RefusalError, match="has a 3x3 kernel, which is no matrix"):
        Ladder.of(SVDScheme(), site_of(conv()))


def test_few_ranks_are_timed_the_last_among_them(conv):
    ladder = Ladder.of(ChannelScheme(), site_of(conv(out=256, channels=64)))
    points = ladder.points(POINTS)
    assert len(points) == POINTS
    assert (points[0], points[-1]) == (0, len(ladder.ranks) - 1)


@pytest.mark.parametrize("attrs", [{}, {"strides": [2, 2], "pads": [1, 1, 1, 1]}, {"group": 2, "dilations": [2, 2]}])
def test_every_scheme_has_chains_that_run_before_they_are_fitted(conv, run, attrs):
    model = conv(**attrs)
    x = np.random.default_rng(1).standard_normal((2, 16 * attrs.get("group", 1), 8, 8)).astype(np.float32)
    tried = 0
    for scheme in SCHEMES:
        try:
            ladder = Ladder.of(scheme, site_of(model))
        except RefusalError:
            continue
        blank = with_blanks(model, {site_of(model).name: (scheme, ladder.ranks[len(ladder.ranks) // 2])})
        assert sum(each.size for each in find_sites(blank)) < site_of(model).size
        assert run(blank, x)[0].shape == run(model, x)[0].shape
        tried += 1
    assert tried >= 5


def test_seconds_of_all_ranks_follow_from_a_few(conv, clock, monkeypatch):
    clock()
    site = site_of(conv(out=256, channels=64))
    ladder = Ladder.of(ChannelScheme(), site)
    found = Stopwatch(Workbench(), DOMAINS).timings(site, [(1, 64, 8, 8)], [ladder])
    assert found.dense == pytest.approx(1e-6 * site.size)
    # The clock counts weights, and so does the work of this scheme: both are the same straight line.
    np.testing.assert_allclose(found.chains["channel"], found.dense * ladder.work, rtol=1e-9, atol=0)


def test_equal_layers_are_timed_once_and_others_apart(build, random, monkeypatch):
    calls = []

    def rounds(models, shape, dtype, provider, bench, *, seconds):
        calls.append((len(models), shape))
        return np.ones((3, len(models)))

    monkeypatch.setattr(latency, "timed", rounds)
    nodes = [helper.make_node("MatMul", [a, w], [b], name=w) for a, w, b in (("x", "p", "t"), ("t", "q", "y"))]
    weights = {name: random.standard_normal((64, 64)).astype(np.float32) for name in "pq"}
    sites = find_sites(build(nodes, weights, x=(5, 64)))
    watch = Stopwatch(Workbench(), DOMAINS)
    for site in sites:
        watch.timings(site, [(5, 64)], [Ladder.of(SVDScheme(), site)])
    watch.timings(sites[0], [(7, 64)], [Ladder.of(SVDScheme(), sites[0])])
    assert calls == [(4, (5, 64)), (4, (7, 64))]


def test_layers_that_share_a_weight_take_their_time_together(build, random, clock):
    clock()
    nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in (("x", "t"), ("t", "y"))]
    (site,) = find_sites(build(nodes, {"w": random.standard_normal((64, 64)).astype(np.float32)}, x=(5, 64)))
    found = Stopwatch(Workbench(), DOMAINS).timings(site, [(5, 64)] * 2, [Ladder.of(SVDScheme(), site)])
    assert found.dense == pytest.approx(2e-6 * site.size)


def test_of_several_providers_the_one_that_gains_least_counts(conv, monkeypatch):
    def rounds(models, shape, dtype, provider, bench, *, seconds):
        chain = {"CPUExecutionProvider": 0.5, "CUDAExecutionProvider": 0.9}[provider]
        return np.array([[1.0, *[chain] * (len(models) - 1)]] * 3)

    monkeypatch.setattr(latency, "timed", rounds)
    site = site_of(conv())
    watch = Stopwatch(Workbench(providers=("cpu", "cuda")), DOMAINS)
    assert watch.timings(site, [(1, 16, 8, 8)], [Ladder.of(ChannelScheme(), site)]).chains["channel"][0] == 0.9


def test_really_times_layers(conv):
    site = site_of(conv())
    ladders = [Ladder.of(ChannelScheme(), site), Ladder.of(SpatialScheme(), site)]
    found = Stopwatch(Workbench(threads=1), DOMAINS).timings(site, [(1, 16, 8, 8)], ladders)
    assert found.dense > 0
    assert all((found.chains[each.scheme.name] > 0).all() for each in ladders)


def test_what_no_provider_can_run_is_refused(conv, monkeypatch):
    def refuse(*args, **options):
        raise ModelError("no kernel for this type")

    monkeypatch.setattr(latency, "timed", refuse)
    site = site_of(conv())
    with pytest.raises(RefusalError, match="nothing could be timed: no kernel for this type"):
        Stopwatch(Workbench(), DOMAINS).timings(site, [(1, 16, 8, 8)], [Ladder.of(ChannelScheme(), site)])
