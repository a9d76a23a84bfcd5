from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxpress.calibration.feeds import open_feed
from onnxpress.passes.base import Workbench
from onnxpress.passes.equations import Pair
from onnxpress.passes.kernels.normal import Normal
from onnxpress.passes.kernels.vectors import cluster
from onnxpress.passes.selection import Layout
from onnxpress.passes.share.aims import Learnt
from onnxpress.passes.share.vectors import ShareVectors
from onnxpress.passes.staged import Staged
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites
from onnxpress.rewriter.weights import Produced, values_of


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def layer(build):
    """Builds a model of one layer."""

    def build_layer(shape=(64, 40), op="MatMul", dtype=np.float32):
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        node = helper.make_node(op, ["x", "w"], ["y"], name="layer")
        x = (1, shape[op == "Conv"], *[2 * size for size in shape[2:]])
        return build([node], {"w": normal(0, *shape).astype(dtype)}, x=x, dtype=kind)

    return build_layer


MIXING = normal(5, 6, 32)


def samples(count, seed=1, rows=24):
    """Inputs that depend on six causes."""
    return [normal(seed + n, rows, 6) @ MIXING + 0.1 * normal(99 + seed + n, rows, 32) for n in range(count)]


@pytest.fixture
def layers(two_layers):
    """x @ w + b -> Relu -> @ v + c -> y, 32 to 48 to 16."""
    return two_layers(w=normal(0, 32, 48), b=normal(1, 48), v=normal(2, 48, 16), c=normal(3, 16))


def distance(run, model, original):
    unseen = np.concatenate(samples(6, seed=50))
    wanted = run(original, unseen)[0]
    return float(np.linalg.norm(run(model, unseen)[0] - wanted) / np.linalg.norm(wanted))


def weight(model: Model, index: int = 0) -> np.ndarray:
    return find_sites(model)[index].array()


def bias(model: Model) -> np.ndarray:
    return model.array(next(each for each in model.constants() if each.name == "b"))


def vectors(model: Model, length: int) -> np.ndarray:
    """Distinct sub-vectors along the inputs."""
    site = find_sites(model)[0]
    return np.unique(Layout.of(site).to_rows(site.array()).reshape(-1, length), axis=0)


