"""What holds of all schemes, and what is each one's own; chains that run are tested with the passes."""

from itertools import pairwise

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.factorize.schemes import SCHEMES
from onnxpress.passes.factorize.schemes.channel import ChannelScheme, SVDScheme
from onnxpress.passes.factorize.schemes.groups import GroupScheme
from onnxpress.passes.factorize.schemes.layer import Layer, rows_of
from onnxpress.passes.factorize.schemes.separable import SeparableScheme
from onnxpress.passes.factorize.schemes.spatial import SpatialScheme
from onnxpress.passes.factorize.schemes.train import TrainScheme
from onnxpress.passes.factorize.schemes.tucker import TuckerScheme
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.sites import Site, find_sites

KERNELS = [each for each in SCHEMES if each.name not in ("svd", "lookup")]
"""Those that take any kernel of several positions."""


@pytest.fixture
def site_of(build):
    """A convolution whose kernel has singular values that fall."""

    def make(shape: tuple[int, ...] = (16, 8, 3, 3), op: str = "Conv", **attrs) -> Site:
        rng = np.random.default_rng(0)
        weight = rng.standard_normal(shape)
        for axis, size in enumerate(shape[:2]):
            turn = np.linalg.qr(rng.standard_normal((size, size)))[0] * 0.8 ** np.arange(size)
            weight = np.moveaxis(np.tensordot(turn, weight, axes=(1, axis)), 0, axis)
        node = helper.make_node(op, ["x", "w"], ["y"], name="site", **attrs)
        return find_sites(build([node], {"w": weight.astype(np.float32)}, x=None))[0]

    return make


def metric_of(site: Site, seed: int = 0) -> np.ndarray:
    layer = Layer.of(site)
    rows = np.random.default_rng(seed).standard_normal((layer.groups, 4 * layer.width, layer.width))
    rows *= 0.9 ** np.arange(layer.width)
    return rows.swapaxes(1, 2) @ rows


def lost(site: Site, rows: np.ndarray, metric: np.ndarray) -> float:
    missing = (rows_of(site) - rows).reshape(len(metric), -1, metric.shape[1])
    return float(np.einsum("grk,gkl,grl->", missing, metric, missing))


@pytest.mark.parametrize("scheme", KERNELS, ids=lambda each: each.name)
def test_ranks_ascend_and_end_with_the_full_ones(scheme, site_of):
    site = site_of()
    scheme.refuse(site)
    every = [scheme.at(site, number) for number in range(1, scheme.top(site) + 1)]
    assert every[-1] == scheme.ranks(site)
    for less, more in pairwise(every):
        assert all(a <= b for a, b in zip(less, more, strict=True))
    ladder = scheme.ladder(site, 4)
    assert ladder[-1] == scheme.ranks(site)
    assert len(set(ladder)) == len(ladder) > 1


@pytest.mark.parametrize("scheme", KERNELS, ids=lambda each: each.name)
def test_the_links_hold_as_many_weights_as_the_cost_says(scheme, site_of):
    site = site_of()
    for ranks in scheme.ladder(site, 4):
        factors = scheme.fit(site, rows_of(site).astype(float), None, ranks, 0)
        held = sum(link.weight.size for link in factors.links() if link.op != "Gather")
        assert held == scheme.cost(site, ranks).parameters.value


@pytest.mark.parametrize("scheme", KERNELS, ids=lambda each: each.name)
@pytest.mark.parametrize("groups", [1, 2])
def test_a_metric_brings_its_own_error_down(scheme, groups, site_of):
    site = site_of((16, 8, 3, 3), group=groups)
    if scheme.name == "groups" and groups > 1:
        return
    ranks, metric, target = scheme.ladder(site, 4)[0], metric_of(site), rows_of(site).astype(float)
    plain, fitted = (scheme.fit(site, target, each, ranks, 0).dense() for each in (None, metric))
    assert plain.shape == fitted.shape == target.shape
    assert lost(site, fitted, metric) < 0.95 * lost(site, plain, metric)
    assert np.linalg.norm(target - fitted) >= 0.99 * np.linalg.norm(target - plain)


@pytest.mark.parametrize("scheme", KERNELS, ids=lambda each: each.name)
def test_other_factors_are_a_start_as_good_as_any(scheme, site_of):
    site = site_of((16, 8, 3, 3))
    ranks, metric, target = scheme.ladder(site, 4)[1], metric_of(site), rows_of(site).astype(float)
    first = scheme.fit(site, target, metric_of(site, seed=1), ranks, 0)
    again = scheme.fit(site, target, metric, ranks, 0, first)
    assert lost(site, again.dense(), metric) <= min(
        lost(site, first.dense(), metric), 1.1 * lost(site, scheme.fit(site, target, metric, ranks, 0).dense(), metric)
    )


@pytest.mark.parametrize("scheme", KERNELS, ids=lambda each: each.name)
def test_a_step_up_costs_more_and_errs_less(scheme, site_of):
    site = site_of()
    target = rows_of(site).astype(float)
    ladder = scheme.ladder(site, 4)
    errors = [np.linalg.norm(target - scheme.fit(site, target, None, ranks, 0).dense()) for ranks in ladder]
    assert all(more <= less * 1.01 for less, more in pairwise(errors))
    assert errors[-1] < 1e-4 * np.linalg.norm(target)


