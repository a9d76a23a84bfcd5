import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.encode.costs import ARGUMENT, CALL, NAMED, TENSOR, cost
from onnxpress.passes.encode.evaluate import extract
from onnxpress.passes.encode.options import options
from onnxpress.passes.encode.parts import narrower, take_apart
from onnxpress.passes.encode.plans import DECODED, MOST_DISTINCT, Facts, Plan
from onnxpress.passes.encode.writer import Writer
from onnxpress.passes.kernels.huffman import BLOCK
from onnxpress.passes.kernels.packing import survey
from onnxpress.rewriter.evaluate import evaluate

OPSETS = (11, 12, 13, 17, 21, 24)
NARROW = tuple(np.dtype(d) for d in ("float16", "float32", ml_dtypes.bfloat16))


def plans_for(array, *, bfloat16=False):
    dtypes = tuple(d for d in NARROW if d.itemsize < array.dtype.itemsize and (bfloat16 or d != NARROW[2]))
    narrow = narrower(array, dtypes) if array.dtype.kind == "f" else ()
    facts = Facts(array.shape, array.dtype, survey(array, limit=MOST_DISTINCT), narrow, array.nbytes)
    # steps of other widths differ in numbers only
    found = [option.plan for option in options(facts, DECODED) if option.plan is not None]
    return [plan for plan in found if plan.steps in (0, 2, 5)]


def decode_in_onnxruntime(model, array, plans, *, optimise):
    writer, weights = Writer(model), []
    for plan in plans:
        weights.append(gs.Variable(model.names.fresh("weight"), array.dtype, list(array.shape)))
        writer.write(weights[-1], plan, take_apart(array, plan))
    return evaluate(extract(model, weights), optimise=optimise) if weights else []


def assert_every_plan_round_trips(model, array, **options_of):
    plans = plans_for(array, **options_of)
    # alone, so that none leans on the parts of another; then all in one model, where they share
    few = [plan for plan in plans if plan.steps == 0 or plan.coding in (None, 3, "huffman")]
    alone = [decode_in_onnxruntime(model.clone(), array, [plan], optimise=True)[0] for plan in few]
    together = decode_in_onnxruntime(model.clone(), array, plans, optimise=False)
    for plan, result in zip([*few, *plans], [*alone, *together], strict=True):
        assert (result.dtype, result.shape) == (array.dtype, array.shape), plan
        assert result.tobytes() == array.tobytes(), plan
    return plans


@settings(max_examples=30)
@given(
    dtype=st.sampled_from(["float16", "float32", "float64", "int8", "uint8", "uint16"]),
    opset=st.sampled_from(OPSETS),
    shape=st.lists(st.integers(1, 9), min_size=0, max_size=4).map(tuple),
    density=st.sampled_from([0.0, 0.02, 0.1, 0.5, 0.9, 1.0]),
    distinct=st.sampled_from([1, 2, 4, 5, 16, 17, 200, None]),
    seed=st.integers(0, 9),
)
def test_every_plan_that_fits_gives_the_same_bits(
    make_model, make_weight, dtype, opset, shape, density, distinct, seed
):
    array = make_weight(shape, density=density, distinct=distinct, dtype="float64", seed=seed)
    array = np.clip(array, 0 if dtype.startswith("u") else -100, 100).astype(dtype)
    model = make_model({"w": np.ones((4, 4), np.float32)}, opset=opset, ir_version=8)
    assert_every_plan_round_trips(model, array)


@pytest.mark.parametrize("size", [*range(1, 11), 15, 17, 256, 1000])
def test_sizes_that_do_not_fill_whole_bytes(make_model, make_weight, size):
    model = make_model({"w": np.ones((4, 4), np.float32)})
    for density in (0.03, 0.3, 0.8):
        assert_every_plan_round_trips(model, make_weight((size,), density=density, distinct=2, seed=size))


@pytest.mark.parametrize("opset", [13, 17, 21])
def test_bfloat16_has_codes_and_masks(make_model, make_weight, opset):
    model = make_model({"w": np.ones((4, 4), np.float32)}, opset=opset)
    array = make_weight((7, 11), density=0.4, distinct=5, dtype=ml_dtypes.bfloat16)
    plans = assert_every_plan_round_trips(model, array)
    assert {plan.layout for plan in plans} == {"plain", "mask"}