@pytest.mark.parametrize(("shape", "op", "length", "bits"), [((64, 40), "MatMul", 4, 4), ((24, 8, 3, 3), "Conv", 8, 3)])
def test_leaves_few_distinct_sub_vectors(layer, shape, op, length, bits):
    result = ShareVectors(length=length, bits=bits)(layer(shape, op))
    assert len(vectors(result.model, length)) == 2**bits
    (change,) = result.report.changes
    size, count = int(np.prod(shape)), 2**bits
    wanted = (size // length * bits + 32 * count * length) / size
    assert change.action == f"{count} vectors of {length}, {wanted:.2f} bits a weight"


def test_sub_vectors_of_an_embedding_lie_in_what_is_looked_up(build):
    nodes = [helper.make_node("Gather", ["w", "x"], ["y"], name="words")]
    model = build(nodes, {"w": normal(0, 101, 8)}, x=["n"], dtype=onnx.TensorProto.INT64, gives=onnx.TensorProto.FLOAT)
    result = ShareVectors(bits=3)(model)
    assert len(np.unique(weight(result.model).reshape(-1, 4), axis=0)) == 8


def test_says_why_an_embedding_learns_nothing(build):
    nodes = [helper.make_node("Gather", ["w", "x"], ["y"], name="words")]
    model = build(nodes, {"w": normal(0, 9000, 8)}, x=["n"], dtype=onnx.TensorProto.INT64, gives=onnx.TensorProto.FLOAT)
    feed = open_feed(iter([{"x": np.arange(7)}] * 2), inputs=model.inputs)
    (change,) = ShareVectors(bits=3)(model, Workbench(feed=feed, threads=1)).report.changes
    assert change.action.endswith(", without samples: Gather does not multiply rows of an activation by its weight")


def test_each_place_may_have_its_own_codebook(layer):
    errors = {}
    for per in ("subspace", "tensor"):
        result = ShareVectors(bits=3, per=per)(layer((16, 200)))
        errors[per] = result.report.changes[0].error
    rows = weight(ShareVectors(bits=3, per="subspace")(layer((16, 200))).model).T
    assert [len(np.unique(rows[:, at : at + 4], axis=0)) for at in range(0, 16, 4)] == [8] * 4
    assert errors["subspace"] < errors["tensor"]


def test_stages_are_added(layer):
    model = layer((64, 200))
    one, two = (ShareVectors(bits=4, stages=stages)(model).report.changes[0] for stages in (1, 2))
    assert two.error < 0.75 * one.error
    assert two.action.startswith("2 stages of 16 vectors of 4, ")
    assert len(vectors(ShareVectors(bits=2, stages=2)(model).model, 4)) <= 16


def test_error_is_that_of_the_weight(layer):
    model = layer()
    result = ShareVectors(bits=4)(model)
    before, after = weight(model).astype(float), weight(result.model).astype(float)
    expected = np.linalg.norm(before - after) / np.linalg.norm(before)
    assert result.report.changes[0].error == pytest.approx(expected, rel=1e-9)


def test_samples_teach_it_the_outputs(layers, bench, run):
    share = ShareVectors(bits=4)
    plain, learnt = share(layers), share(layers, bench(layers, *samples(12)))
    assert distance(run, learnt.model, layers) < distance(run, plain.model, layers) / 2
    for change in learnt.report.changes:
        assert "% on samples held out" in change.action
        assert " -> " in change.action
    assert len(vectors(learnt.model, 4)) <= 16


def test_a_layer_makes_up_for_those_before(layers, bench, run):
    """The second gets to see what the first became: its bias moves even where its own outputs were exact."""
    learnt = ShareVectors(bits=2, include=("first",))(layers, bench(layers, *samples(12))).model
    both = ShareVectors(bits=2)(layers, bench(layers, *samples(12))).model
    apart = ShareVectors(bits=2, include=("second",))(layers, bench(layers, *samples(12))).model
    # the second layer of `both`, quantized behind an exact first one, in place of its own
    second = find_sites(mixed := learnt.clone())[1]
    mixed.replace_weight(second.weight, weight(apart, 1))
    assert distance(run, both, layers) < distance(run, mixed, layers)


@pytest.mark.parametrize("per", ["tensor", "subspace"])
def test_samples_teach_grouped_convolutions(build, bench, run, per):
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", group=2, pads=[1, 1, 1, 1])
    model = build([node], {"w": normal(0, 64, 4, 3, 3)}, x=["n", 8, 6, 6])
    images = [np.cumsum(normal(n, 8, 8, 6, 6), axis=3) for n in range(4)]
    unseen = np.cumsum(normal(9, 8, 8, 6, 6), axis=3)
    share = ShareVectors(length=3, bits=3, per=per)
    results = share(model), share(model, bench(model, *images))
    plain, learnt = (np.linalg.norm(run(each.model, unseen)[0] - run(model, unseen)[0]) for each in results)
    assert learnt < 0.8 * plain


def test_few_tokens_are_varied(build, bench, run):
    """Of the layers alone: the table is looked up, and learns nothing from samples."""
    weights = {"t": normal(0, 400, 16) @ normal(1, 16, 48) + 0.3 * normal(2, 400, 48), "a": normal(3, 48, 64)}
    weights["b"] = normal(4, 64, 12)
    nodes = [
        helper.make_node("Gather", ["t", "x"], ["p"], name="words"),
        helper.make_node("MatMul", ["p", "a"], ["q"], name="first"),
        helper.make_node("Relu", ["q"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"], name="second"),
    ]
    model = build(nodes, weights, x=["n", "s"], dtype=onnx.TensorProto.INT64, gives=onnx.TensorProto.FLOAT)
    given = bench(model, *np.random.default_rng(0).integers(0, 400, (4, 2, 6)))
    unseen = np.random.default_rng(9).integers(0, 400, (400, 6))
    results = {vary: ShareVectors(bits=4, vary=vary, exclude=("words",))(model, given) for vary in (True, False)}
    off = {vary: np.square(run(each.model, unseen)[0] - run(model, unseen)[0]).sum() for vary, each in results.items()}
    assert off[True] < 0.85 * off[False]
    assert [len(each.report.warnings) for each in results.values()] == [1, 0]
    assert "96 variations of each teach, too" in results[True].report.warnings[0]


def test_what_cannot_be_observed_goes_without_samples(build, bench):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], name="layer"),
        helper.make_node("Neg", ["w"], ["z"], name="also"),
    ]
    model = build(nodes, {"w": normal(0, 32, 48)}, x=["n", 32], outputs=("y", "z"))
    (change,) = ShareVectors(bits=3)(model, bench(model, *samples(3))).report.changes
    assert change.action.endswith(", without samples: Neg 'also' reads its weight, too, so it must stay as it is")