@pytest.mark.parametrize("with_metric", [False, True])
def test_values_tell_the_error_of_every_rank(with_metric, site_of):
    site, scheme = site_of(group=2), ChannelScheme()
    target, metric = rows_of(site).astype(float), metric_of(site)
    values = scheme.values(site, target, metric if with_metric else None)
    seen = metric if with_metric else np.broadcast_to(np.eye(36), (2, 36, 36))
    for rank in (1, 3, 5):
        found = scheme.fit(site, target, metric if with_metric else None, (rank,), 0).dense()
        assert lost(site, found, seen) == pytest.approx(np.square(values[rank:]).sum(), rel=1e-6)


def test_tucker_ranks_keep_as_much_energy_on_both_sides(site_of):
    site, scheme = site_of(), TuckerScheme()
    out, channels = scheme.unfolded(Layer.of(site).kernels(rows_of(site).astype(float))[0])
    r_out, r_in = scheme.at(site, 6)
    assert r_out == 6
    kept = [np.cumsum(np.linalg.svd(each, compute_uv=False) ** 2) for each in (out, channels)]
    wanted = kept[0][5] / kept[0][-1]
    assert kept[1][r_in - 1] / kept[1][-1] >= wanted > kept[1][r_in - 2] / kept[1][-1]


def test_expressions_are_einsums_of_the_stages(site_of):
    layer = Layer.of(site_of())
    wanted = {
        "channel": ((3,), "oj,jiab->oiab"),
        "spatial": ((3,), "ojb,jia->oiab"),
        "tucker": ((3, 2), "ok,kjab,ji->oiab"),
        "cp": ((3,), "oj,jab,ji->oiab"),
        "train": ((2, 4, 3), "ol,lkb,kja,ji->oiab"),
        "separable": ((2,), "oij,ijab->oiab"),
    }
    found = {each.name: each.form(layer, wanted[each.name][0]).expression() for each in KERNELS if each.name in wanted}
    assert found == {name: expression for name, (_, expression) in wanted.items()}


def test_work_is_counted_where_it_is_done(site_of):
    strided = site_of((16, 8, 3, 3), strides=[2, 2])
    cost = TuckerScheme().cost(strided, (4, 2))  # the first layer runs at all positions of the input
    assert str(cost.multiply_adds) == "8·2·4 + 2·4·3·3 + 4·16"
    transposed = site_of((8, 16, 3, 3), op="ConvTranspose", strides=[2, 2])
    cost = TuckerScheme().cost(transposed, (4, 2))  # the last one at all of the output
    assert str(cost.multiply_adds) == "8·2 + 2·4·3·3 + 4·16·4"
    cost = SpatialScheme().cost(transposed, (4,))
    assert str(cost.multiply_adds) == "4·(8·3+16·3·2)"


def test_a_train_has_only_ranks_that_it_can_reach(site_of):
    site, scheme = site_of(), TrainScheme()
    stages = scheme.form(Layer.of(site), (1, 9, 9)).stages
    assert [(each.reads, each.writes) for each in stages] == [(8, 1), (1, 3), (3, 9), (9, 16)]
    assert scheme.ranks(site) == (8, 24, 16)


def test_groups_are_those_that_divide_the_channels(site_of):
    assert GroupScheme().ladder(site_of((12, 8, 3, 3)), 8) == ((2,), (4,), (8,))
    assert [GroupScheme().at(site_of((12, 8, 3, 3)), rank) for rank in (1, 3, 4, 7, 8)] == [
        (2,),
        (2,),
        (4,),
        (4,),
        (8,),
    ]


@pytest.mark.parametrize(
    ("scheme", "shape", "attrs", "reason"),
    [
        (SVDScheme(), (8, 8, 3), {}, "has a 3 kernel, which is no matrix"),
        (TrainScheme(), (8, 8, 3), {}, "has a 3 kernel; a train needs two sides of at least 2"),
        (TrainScheme(), (8, 8, 1, 3), {}, "has a 1x3 kernel; a train needs two sides of at least 2"),
        (SeparableScheme(), (8, 1, 3), {"group": 8}, "reads one channel for each group, so it is depthwise already"),
        (GroupScheme(), (8, 4, 3), {"group": 2}, "has 2 groups already"),
        (GroupScheme(), (9, 8, 3), {}, "has 9 outputs and 8 inputs, which no number of groups divides"),
    ],
)
def test_refuses_what_has_no_such_chain(scheme, shape, attrs, reason, site_of):
    with pytest.raises(RefusalError) as caught:
        scheme.refuse(site_of(shape, **attrs))
    assert str(caught.value) == reason


def test_refuses_groups_behind_a_bias_that_is_computed(build):
    nodes = [helper.make_node("Neg", ["b"], ["c"]), helper.make_node("Conv", ["x", "w", "c"], ["y"], name="site")]
    weights = {"w": np.ones((8, 8, 3), np.float32), "b": np.ones(8, np.float32)}
    site = next(each for each in find_sites(build(nodes, weights, x=None)) if each.name == "site")
    with pytest.raises(RefusalError, match="reads a bias that is computed, so it cannot be put in another order"):
        GroupScheme().refuse(site)


def test_refuses_what_the_type_of_the_weight_cannot_hold(site_of):
    site, scheme = site_of(), ChannelScheme()
    factors = scheme.fit(site, 1e12 * rows_of(site).astype(float), None, (2,), 0)
    with pytest.raises(RefusalError, match="its factors do not fit into float16"):
        factors.stored(np.dtype(np.float16))
