"""Values of codebooks by least squares: what NumPy's own solver gives, and what is promised about zeros and codes."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.kernels.codebooks import BookNormal, fit_books, solve_books
from onnxpress.passes.kernels.normal import Normal

modest = settings(deadline=None, derandomize=True, max_examples=40)


class Layer:
    """A grouped layer whose outputs come from a weight near one of few values."""

    def __init__(self, seed, *, groups=1, rows=4, k=12, values=3, each=False, shift=0.0, count=200):
        rng = np.random.default_rng(seed)
        self.inputs = rng.standard_normal((groups, count, k)) @ rng.standard_normal((groups, k, k)) + shift
        self.codes = rng.integers(0, values, (groups * rows, k)).astype(np.uint8)
        self.books = np.sort(rng.standard_normal((len(self.codes) if each else 1, values)))
        self.held = np.stack(
            [np.bincount(part.reshape(-1), minlength=values) for part in (self.codes if each else self.codes[None])]
        ).astype(float)
        weight = self.weight(self.books) + 0.1 * rng.standard_normal(self.codes.shape)
        self.outputs = self.product(weight) + shift
        self.each, self.groups = each, groups

    def weight(self, books):
        return np.stack([books[row if len(books) > 1 else 0][code] for row, code in enumerate(self.codes)])

    def product(self, weight):
        return self.inputs @ weight.reshape(len(self.inputs), -1, weight.shape[1]).transpose(0, 2, 1)

    @property
    def normal(self):
        return BookNormal.of(Normal.of(self.inputs, self.outputs), self.codes, self.books.shape[1], each=self.each)

    def error(self, books, bias=None):
        given = self.product(self.weight(books))
        shift = 0 if bias is None else bias.reshape(self.groups, 1, -1)
        return np.linalg.norm(self.outputs - given - shift) / np.linalg.norm(self.outputs)


kinds = st.fixed_dictionaries({"groups": st.integers(1, 3), "rows": st.integers(1, 4), "each": st.booleans()})


@modest
@given(seed=st.integers(0, 1000), kind=kinds, bias=st.booleans())
def test_no_other_values_give_the_outputs_better(seed, kind, bias):
    layer = Layer(seed, **kind, shift=0.5)
    none = np.zeros(layer.books.shape, np.bool_)
    found = solve_books(layer.normal, layer.books, layer.held, ridge=1e-12, fixed=none, bias=bias)
    least = layer.error(*found)
    for change in np.random.default_rng(seed).standard_normal((5, *layer.books.shape)):
        assert layer.error(found[0] + 1e-3 * change, found[1]) >= least * (1 - 1e-9)
    assert least <= layer.error(layer.books)


@modest
@given(seed=st.integers(0, 1000), kind=kinds, bias=st.booleans())
def test_error_is_that_of_the_outputs(seed, kind, bias):
    layer = Layer(seed, **kind, shift=0.5)
    shift = np.random.default_rng(seed).standard_normal(len(layer.codes)) if bias else None
    assert layer.normal.error(layer.books, shift) == pytest.approx(layer.error(layer.books, shift), rel=1e-6)


@modest
@given(seed=st.integers(0, 1000), groups=st.integers(1, 3), some=st.integers(1, 12), bias=st.booleans())
def test_some_rows_of_a_weight_tell_error_and_slope_exactly(seed, groups, some, bias):
    layer = Layer(seed, groups=groups, shift=0.5)
    normal, book = Normal.of(layer.inputs, layer.outputs), layer.books[0]
    near = BookNormal.near(normal, layer.codes, book, rows=some)
    shift = np.random.default_rng(seed).standard_normal(len(layer.codes)) if bias else None
    assert near.error(layer.books, shift) == pytest.approx(layer.error(layer.books, shift), rel=1e-6)
    steps = 1e-5 * np.eye(book.size)[:, None]
    slopes = [
        np.array([of(layer.books + step, shift) ** 2 - of(layer.books - step, shift) ** 2 for step in steps])
        for of in (near.error, layer.error)
    ]
    np.testing.assert_allclose(*slopes, rtol=1e-4, atol=1e-9)  # of differences of squares
    if some >= len(layer.codes):
        np.testing.assert_allclose(near.moment, layer.normal.moment, rtol=1e-9, atol=1e-9 * near.moment.max())


def test_some_rows_find_values_nearly_as_good_as_all_do():
    layer, none = Layer(3, rows=60, k=20, values=5, shift=0.5), np.zeros((1, 5), np.bool_)
    near = BookNormal.near(Normal.of(layer.inputs, layer.outputs), layer.codes, layer.books[0], rows=12)
    rough, exact = (
        solve_books(each, layer.books, layer.held, ridge=1e-6, fixed=none, bias=True) for each in (near, layer.normal)
    )
    before, least = layer.error(layer.books), layer.error(*exact)
    assert least < layer.error(*rough) < least + 0.05 * (before - least)


def test_a_value_that_none_of_some_rows_has_hardly_moves_on_its_own():
    layer = Layer(0, rows=40)
    layer.codes[:] = layer.codes % 2
    layer.codes[1, 0] = 2  # of the row between those that tell
    held = np.bincount(layer.codes.reshape(-1), minlength=3)[None].astype(float)
    near = BookNormal.near(Normal.of(layer.inputs, layer.outputs), layer.codes, layer.books[0], rows=2)
    found, _ = solve_books(near, layer.books, held, ridge=1e-6, fixed=np.zeros((1, 3), np.bool_), bias=False)
    assert np.isfinite(found).all()
    assert layer.error(found) <= layer.error(layer.books)


def test_a_greater_ridge_stays_closer():
    layer = Layer(0)
    none = np.zeros(layer.books.shape, np.bool_)
    moved = [
        np.linalg.norm(
            layer.weight(
                solve_books(layer.normal, layer.books, layer.held, ridge=ridge, fixed=none, bias=False)[0] - layer.books
            )
        )
        for ridge in (1e-3, 1, 1e3, 1e6)
    ]
    assert moved == sorted(moved, reverse=True)
    assert moved[-1] < 1e-4


@pytest.mark.parametrize("each", [False, True])
def test_what_is_fixed_or_unused_stays(each):
    layer = Layer(0, each=each)
    books = np.concatenate([layer.books, np.full((len(layer.books), 1), 9.0)], axis=1)  # a value of no weight
    held = np.pad(layer.held, ((0, 0), (0, 1)))
    fixed = np.zeros(books.shape, np.bool_)
    fixed[:, 1] = True
    normal = BookNormal.of(Normal.of(layer.inputs, layer.outputs), layer.codes, books.shape[1], each=each)
    found, _ = solve_books(normal, books, held, ridge=1e-6, fixed=fixed, bias=True)
    np.testing.assert_array_equal(found[:, [1, 3]], books[:, [1, 3]])
    assert (found[:, [0, 2]] != books[:, [0, 2]]).all()


def test_equations_of_parts_add_up():
    layer = Layer(0, groups=2)
    parts = [
        BookNormal.of(Normal.of(layer.inputs[:, part], layer.outputs[:, part]), layer.codes, 3, each=False)
        for part in (slice(0, 80), slice(80, None))
    ]
    whole, none = layer.normal, np.zeros(layer.books.shape, np.bool_)
    together = parts[0] + parts[1]
    one, two = (
        solve_books(each, layer.books, layer.held, ridge=1e-9, fixed=none, bias=True)[0] for each in (whole, together)
    )
    np.testing.assert_allclose(one, two, rtol=1e-7, atol=1e-9)  # of sums in another order


def test_values_that_suit_only_the_rows_they_were_fitted_to_are_not_taken():
    layer = Layer(0, count=4)
    noise = Normal.of(layer.inputs, np.random.default_rng(1).standard_normal(layer.outputs.shape))
    fit = BookNormal.of(noise, layer.codes, 3, each=False)
    exact = Normal.of(layer.inputs, layer.product(layer.weight(layer.books)))
    held_out = BookNormal.of(exact, layer.codes, 3, each=False)
    none = np.zeros(layer.books.shape, np.bool_)
    choice, books, bias = fit_books(fit, held_out, layer.books, layer.held, fixed=none, bias=True)
    assert math.isinf(choice.ridge)
    assert choice.before == choice.after
    assert books is layer.books
    assert bias is None


def test_the_values_taken_are_fitted_to_all_rows():
    layer = Layer(0, each=True)
    none = np.zeros(layer.books.shape, np.bool_)
    choice, books, bias = fit_books(layer.normal, layer.normal, layer.books, layer.held, fixed=none, bias=True)
    assert choice.after < choice.before
    assert layer.error(books, bias) == pytest.approx(choice.after, rel=1e-6)


def test_inputs_that_are_always_zero_leave_all_as_it_is():
    layer = Layer(0)
    normal = BookNormal.of(Normal.of(0 * layer.inputs, layer.outputs), layer.codes, 3, each=False)
    none = np.zeros(layer.books.shape, np.bool_)
    found, _ = solve_books(normal, layer.books, layer.held, ridge=1e-4, fixed=none, bias=False)
    np.testing.assert_array_equal(found, layer.books)


@pytest.mark.parametrize(
    ("energy", "error"), [(0.0, 0.0), (1.0, math.inf)], ids=["nothing is given", "something where nothing is wanted"]
)
def test_error_of_outputs_that_should_be_zero(energy, error):
    layer = Layer(0)
    normal = BookNormal.of(Normal.of(layer.inputs, 0 * layer.outputs), layer.codes, 3, each=False)
    assert normal.error(energy * layer.books) == error


def test_refuses_what_does_not_fit():
    layer = Layer(0)
    normal = Normal.of(layer.inputs, layer.outputs)
    with pytest.raises(ValueError, match=r"codes of shape \[4, 11\] do not fit equations for \[4, 12\]"):
        BookNormal.of(normal, layer.codes[:, 1:], 3, each=False)
    for broken in (Normal.empty(1, 4, 12), replace(normal, energy=normal.energy * np.inf)):
        with pytest.raises(ValueError, match="there are no rows to fit, or they are not finite"):
            BookNormal.of(broken, layer.codes, 3, each=False)
