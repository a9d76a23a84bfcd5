"""Every layout times every coding, for every dtype that ONNX Runtime decodes: bits that are easily lost come back."""

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.encode.decode import decode
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.encode.evaluate import extract
from onnxpress.passes.encode.options import options
from onnxpress.passes.encode.parts import narrower, take_apart
from onnxpress.passes.encode.plans import CODE_BITS, DECODED, MOST_DISTINCT, Facts, Plan
from onnxpress.passes.encode.writer import Writer
from onnxpress.passes.kernels.packing import survey
from onnxpress.rewriter.evaluate import evaluate
from onnxpress.rewriter.model import Model

FLOATS = {name: np.dtype(getattr(ml_dtypes, name, name)) for name in ("float16", "bfloat16", "float32", "float64")}
NARROWER = {"float32": ("float16", "bfloat16"), "float64": ("float32", "float16")}
FEW = (0, 1, -2, 0.5, 7)


def special(dtype):
    """Both zeros, infinities, the smallest and the largest number, quiet and signalling NaNs with payloads."""
    kind, limits = np.dtype(f"u{dtype.itemsize}"), ml_dtypes.finfo(dtype)
    infinity = int(np.array(np.inf, dtype).view(kind))
    quiet = 1 << (limits.nmant - 1)
    sign = 1 << (8 * dtype.itemsize - 1)
    bits = [0, sign, 1, sign | 1, quiet - 1, infinity, sign | infinity, infinity - 1]
    bits += [infinity | 1, sign | infinity | 2, infinity | quiet, infinity | quiet | 5]
    return np.array(bits, kind).view(dtype)


def weight_of(dtype, shape, pool, density, seed):
    random, size = np.random.default_rng(seed), int(np.prod(shape))
    flat = pool[random.integers(0, pool.size, size)]
    flat[random.random(size) >= density] = np.zeros(1, dtype)
    return flat.reshape(shape)


def plans_of(array, *, huffman=True):
    wanted = tuple(FLOATS[name] for name in NARROWER.get(array.dtype.name, ()))
    facts = Facts(array.shape, array.dtype, survey(array, limit=MOST_DISTINCT), narrower(array, wanted), array.nbytes)
    found = [option.plan for option in options(facts, DECODED, huffman=huffman) if option.plan is not None]
    return [plan for plan in found if plan.steps in (0, 3)]  # other widths of steps differ in numbers only


def bits(array):
    return array.dtype, array.shape, array.tobytes()


def check_all(model, array, levels=(True, False)):
    """ONNX Runtime decodes each plan, all in one model, folded or not."""
    plans, weights = plans_of(array), []
    writer = Writer(model)
    for plan in plans:
        weights.append(gs.Variable(model.names.fresh("w"), array.dtype, list(array.shape)))
        writer.write(weights[-1], plan, take_apart(array, plan))
    for optimise in levels:
        results = evaluate(extract(model, weights), optimise=optimise) if weights else []
        assert [bits(each) for each in results] == [bits(array)] * len(plans)
    return plans


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    dtype=st.sampled_from(list(FLOATS.values())),
    shape=st.sampled_from([(1,), (1, 1), (7,), (8,), (3, 5), (2, 3, 4), (33, 2), (64, 9)]),
    specials=st.booleans(),
    density=st.sampled_from([0.0, 0.1, 0.7, 1.0]),
    seed=st.integers(0, 99),
)
def test_every_plan_gives_the_same_bits_back(make_model, dtype, shape, specials, density, seed):
    pool = special(dtype) if specials else np.array(FEW).astype(dtype)
    check_all(make_model({"w": np.ones((4, 4), np.float32)}), weight_of(dtype, shape, pool, density, seed))


@pytest.mark.parametrize("dtype", FLOATS.values(), ids=FLOATS)
def test_all_layouts_and_codings_are_among_those(make_model, dtype):
    model, found = make_model({"w": np.ones((4, 4), np.float32)}), set()
    for distinct in (1, 2, 4, 8, 16, 32, 64, 128, 200):
        pool = np.arange(1, distinct + 1).astype(dtype)
        for density in (1.0, 0.3):
            array = weight_of(dtype, (30, 31), pool, density, distinct)
            found |= set(check_all(model.clone(), array, levels=(False,)))
    # Expand, which `fill` and relative indices need, takes no bfloat16
    layouts = set(DECODED) if dtype.name != "bfloat16" else {"plain", "mask"}
    assert {plan.layout for plan in found} == layouts
    for layout in layouts - {"fill"}:
        codings = {plan.coding for plan in found if plan.layout == layout}
        assert codings >= {*CODE_BITS, "huffman"}, layout


def test_narrower_floats_are_among_those(make_model):
    model = make_model({"w": np.ones((4, 4), np.float32)})
    for name, narrow in NARROWER.items():
        array = weight_of(FLOATS[name], (30, 31), np.array(FEW).astype(FLOATS[name]), 0.5, 0)
        found = check_all(model.clone(), array)
        assert {Plan("plain", FLOATS[each]) for each in narrow} <= set(found)


@pytest.mark.parametrize("dtype", FLOATS.values(), ids=FLOATS)
def test_scalars_and_empty_tensors_have_no_plan_and_stay(make_model, dtype, tmp_path):
    for array in (np.array(3).astype(dtype), np.zeros((0,), dtype), np.zeros((4, 0, 3), dtype)):
        assert plans_of(array) == []
        model = make_model({"w": np.ones((4, 4), np.float32), "v": array})
        result = Encode(measure=False)(model)
        assert [c.site for c in result.report.changes] == []
        result.model.save(tmp_path / "model.onnx")
        back = decode(Model.load(tmp_path / "model.onnx")).model
        assert bits(back.array(next(c for c in back.constants() if c.name == "v"))) == bits(array)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    dtype=st.sampled_from(list(FLOATS.values())),
    shape=st.sampled_from([(40, 50), (1025,), (2, 3, 400)]),
    density=st.sampled_from([0.05, 0.4, 1.0]),
    huffman=st.booleans(),
)
def test_encode_and_decode_restore_odd_values_bit_for_bit(tmp_path_factory, make_model, dtype, shape, density, huffman):
    array = weight_of(dtype, shape, special(dtype), density, 1)
    model = make_model({"w": np.ones((4, 4), np.float32), "v": array})
    result = Encode(huffman=huffman, measure=False)(model)
    assert [change.site for change in result.report.changes if change.site != "w"]
    path = tmp_path_factory.mktemp("encoded") / "model.onnx"
    result.model.save(path)
    back = decode(Model.load(path)).model
    assert bits(back.array(next(c for c in back.constants() if c.name == "v"))) == bits(array)