def test_a_weight_that_is_too_large_to_fit_goes_without_samples(layers, bench, monkeypatch):
    monkeypatch.setattr("onnxpress.passes.share.vectors.SOLVED", 50_000)
    first, second = ShareVectors(bits=3)(layers, bench(layers, *samples(3))).report.changes
    assert first.action.endswith(", without samples: fitting codes to so many weights takes 0 GB")
    assert "held out" in second.action


def test_correction_can_be_left_out(layers, bench):
    plain, left_out = (
        ShareVectors(bits=3, correct=correct)(layers, given)
        for correct, given in ((True, None), (False, bench(layers, *samples(3))))
    )
    np.testing.assert_array_equal(weight(left_out.model), weight(plain.model))
    assert not any("samples" in change.action for change in left_out.report.changes)


def test_is_not_corrected_where_that_is_worse_on_samples_held_out(layers, bench, monkeypatch):
    """To fit: noise on few rows. Held out: what the layer gives."""

    def noisy(model, original, sites, bench):
        rows = weight(model).T
        few, many = normal(1, 1, 40, 32), normal(2, 1, 300, 32)
        fit = Normal.of(few, few @ rows.T + 9 * normal(3, 1, 40, 48) * np.abs(few @ rows.T))
        yield sites[0], Pair(fit, Normal.of(many, many @ rows.T))

    monkeypatch.setattr("onnxpress.passes.share.vectors.equations", noisy)
    result = ShareVectors(bits=3, include=("first",))(layers, bench(layers, *samples(4)))
    assert result.report.changes[0].action.endswith(" on samples held out, not corrected")
    assert len(vectors(result.model, 4)) == 8
    np.testing.assert_array_equal(bias(result.model), bias(layers))


def test_the_same_seed_gives_the_same_model(layers, bench):
    first, second = (
        ShareVectors(bits=3)(layers, bench(layers, *samples(4))).model.to_proto().SerializeToString() for _ in range(2)
    )
    assert first == second
    other = ShareVectors(bits=3)(layers, Workbench(seed=1)).model
    assert (weight(other) != weight(ShareVectors(bits=3)(layers).model)).any()


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_shares_other_floats(layer, dtype):
    result = ShareVectors(bits=3)(layer(dtype=dtype))
    assert weight(result.model).dtype == dtype
    assert len(vectors(result.model, 4)) == 8


@pytest.mark.parametrize("stages", [1, 2])
def test_promises_large_weights_instead_of_holding_them(layer, tmp_path, stages):
    model = layer((2048, 160))
    result = ShareVectors(bits=3, stages=stages)(model)
    assert isinstance(values_of(find_sites(result.model)[0].weight), Produced if stages == 1 else Staged)
    result.model.save(tmp_path / "out.onnx")
    loaded = Model.load(tmp_path / "out.onnx")
    assert len(vectors(loaded, 4)) <= 8**stages
    error = np.linalg.norm(weight(loaded) - weight(model)) / np.linalg.norm(weight(model))
    assert result.report.changes[0].error == pytest.approx(error, rel=1e-4)


