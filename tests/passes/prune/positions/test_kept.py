"""Positions of one Conv that stay, with equations or without."""

import numpy as np
import pytest
from onnx import helper

from onnxpress.passes.equations import Pair
from onnxpress.passes.kernels.normal import Normal
from onnxpress.passes.prune.positions.kept import KeptRule, prune_site
from onnxpress.passes.selection import RefusalError
from onnxpress.rewriter.sites import find_sites

WEIGHT = np.random.default_rng(0).standard_normal((4, 2, 3, 3)).astype(np.float32)


@pytest.fixture
def model(build):
    return build([helper.make_node("Conv", ["x", "w"], ["y"], name="conv")], {"w": WEIGHT}, x=("n", 2, 8, 8))


def rule(**options):
    chosen = {"positions": None, "sparsity": None, "error": None, "per_channel": False, "box": False}
    return KeptRule(**{**chosen, "moments": True, "refit": True, **options})


def pair(*, held_out=1.0):
    """Equations of rows whose columns all tell of one another; held-out outputs are others by that factor."""
    draw = np.random.default_rng(1)
    mix = draw.standard_normal((3, 18))
    normals = []
    for factor in (1.0, held_out):
        x = (draw.standard_normal((200, 3)) @ mix + 0.01 * draw.standard_normal((200, 18)))[np.newaxis]
        normals.append(Normal.of(x, factor * x @ WEIGHT.reshape(4, -1).T))
    return Pair(*normals)


def pruned(model, given, **options):
    (site,) = find_sites(model)
    kept = prune_site(model, site, rule(**options), given)
    return kept, find_sites(model)[0].array()


def test_without_equations_positions_go_by_size(model):
    kept, weight = pruned(model, None, positions=4)
    size = np.square(WEIGHT.astype(np.float64)).sum(axis=(0, 1)).ravel()
    assert kept.action == "keeps 4 of 9 positions"
    assert sorted(np.flatnonzero(weight.any(axis=(0, 1)))) == sorted(np.argsort(size)[-4:])
    np.testing.assert_array_equal(weight[:, kept.mask], WEIGHT[:, kept.mask])


def test_the_reason_why_there_are_no_equations_is_told(model):
    kept, _ = pruned(model, RefusalError("it lies in a branch"), positions=4)
    assert kept.action == "keeps 4 of 9 positions; by the size of weights, not refitted: it lies in a branch"


def test_what_is_kept_is_refitted_where_the_samples_held_out_agree(model):
    kept, weight = pruned(model, pair(), positions=4)
    assert " before refitting" in kept.action
    assert not weight[:, ~kept.mask].any()
    assert not np.allclose(weight[:, kept.mask], WEIGHT[:, kept.mask], rtol=1e-3, atol=0)


def test_what_is_kept_stays_as_it_is_where_they_do_not(model):
    kept, weight = pruned(model, pair(held_out=-3.0), positions=4)
    assert kept.action.endswith(", which refitting does not lower")
    np.testing.assert_array_equal(weight[:, kept.mask], WEIGHT[:, kept.mask])


def test_without_refitting_the_error_is_told(model):
    kept, weight = pruned(model, pair(), positions=4, refit=False)
    assert "; output error " in kept.action
    np.testing.assert_array_equal(weight[:, kept.mask], WEIGHT[:, kept.mask])


def test_samples_that_are_no_numbers_are_a_reason(model):
    one = pair()
    spoilt = Pair(one.fit, Normal.of(np.full((1, 5, 18), np.inf), np.full((1, 5, 4), np.inf)))
    with np.errstate(invalid="ignore"):
        kept, _ = pruned(model, spoilt, positions=4)
    assert kept.action.endswith("; not refitted: weights or rows are not finite")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"positions": 9}, "its kernel has 9 positions, no more than the 9 to keep"),
        ({"sparsity": 0.01}, "sparsity 0.01 of 9 positions is none"),
        ({"error": 1e-6}, "without any one position the error is"),
        ({"error": 1e-6, "per_channel": True}, "without any one position the error is"),
        ({"error": 1e-6, "box": True}, "no box of fewer positions stays within an error of 1e-06"),
    ],
)
def test_refuses_where_nothing_may_go(model, options, reason):
    with pytest.raises(RefusalError) as caught:
        pruned(model, None, **options)
    assert str(caught.value).startswith(reason)
    np.testing.assert_array_equal(find_sites(model)[0].array(), WEIGHT)