def test_float32_that_is_bfloat16_or_float16_is_widened(make_model, make_weight):
    model = make_model({"w": np.ones((4, 4), np.float32)})
    array = make_weight((40, 40), dtype=ml_dtypes.bfloat16).astype(np.float32)
    plans = assert_every_plan_round_trips(model, array, bfloat16=True)
    assert Plan("plain", np.dtype(ml_dtypes.bfloat16)) in plans
    halves = make_weight((40, 40), dtype=np.float16).astype(np.float64)
    plans = assert_every_plan_round_trips(model, halves)
    assert {Plan("plain", np.dtype("float16")), Plan("plain", np.dtype("float32"))} <= set(plans)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_negative_zeros_infinities_and_payloads_of_nans_survive(make_model, dtype):
    model = make_model({"w": np.ones((4, 4), np.float32)})
    size = np.dtype(dtype).itemsize
    bits = np.random.default_rng(0).integers(0, 2 ** (8 * size), 12, dtype=f"u{size}")
    odd = np.array([-0.0, 0.0, np.inf, -np.inf, np.nan, -np.nan], dtype)
    nan = np.array([np.nan], dtype).view(f"u{size}") | np.arange(1, 5).astype(f"u{size}")
    pool = np.concatenate([odd, bits.view(dtype), nan.view(dtype), np.finfo(dtype).smallest_subnormal[None]])
    array = np.zeros(900, dtype)
    array[::7] = np.resize(pool, array[::7].size)
    plans = assert_every_plan_round_trips(model, array)
    assert {plan.layout for plan in plans} == {"plain", "mask", "gaps4", "gaps8", "gaps"}


def test_gaps_longer_than_a_step_are_bridged(make_model):
    model = make_model({"w": np.ones((4, 4), np.float32)})
    array = np.zeros((50, 100), np.float32)
    array.reshape(-1)[[0, 1, 15, 16, 31, 290, 545, 800, 4999]] = np.arange(1, 10)
    assert_every_plan_round_trips(model, array)


@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7])
@pytest.mark.parametrize("distinct", [2, 257])
def test_huffman_codes_of_all_lengths_in_blocks(make_model, size, distinct):
    model = make_model({"w": np.ones((4, 4), np.float32)})
    random = np.random.default_rng(size)
    array = np.minimum(random.geometric(0.5 if distinct == 2 else 0.2, size) - 1, distinct - 1).astype(np.float32)
    array[:distinct] = np.arange(distinct)
    assert Plan("plain", "huffman") in assert_every_plan_round_trips(model, array)


@pytest.mark.parametrize("layout", [Plan("plain", "huffman"), Plan("gaps", "huffman", 4), Plan("gaps4", "huffman")])
def test_predicted_bytes_are_those_of_the_stored_arrays(make_model, make_weight, layout):
    array = make_weight((90, 101), density=0.2, distinct=14)
    facts = Facts(array.shape, array.dtype, survey(array, limit=MOST_DISTINCT), (), array.nbytes)
    model = make_model({"w": np.ones((4, 4), np.float32)})
    nodes = len(model.graph.nodes)
    Writer(model).write(gs.Variable("v", array.dtype, [90, 101]), layout, take_apart(array, layout))
    calls = model.graph.nodes[nodes:]
    constants = {id(t): t for n in calls if n.op != "Digits" for t in n.inputs if isinstance(t, gs.Constant)}
    shared = (np.zeros(1, np.float32), np.array([-1]), np.arange(16, dtype=np.uint8))
    arrays = [model.array(c) for c in constants.values()]
    own = [a for a in arrays if not any(a.dtype == b.dtype and np.array_equal(a, b) for b in shared)]
    calls = [n for n in calls if n.op != "Digits"]
    names = sum(CALL + ARGUMENT * len(n.inputs) for n in calls) + TENSOR * len(own) + NAMED + 8
    assert cost(facts, layout)[0] == sum(a.nbytes for a in own) + names


def test_shared_parts_are_written_once(make_model, make_weight):
    model = make_model({"w": np.ones((4, 4), np.float32)})
    writer = Writer(model)
    for seed in range(3):
        array = make_weight((16, 16), density=0.3, distinct=3, seed=seed)
        for plan in (Plan("plain", 2), Plan("mask", 2), Plan("gaps4", 2)):
            writer.write(gs.Variable(f"w{seed}{plan}", array.dtype, [16, 16]), plan, take_apart(array, plan))
    calls = [node.op for node in model.graph.nodes]
    assert calls.count("Digits") == 3
    assert calls.count("Ranks") == 1
    assert sorted(f.name for f in model.functions) == ["Codes", "Digits", "Gaps", "Mask", "Ranks"]
    arrays = [model.array(c) for c in model.constants()]
    for shared in (np.zeros(1, np.float32), np.array([-1]), np.array([16, 16]), np.arange(16, dtype=np.uint8)):
        assert sum(a.dtype == shared.dtype and np.array_equal(a, shared) for a in arrays) == 1


def test_names_of_parts_are_short_and_clash_with_none(make_model, make_weight):
    model = make_model({"a": np.ones((4, 4), np.float32), "b": np.ones((4, 4), np.float32)})
    writer = Writer(model)
    for seed in range(30):
        array = make_weight((16, 16), distinct=3, seed=seed)
        plan = Plan("plain", "huffman")
        writer.write(gs.Variable(f"w{seed}", array.dtype, [16, 16]), plan, take_apart(array, plan))
    names = [c.name for c in model.constants()]
    assert len(set(names)) == len(names) > 100
    assert max(map(len, names)) <= 3
