"""One layer, pruned by some samples and judged by others."""

import numpy as np
import pytest

from onnxpress.passes.equations import Pair
from onnxpress.passes.kernels.normal import Normal
from onnxpress.passes.prune.zeros.criteria import Criterion
from onnxpress.passes.prune.zeros.layers import Layer
from onnxpress.passes.prune.zeros.patterns import Form, Rows, Unstructured


def layer(saliency="alps", *, groups=1, rows=6, k=12, reconstruct=True, biased=False, offset=0.0, pattern=None):
    """A layer that gives what its weight makes of its rows, and `offset` more."""
    draw = np.random.default_rng(0)
    weight = draw.standard_normal((groups * rows, k))
    mix = draw.standard_normal((groups, k, k))
    normals = []
    for count in (300, 100):
        x = draw.standard_normal((groups, count, k)) @ mix + 1
        y = np.einsum("gnk,grk->gnr", x, weight.reshape(groups, rows, k)) + offset
        normals.append(Normal.of(x, y))
    criterion = Criterion(saliency, pattern or Unstructured(), Form(stacks=groups))
    return Layer(criterion, reconstruct, weight, Pair(*normals), biased)


def test_all_outputs_of_a_small_layer_are_looked_at():
    one = layer(groups=3, rows=4)
    np.testing.assert_array_equal(one.rows, np.arange(12))
    assert one.share == pytest.approx(1.0)


def test_the_same_outputs_are_looked_at_in_every_group():
    one = layer("magnitude", groups=2, rows=100)
    chosen = one.chosen
    assert len(chosen) < 100
    np.testing.assert_array_equal(one.rows, [*chosen, *(100 + chosen)])
    energy = one.pair.held_out.energy.reshape(-1)
    assert one.share == pytest.approx(energy[one.rows].sum() / energy.sum())
    assert 0.2 < one.share < 0.8
    assert one.attempt(0.5, 0.1).weight.shape == (len(one.rows), 12)


def test_where_units_span_outputs_all_are_looked_at():
    assert len(layer("magnitude", rows=100, pattern=Rows()).rows) == 100


def test_a_silent_layer_has_no_share():
    one = layer()
    silent = Normal.empty(1, 6, 12)
    assert Layer(one.criterion, True, one.weight, Pair(one.pair.fit, silent), False).share == 0


@pytest.mark.parametrize("saliency", ["magnitude", "wanda", "obd"])
def test_what_does_not_learn_needs_no_damping(monkeypatch, saliency):
    def fail(*args, **options):
        raise AssertionError("tried")

    monkeypatch.setattr(Layer, "attempt", fail)
    assert layer(saliency).damping(0.5) > 0


@pytest.mark.parametrize("saliency", ["obs", "alps"])
def test_damping_is_the_one_that_does_best_on_what_is_held_out(saliency):
    one = layer(saliency)
    best = one.attempt(0.7, one.damping(0.7)).noise
    assert best <= one.attempt(0.7, 1.0).noise


@pytest.mark.parametrize("saliency", ["magnitude", "obs", "alps"])
def test_noise_is_that_of_the_weight_on_what_is_held_out(saliency):
    one = layer(saliency, biased=True, offset=2.0)
    attempt = one.attempt(0.5, 0.03)
    held = one.pair.held_out
    shift = np.zeros(6) if attempt.shift is None else attempt.shift
    made = np.concatenate([attempt.weight, shift[:, np.newaxis]], axis=1)
    sums = np.concatenate([held.input_sum, [[held.count]]], axis=1)
    moment = np.block([[held.moment[0], held.input_sum.T], [sums]])
    cross = np.concatenate([held.cross[0], held.output_sum.T], axis=1)
    lost = held.energy.sum() - 2 * np.vdot(cross, made) + np.vdot(made @ moment, made)
    assert attempt.noise == pytest.approx(lost / held.energy.sum(), rel=1e-6)


def test_a_bias_takes_in_what_is_constant():
    with_bias, without = (layer("alps", biased=biased, offset=5.0) for biased in (True, False))
    assert with_bias.attempt(0.3, 0.01).noise < 0.5 * without.attempt(0.3, 0.01).noise
    assert without.attempt(0.3, 0.01).shift is None


def test_refitted_weights_do_better_than_those_that_stay():
    plain = layer("magnitude", reconstruct=False).attempt(0.6, 0.03)
    assert layer("magnitude").attempt(0.6, 0.03).noise < plain.noise


def test_the_whole_layer_is_pruned_as_asked():
    one = layer("alps")
    sparse = one.prune(0.6)
    assert sparse.weight.shape == one.weight.shape
    assert np.count_nonzero(sparse.mask) == round(0.4 * one.weight.size)
