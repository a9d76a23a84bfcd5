import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxpress.passes.prune.zeros.patterns import Blocks, Columns, Form, Inputs, NofM, Rows, Unstructured, parse_pattern
from onnxpress.rewriter.sites import find_sites

modest = settings(deadline=None, derandomize=True, max_examples=60)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("unstructured", Unstructured()),
        ("rows", Rows()),
        ("columns", Columns()),
        ("inputs", Inputs()),
        ("2:4", NofM(2, 4)),
        ("1:16", NofM(1, 16)),
        ("4x1", Blocks(4, 1)),
    ],
)
def test_reads_a_pattern(text, pattern):
    assert parse_pattern(text) == pattern


@pytest.mark.parametrize(
    "text", ["", "2", "4:2", "4:4", "0:4", "1x1", "0x4", "-2:4", "2:4:8", "Unstructured", "row", "Rows"]
)
def test_refuses_what_is_no_pattern(text):
    with pytest.raises(ValueError, match="no pattern"):
        parse_pattern(text)


def test_sparsity_of_n_of_m_is_what_goes():
    assert NofM(1, 4).sparsity == 0.75


forms = st.builds(Form, kernel=st.integers(1, 4), stacks=st.integers(1, 3), parts=st.just(1)) | st.builds(
    Form, kernel=st.integers(1, 4), stacks=st.just(1), parts=st.integers(1, 3)
)
seeds = st.integers(0, 10_000)


def scores_of(seed, form, *, levels=None):
    """Scores of a matrix that the form fits, with ties where there are levels."""
    rng = np.random.default_rng(seed)
    rows = form.stacks * int(rng.integers(1, 6))
    columns = form.parts * form.kernel * int(rng.integers(1, 6))
    return rng.random((rows, columns)) if levels is None else rng.integers(0, levels, (rows, columns)).astype(float)


def units_of(pattern, shape, form):
    """The number of the unit that each weight belongs to, written down anew."""
    row, column = np.indices(shape)
    stack, part = row // (shape[0] // form.stacks), column // (shape[1] // form.parts)
    if isinstance(pattern, Unstructured):
        return row * shape[1] + column
    if isinstance(pattern, Blocks):
        return row // pattern.height * shape[1] + column // pattern.width
    if isinstance(pattern, Rows):
        return row * form.parts + part
    if isinstance(pattern, Columns):
        return stack * shape[1] + column
    return stack * shape[1] + column // form.kernel


@pytest.mark.parametrize("pattern", [Unstructured(), Blocks(2, 3), Blocks(4, 1), Rows(), Columns(), Inputs()])
@modest
@given(seed=seeds, form=forms, sparsity=st.floats(0, 1), levels=st.sampled_from([None, 2]))
def test_exactly_the_asked_number_of_units_goes_whole_and_they_are_the_smallest(pattern, seed, form, sparsity, levels):
    scores = scores_of(seed, form, levels=levels)
    kept = pattern.mask(scores, sparsity, form)
    assert (kept.shape, kept.dtype) == (scores.shape, np.bool_)
    numbers = units_of(pattern, scores.shape, form)
    units = np.unique(numbers)
    stays = {unit: set(kept[numbers == unit].tolist()) for unit in units}
    assert all(len(each) == 1 for each in stays.values())
    means = {unit: scores[numbers == unit].mean() for unit in units}
    gone = [means[unit] for unit in units if stays[unit] == {False}]
    assert len(gone) == round(sparsity * len(units))
    left = [means[unit] for unit in units if stays[unit] == {True}]
    if gone and left:
        assert max(gone) <= min(left) * (1 + 1e-12)  # sums in another order


@modest
@given(seed=seeds, group=st.integers(2, 6), form=forms)
def test_n_of_m_keeps_n_whatever_is_asked(seed, group, form):
    scores, keep = scores_of(seed, form), 1 + seed % (group - 1)
    kept = NofM(keep, group).mask(scores, 1 - keep / group, form)
    np.testing.assert_array_equal(kept, NofM(keep, group).mask(scores))
    for start in range(0, scores.shape[1], group):
        part = kept[:, start : start + group]
        assert (part.sum(axis=1) == min(keep, part.shape[1])).all()


@pytest.mark.parametrize("pattern", [Unstructured(), Blocks(2, 3), Rows(), Columns(), Inputs(), NofM(2, 4)])
def test_scores_are_left_as_they_are(pattern):
    scores = scores_of(1, Form())
    scores.flags.writeable = False
    assert pattern.mask(scores, 0.5).shape == scores.shape


@pytest.mark.parametrize(
    ("op", "attrs", "shape", "form"),
    [
        ("MatMul", {}, (6, 8), Form()),
        ("Conv", {}, (4, 6, 3, 2), Form(kernel=6)),
        ("Conv", {"group": 2}, (4, 3, 3, 3), Form(kernel=9, stacks=2)),
        ("ConvTranspose", {"group": 2}, (6, 4, 3, 3), Form(kernel=9, parts=2)),
    ],
)
def test_reads_the_form_of_a_weight(build, op, attrs, shape, form):
    model = build([helper.make_node(op, ["x", "w"], ["y"], **attrs)], {"w": np.ones(shape, np.float32)}, x=None)
    assert Form.of(find_sites(model)[0]) == form


def test_directions_of_an_lstm_have_inputs_of_their_own(build):
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4, direction="bidirectional")
    weights = {"w": np.ones((2, 16, 3), np.float32), "r": np.ones((2, 16, 4), np.float32)}
    assert Form.of(find_sites(build([node], weights, x=None))[0]) == Form(stacks=2)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: Rows().mask(np.ones((2, 2)), 1.5), "sparsity must lie"),
        (lambda: Columns().mask(-np.ones((2, 2)), 0.5), "must not be negative"),
        (lambda: Unstructured().mask(np.ones(4), 0.5), r"matrix \[out, in·kernel\]"),
        (lambda: Unstructured().mask(np.full((2, 2), np.nan), 0.5), "fewer than that are numbers"),
        (lambda: NofM(2, 4).mask(np.ones((2, 4)), 0.9), "2:4 means a sparsity of 0.5, got 0.9"),
    ],
)
def test_refuses_scores_and_sparsities_that_mean_nothing(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()
