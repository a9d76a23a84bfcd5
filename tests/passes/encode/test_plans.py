import numpy as np
import pytest

from onnxpress.passes.encode.loads import Load
from onnxpress.passes.encode.options import Option, options
from onnxpress.passes.encode.plans import MOST_DISTINCT, Facts, Plan
from onnxpress.passes.kernels.packing import survey


def facts(array, narrow=()):
    return Facts(array.shape, array.dtype, survey(array, limit=MOST_DISTINCT), narrow, array.nbytes)


def smallest(array, narrow=()):
    return str(min(options(facts(array, narrow)), key=lambda o: o.nbytes).plan)


@pytest.mark.parametrize(
    ("density", "distinct", "expected"),
    [
        (1.0, 1, "one value"),
        (1.0, 2, "codes of 1 bit"),
        (1.0, 4, "codes of 2 bits"),
        (1.0, 16, "codes of 4 bits"),
        (1.0, 200, "Huffman codes"),
        (1.0, None, "None"),
        (0.6, None, "bit mask"),
        (0.6, 16, "bit mask, codes of 4 bits"),
        (0.6, 256, "bit mask, codes of 8 bits"),
        (0.1, None, "Huffman-coded gaps below 128"),
        (0.1, 15, "Huffman-coded gaps below 128, codes of 4 bits"),
        (0.01, 15, "gaps of 8 bits, codes of 4 bits"),
        (0.01, None, "gaps of 8 bits"),
        (0.0, None, "sparse initializer"),
    ],
)
def test_the_smallest_plan_is_the_one_to_expect(make_weight, density, distinct, expected):
    assert smallest(make_weight((128, 256), density=density, distinct=distinct)) == expected


def test_narrower_floats_win_where_elements_differ(make_weight):
    half = (np.dtype("float16"),)
    assert smallest(make_weight((64, 64), dtype="float16").astype("float32"), half) == "float16 values"
    sparse = make_weight((64, 64), density=0.1, dtype="float16").astype("float32")
    assert smallest(sparse, half) == "Huffman-coded gaps below 64, float16 values"
    assert smallest(make_weight((256, 256), density=0.1, dtype="float16").astype("float32"), half) == (
        "Huffman-coded gaps below 128, float16 values"
    )


def test_dense_comes_first_and_alone_where_nothing_fits(make_weight):
    assert options(facts(make_weight((30, 30)))) == [Option(None, 3600 + 24 + 6)]


def test_a_code_is_narrower_than_what_it_stands_for(make_weight):
    array = np.random.default_rng(0).integers(-100, 100, (64, 64)).astype(np.int8)
    plain = [o.plan for o in options(facts(array)) if o.plan and o.plan.layout == "plain"]
    assert plain == [Plan("plain", "huffman")]


def test_a_mask_needs_no_code_for_zero(make_weight):
    array = make_weight((64, 64), density=0.5, distinct=16)
    plans = [o.plan for o in options(facts(array))]
    assert Plan("mask", 4) in plans
    assert Plan("gaps4", 4) not in plans


@pytest.mark.parametrize("density", [1.0, 0.4, 0.05])
def test_skewed_values_take_no_more_than_their_entropy_and_a_twentieth(density):
    random = np.random.default_rng(0)
    codes = np.clip(np.round(random.standard_normal((400, 400)) * 2), -7, 8)
    array = np.where(random.random(codes.shape) < density, np.where(codes == 0, 9, codes), 0).astype(np.float32)
    share = np.unique(array, return_counts=True)[1] / array.size
    entropy = -(share * np.log2(share)).sum() * array.size / 8
    best = min(options(facts(array)), key=lambda o: o.nbytes)
    assert best.plan.coding == "huffman"
    assert entropy < best.nbytes < 1.05 * entropy + 600  # names, calls, the book


def test_steps_beyond_the_longest_gap_are_not_tried(make_weight):
    array = np.zeros((64, 64), np.float32)
    array[:, ::10] = 1
    assert {o.plan.steps for o in options(facts(array)) if o.plan and o.plan.layout == "gaps"} == {2, 3, 4}


def test_huffman_codes_may_be_left_out(make_weight):
    array = make_weight((128, 256), density=0.1, distinct=15)
    plans = [o.plan for o in options(facts(array), huffman=False) if o.plan]
    assert plans
    assert not [p for p in plans if p.coding == "huffman" or p.layout == "gaps"]


def test_huffman_codes_take_more_memory_to_load(make_weight):
    found = {o.plan: o.load for o in options(facts(make_weight((128, 128), density=0.3, distinct=15)))}
    assert found[None] == Load()
    order = [found[plan] for plan in (Plan("gaps8", 4), Plan("mask", 4), Plan("gaps", "huffman", 5))]
    assert sorted(order, key=lambda each: each.nbytes) == sorted(order, key=lambda each: each.seconds) == order


@pytest.mark.parametrize(("distinct", "bits"), [(2, 1), (4, 2), (8, 3), (16, 4), (32, 5), (64, 6), (128, 7), (256, 8)])
def test_codes_are_as_narrow_as_the_number_of_values_allows(distinct, bits):
    array = np.resize(np.arange(1, distinct + 1, dtype=np.float32), (128, 256))
    found = options(facts(array), huffman=False)
    assert min(found, key=lambda o: o.nbytes).plan == Plan("plain", bits)


def test_codes_in_more_parts_take_longer_to_load():
    codes = np.arange(4096) % 128
    found = {o.plan: o.load for o in options(facts(codes.reshape(64, 64).astype(np.float32)))}
    eight, seven = found[Plan("plain", 8)], found[Plan("plain", 7)]
    assert eight.nbytes < seven.nbytes
    assert eight.seconds < seven.seconds


@pytest.mark.parametrize("density", [0.02, 0.1, 0.4, 1.0])
@pytest.mark.parametrize("distinct", [3, 30, 200])
def test_few_plans_hold_one_about_as_small_as_all(make_weight, density, distinct):
    known = facts(make_weight((96, 96), density=density, distinct=distinct))
    every, few = options(known), options(known, brief=True)
    assert min(each.nbytes for each in few) <= 1.01 * min(each.nbytes for each in every)
    assert len(few) < len(every) or density == 1
