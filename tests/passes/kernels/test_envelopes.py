import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.envelopes import Part, envelope, spans

modest = settings(deadline=None, derandomize=True, max_examples=60)


@modest
@given(seed=st.integers(0, 10_000), count=st.integers(1, 40), scale=st.floats(0, 3))
def test_names_the_cheapest_value_everywhere(seed, count, scale):
    rng = np.random.default_rng(seed)
    values, costs = np.unique(rng.standard_normal(count)), scale * rng.random(count)
    lines, borders = envelope(values, costs)
    weights = rng.uniform(-4, 4, 300)
    chosen = lines[np.searchsorted(borders, weights)]
    cost = (weights[:, None] - values) ** 2 + costs
    np.testing.assert_allclose(np.take_along_axis(cost, chosen[:, None], 1)[:, 0], cost.min(1), rtol=1e-9, atol=1e-12)


def test_without_costs_borders_are_in_the_middle():
    lines, borders = envelope(np.array([-1.0, 0, 4]), np.zeros(3))
    np.testing.assert_array_equal(lines, [0, 1, 2])
    np.testing.assert_array_equal(borders, [-0.5, 2])


def test_a_value_that_costs_too_much_is_not_used():
    lines, borders = envelope(np.array([-1.0, 0, 1]), np.array([0.0, 1.5, 0]))
    np.testing.assert_array_equal(lines, [0, 2])
    np.testing.assert_array_equal(borders, [0])


def test_sums_of_a_part_are_those_of_its_values():
    values = np.random.default_rng(0).standard_normal(100)
    values[::5] = 0
    part = Part.of(values, 2.0, keep_zero=True)
    assert part.zeros == 20
    places = part.places(np.array([-0.3, 0.7]))
    kept = values[values != 0]
    groups = np.split(np.sort(kept), np.searchsorted(np.sort(kept), [-0.3, 0.7]))
    np.testing.assert_array_equal(spans(part.number, places), [each.size for each in groups])
    lost = sum(((each - value) ** 2).sum() for each, value in zip(groups, (-1, 0, 1), strict=True))
    np.testing.assert_allclose(part.lost(np.array([-1.0, 0, 1]), places), lost, rtol=1e-10)


def test_a_part_may_be_empty():
    part = Part.of(np.zeros(0), 1.0, keep_zero=False)
    np.testing.assert_array_equal(spans(part.number, part.places(np.array([0.0]))), [0, 0])