def test_does_not_touch_the_model_it_is_given(layers, bench):
    before = layers.to_proto().SerializeToString()
    ShareVectors(bits=2)(layers, bench(layers, *samples(3)))
    assert layers.to_proto().SerializeToString() == before


def test_leaves_rows_that_the_length_does_not_divide(layer):
    (skip,) = ShareVectors(length=4)(layer((30, 40))).report.skips
    assert skip.reason == "each output has 30 weights, which sub-vectors of 4 do not divide"


def test_skips_what_saves_nothing(layer):
    (skip,) = ShareVectors(bits=8)(layer((32, 32))).report.skips
    assert skip.reason == (
        "sub-vectors of 4 save nothing: 1·8-bit codes and 256 vectors take 4352 bytes, the weight 4096"
    )


def test_twice_is_the_same_as_once(layer):
    share = ShareVectors(bits=3)
    once = share(layer()).model
    result = share(once)
    np.testing.assert_array_equal(weight(result.model), weight(once))
    assert result.report.skips[0].reason == "has no more than 8 distinct sub-vectors already"


def test_skips_weights_that_are_not_finite(build, bench):
    broken = normal(0, 32, 48)
    broken[3, 4] = np.inf
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": broken}, x=("n", 32))
    (skip,) = ShareVectors(bits=3)(model).report.skips
    assert skip.reason == "cannot cluster values that are not finite"
    (skip,) = ShareVectors(bits=3)(model, bench(model, *samples(4))).report.skips
    assert skip.reason == "cannot cluster values that are not finite"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 1}, "length must be a whole number of at least 2, got 1"),
        ({"length": 33}, "length must lie in 2 to 32, got 33"),
        ({"bits": 9}, "bits must lie in 1 to 8, got 9"),
        ({"bits": 2.0}, "bits must be a whole number of at least 1, got 2.0"),
        ({"stages": 5}, "stages must lie in 1 to 4, got 5"),
        ({"per": "channel"}, "per must be tensor or subspace, got 'channel'"),
        ({"correct": 1}, "correct must be true or false, got 1"),
        ({"vary": 1}, "vary must be true or false, got 1"),
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(ConfigError) as caught:
        ShareVectors(**options)
    assert str(caught.value) == f"share-vectors: {message}"


@pytest.mark.parametrize("exponent", [-140, -100, 60, 120])
def test_weights_of_extreme_magnitude_are_shared_as_well_as_others(layer, exponent):
    model = layer()
    model.replace_weight(find_sites(model)[0].weight, np.ldexp(normal(0, 64, 40), exponent))
    (change,) = ShareVectors(bits=5)(model).report.changes
    (usual,) = ShareVectors(bits=5)(layer()).report.changes
    # the smallest are subnormal, with few digits
    assert change.error == pytest.approx(usual.error, rel=1e-3 if exponent > -120 else 0.05)


def test_sub_vectors_no_better_than_zeros_are_refused(layers, bench, monkeypatch):
    def unlike(rows, **options):
        code = cluster(rows, **options)
        return replace(code, books=-2 * code.books)

    monkeypatch.setattr("onnxpress.passes.share.vectors.cluster", unlike)
    monkeypatch.setattr("onnxpress.passes.share.vectors.learn", lambda *_, **__: Learnt(None, None, 1.5, 1.2))
    for learning in (Workbench(), bench(layers, *samples(4))):
        report = ShareVectors(bits=3)(layers, learning).report
        assert report.changes == []
        assert all("zeros would do as well" in skip.reason for skip in report.skips)
        assert len(report.skips) == 2
