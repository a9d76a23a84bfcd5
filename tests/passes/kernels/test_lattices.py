import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.lattices import Lattice, bounding, cover, lattices

modest = settings(deadline=None, derandomize=True, max_examples=80)
kernels = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)


def some_of(kernel, seed):
    rng = np.random.default_rng(seed)
    kept = rng.random(kernel) < rng.choice([0.2, 0.5, 0.9])
    kept.reshape(-1)[rng.integers(kept.size)] = True
    return kept


@modest
@given(kernel=kernels, seed=st.integers(0, 10_000))
def test_the_bounding_lattice_holds_all_positions_and_no_smaller_one_does(kernel, seed):
    kept = some_of(kernel, seed)
    found = bounding(kept)
    assert not (kept & ~found.mask(kernel)).any()
    holding = [each.size for each in lattices(kernel) if not (kept & ~each.mask(kernel)).any()]
    assert found.size == min(holding)


@modest
@given(kernel=kernels, seed=st.integers(0, 10_000), most=st.integers(1, 5))
def test_a_cover_holds_each_position_once_and_no_other(kernel, seed, most):
    kept = some_of(kernel, seed)
    found = cover(kept, most=most)
    if found is None:
        assert np.count_nonzero(kept) > most
    else:
        assert len(found) <= most
        np.testing.assert_array_equal(sum(each.mask(kernel).astype(int) for each in found), kept.astype(int))


@modest
@given(kernel=kernels)
def test_all_lattices_are_there_and_none_twice(kernel):
    masks = [each.mask(kernel) for each in lattices(kernel)]
    assert [int(mask.sum()) for mask in masks] == [each.size for each in lattices(kernel)]
    assert len({mask.tobytes() for mask in masks}) == len(masks)
    assert all(bounding(mask).size == mask.sum() for mask in masks)


def test_a_square_of_three_has_49():
    assert len(list(lattices((3, 3)))) == 49


def test_a_long_kernel_has_no_gaps():
    assert all(each.step == (1,) for each in lattices((200,)))


def test_a_lattice_picks_what_its_mask_marks():
    weight = np.arange(20).reshape(4, 5)
    lattice = Lattice((0, 1), (3, 2), (2, 2))
    np.testing.assert_array_equal(weight[lattice.index], [[1, 3], [16, 18]])
    np.testing.assert_array_equal(np.sort(weight[lattice.mask((4, 5))]), [1, 3, 16, 18])


def test_refuses_to_bound_nothing():
    with pytest.raises(ValueError, match="no position is kept"):
        bounding(np.zeros((3, 3), bool))
