import numpy as np
import pytest

from onnxpress.rewriter.couplings import find_couplings, reasons_to_stay, reorder_units
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.model import Model


def f32(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def test_every_constant_has_the_new_order(model: Model, run) -> None:
    before = {constant.name: model.array(constant).copy() for constant in model.constants()}
    wanted, order = run(model, x=f32(2, 4)), np.array([3, 0, 1, 5, 4, 2])
    reorder_units(model, {find_couplings(model).by_name("w"): order})
    after = {constant.name: model.array(constant) for constant in model.constants()}
    np.testing.assert_array_equal(after["w"], before["w"][:, order])
    np.testing.assert_array_equal(after["b"], before["b"][order])
    np.testing.assert_array_equal(after["last"], before["last"][order])
    # sums of six float32 in another order
    np.testing.assert_allclose(run(model, x=f32(2, 4))[0], wanted[0], rtol=1e-5, atol=1e-6)


def test_the_groups_fit_the_model_afterwards(model: Model) -> None:
    group, before = find_couplings(model).by_name("w"), model.clone()
    order = np.array([3, 0, 1, 5, 4, 2])
    reorder_units(model, {group: order})
    reorder_units(model, {group: np.argsort(order)})
    for old, new in zip(before.constants(), model.constants(), strict=True):
        np.testing.assert_array_equal(before.array(old), model.array(new))


def test_refuses_frozen_groups_and_what_is_no_order(model: Model) -> None:
    couplings = find_couplings(model)
    with pytest.raises(ModelError, match="output of the model"):
        reorder_units(model, {couplings.by_name("last"): np.arange(3)})
    for order in (np.array([0, 1, 2]), np.array([0, 0, 1, 2, 3, 4]), np.arange(6) + 0.5):
        with pytest.raises(ModelError, match="each of its 6 units once"):
            reorder_units(model, {couplings.by_name("w"): order})


def test_refuses_groups_of_another_model(model: Model) -> None:
    group = find_couplings(model.clone()).by_name("w")
    with pytest.raises(ModelError, match="find its couplings again"):
        reorder_units(model, {group: np.arange(6)[::-1]})


def test_elements_that_are_tied_in_a_circle_cannot_change_places(parse) -> None:
    """0 -> 1 -> 2 -> 0 and 3 -> 5 -> 4 -> 3 are units of three each, but go round in opposite directions."""
    model = parse(
        "g (float[2,4] x) => (float[2,3] y) <int64[6] turn = {1, 2, 0, 5, 3, 4}> "
        "{ h = MatMul(x, w) t = Gather<axis=1>(h, turn) s = Add(h, t) y = MatMul(s, last) }",
        w=f32(4, 6),
        last=f32(6, 3),
    )
    group = find_couplings(model).by_name("w")
    assert (group.size, group.frozen) == (2, None)
    before = model.clone()
    (reason,) = reasons_to_stay(model, [group]).values()
    assert "cannot change places" in reason
    with pytest.raises(ModelError, match="cannot change places"):
        reorder_units(model, {group: np.array([1, 0])})
    for old, new in zip(before.constants(), model.constants(), strict=True):
        np.testing.assert_array_equal(before.array(old), model.array(new))


def test_says_why_frozen_groups_stay(model: Model) -> None:
    couplings = find_couplings(model)
    stay = reasons_to_stay(model, couplings.groups)
    assert couplings.by_name("w") not in stay
    assert "output of the model" in stay[couplings.by_name("last")]
