"""Which weights of a layer go, by what it reads."""

import numpy as np
import pytest

from onnxpress.passes.kernels.normal import Normal
from onnxpress.passes.prune.zeros import criteria
from onnxpress.passes.prune.zeros.criteria import SALIENCIES, Criterion, Problem
from onnxpress.passes.prune.zeros.patterns import Blocks, Columns, Form, Inputs, NofM, Rows, Unstructured

DRAW = np.random.default_rng(0)


def problem(weight, *, rows=400, target=None, biased=False, fitted=True, mean=0.0):
    """What a layer of one group should give, of rows that lie near few directions."""
    k = weight.shape[1]
    mix = np.random.default_rng(1).standard_normal((k, k))
    x = np.random.default_rng(2).standard_normal((rows, k)) @ mix + mean
    y = x @ (weight if target is None else target).T
    normal = Normal.of(x[np.newaxis], y[np.newaxis])
    return Problem.of(normal, weight, biased=biased, fitted=fitted)


@pytest.mark.parametrize(
    ("pattern", "columns", "unit"),
    [
        (Unstructured(), 300, 1),
        (NofM(2, 4), 300, 4),
        (NofM(3, 7), 301, 7),
        (NofM(100, 200), 400, 200),
        (Blocks(4, 1), 300, 1),
        (Blocks(1, 12), 300, 12),
        (Blocks(1, 130), 390, 130),
        (Rows(), 300, 300),
        (Columns(), 300, 300),
        (Inputs(), 300, 300),
    ],
)
def test_a_stretch_of_columns_is_whole_units(monkeypatch, pattern, columns, unit):
    asked = []

    def surgeon(dense, moment, select, *, sparsity, width, damping):
        asked.append(width)
        return dense

    monkeypatch.setattr(criteria, "surgeon", surgeon)
    weight = DRAW.standard_normal((4, columns))
    Criterion("obs", pattern, Form()).prune(problem(weight, rows=20), 0.5, damping=0.1)
    (width,) = asked
    assert width > 0
    assert width % unit == 0
    assert width <= max(unit, 128)


@pytest.mark.parametrize("pattern", [Unstructured(), NofM(2, 4)])
def test_a_few_outputs_tell_for_all_that_are_pruned_alone(pattern):
    chosen = Criterion("alps", pattern, Form()).sample(1000)
    assert len(set(chosen.tolist())) == len(chosen) == 48
    assert (chosen[0], chosen[-1]) == (0, 999)
    assert np.diff(chosen).max() <= 1 + 999 // 47
    np.testing.assert_array_equal(Criterion("alps", pattern, Form()).sample(20), np.arange(20))


@pytest.mark.parametrize("pattern", [Rows(), Columns(), Inputs(), Blocks(4, 1), Blocks(1, 4)])
def test_all_outputs_tell_where_units_span_them(pattern):
    np.testing.assert_array_equal(Criterion("alps", pattern, Form()).sample(1000), np.arange(1000))


@pytest.mark.parametrize("saliency", SALIENCIES)
def test_what_learns_finds_weights_with_the_mask(saliency):
    weight = DRAW.standard_normal((6, 24))
    criterion = Criterion(saliency, Unstructured(), Form())
    sparse = criterion.prune(problem(weight), 0.5, damping=0.01)
    assert np.count_nonzero(sparse.mask) == weight.size // 2
    assert not sparse.weight[~sparse.mask].any()
    assert criterion.learns == (saliency in ("obs", "alps"))
    assert np.allclose(sparse.weight[sparse.mask], weight[sparse.mask]) != criterion.learns


def test_weights_that_leave_nothing_to_be_desired_are_the_best_dense_ones():
    weight = DRAW.standard_normal((6, 24))
    for each in (problem(weight, target=DRAW.standard_normal((6, 24)), fitted=False), problem(np.zeros((6, 24)))):
        assert not each.gradient.any()
        np.testing.assert_array_equal(each.dense(0.1), each.weight)


def test_the_best_dense_weight_is_drawn_to_the_one_there_is():
    weight, target = DRAW.standard_normal((6, 24)), DRAW.standard_normal((6, 24))
    one = problem(weight, target=target)
    away = [np.linalg.norm(one.dense(damping) - weight) for damping in (1e-4, 1.0, 100.0)]
    assert away == sorted(away, reverse=True)
    assert away[-1] < 0.2 * np.linalg.norm(target - weight)
    # with next to no damping all but what the axes' own floor of a thousandth takes off is reached
    left = (one.dense(1e-6) - target) @ one.moment[0]
    assert np.vdot(left, one.dense(1e-6) - target) < 0.01 * np.vdot((weight - target) @ one.moment[0], weight - target)


def test_means_do_not_count_where_a_bias_takes_them_up():
    weight = DRAW.standard_normal((6, 24))
    centred, far = (problem(weight, biased=True, mean=mean) for mean in (0.0, 50.0))
    np.testing.assert_allclose(far.moment, centred.moment, rtol=1e-6, atol=1e-6 * np.abs(centred.moment).max())


def test_outputs_are_taken_of_every_group():
    x, y = DRAW.standard_normal((2, 50, 5)), DRAW.standard_normal((2, 50, 4))
    weight = DRAW.standard_normal((8, 5))
    part = Problem.of(Normal.of(x, y), weight, biased=False).outputs(np.array([1, 3]))
    np.testing.assert_array_equal(part.weight, weight[[1, 3, 5, 7]])
    assert part.gradient.shape == (2, 2, 5)
    np.testing.assert_allclose(part.gradient[1, 0], (y[1, :, 1] - x[1] @ weight[5]) @ x[1], rtol=1e-9, atol=1e-9)
