import numpy as np
import onnx
import pytest
from onnx import helper

from onnxpress.calibration.feeds import open_feed
from onnxpress.passes.base import Workbench
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.factorize.auto import Factorize
from onnxpress.passes.factorize.lookup import Counts, counts_of, metric_of
from onnxpress.passes.factorize.svd import FactorizeSVD
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.quantize.static import QuantizeStatic
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.sites import find_sites

FULL = FactorizeSVD(rank=10**6, always=True, embeddings=True)
INT64 = onnx.TensorProto.INT64
FLOAT = onnx.TensorProto.FLOAT
ROWS, WIDTH = 60, 12


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def embedding(build):
    """A table that is looked up, and what follows."""

    def make(*behind: onnx.NodeProto, ids=("n", 5), rows: int = ROWS, **weights):
        node = helper.make_node("Gather", ["w", "x"], ["t" if behind else "y"], name="table")
        return build([node, *behind], {"w": normal(rows, WIDTH), **weights}, x=ids, dtype=INT64, gives=FLOAT)

    return make


def tokens(*shape: int, seed: int = 0) -> np.ndarray:
    """The first eight rows nine times out of ten."""
    random = np.random.default_rng(seed)
    return np.where(random.random(shape) < 0.9, random.integers(0, 8, shape), random.integers(0, ROWS, shape))


@pytest.mark.parametrize("ids", [(), (4,), (2, 3, 4)])
@pytest.mark.parametrize("rows", [ROWS, 5])
def test_full_rank_reproduces_the_table(embedding, run, rows, ids):
    model = embedding(ids=ids, rows=rows)
    result = Pipeline([FULL])(model)
    assert [node.op for node in result.model.graph.nodes] == ["Gather", "MatMul"]
    x = np.random.default_rng(1).integers(-rows, rows, ids)
    np.testing.assert_allclose(run(result.model, x)[0], run(model, x)[0], rtol=1e-4, atol=1e-5)  # sums of twelve terms


def test_reports_what_it_saves_and_what_it_costs(embedding):
    (change,) = FactorizeSVD(rank=3, embeddings=True)(embedding()).report.changes
    assert change.action == "rank 3 of 12, 30.0% of the parameters, 36 multiply-adds a row"
    assert (change.bytes_before, change.bytes_after) == (2880, 864)
    values = np.linalg.svd(normal(ROWS, WIDTH).astype(float), compute_uv=False)
    assert change.error == pytest.approx(np.sqrt((values[3:] ** 2).sum() / (values**2).sum()), rel=1e-6)


def noise(run, model, result, x) -> float:
    wanted = run(model, x)[0]
    return float(np.square(run(result, x)[0] - wanted).sum() / np.square(wanted).sum())


def test_rows_count_by_how_often_they_are_looked_up(embedding, bench, run):
    model = embedding()
    split = FactorizeSVD(rank=4, embeddings=True, vary=False)
    learnt, plain = split(model, bench(model, *(tokens(4, 5, seed=seed) for seed in range(12)))), split(model)
    assert "error of the rows looked up" in learnt.report.changes[0].action
    x = tokens(200, 5, seed=99)
    assert noise(run, model, learnt.model, x) < 0.5 * noise(run, model, plain.model, x)
    every = np.arange(ROWS).reshape(-1, 5)
    assert noise(run, model, learnt.model, every) < 1.3 * noise(
        run, model, plain.model, every
    )  # never seen, still there


def test_a_table_for_which_samples_differ_too_much_is_not_corrected(embedding, bench):
    table = 1e-3 * normal(ROWS, WIDTH)
    table[np.arange(5), np.arange(5)] = [1, 1, 1, 1, 9]
    model = embedding(ids=(1, "n"), w=table)
    batches = [np.full((1, 400), [[0]]), np.array([[1, 2] * 200]), np.full((1, 400), 3), np.full((1, 400), 4)]
    (change,) = FactorizeSVD(rank=4, embeddings=True, vary=False)(model, bench(model, *batches)).report.changes
    assert change.action.endswith("not corrected on samples held out")


def test_counts_every_fourth_sample_apart(embedding, bench):
    model = embedding(ids=("n", 2))
    site = find_sites(model)[0]
    batches = [np.array([[0, 1], [2, 3], [4, -1]]), np.array([[7, 7], [0, 1]])]
    counts = counts_of(model, site, bench(model, *batches))
    assert np.flatnonzero(counts.held_out).tolist() == [7]
    assert {row: int(counts.fit[row]) for row in np.flatnonzero(counts.fit)} == {0: 2, 1: 2, 2: 1, 3: 1, 4: 1, 59: 1}
    assert counts.total.sum() == 10


def test_the_error_without_samples_held_out_is_that_of_all(random):
    counts = Counts(np.array([3.0, 0.0]), np.zeros(2))
    rows = random.standard_normal((5, 2))
    np.testing.assert_array_equal(metric_of(counts.total), [[4, 1]])
    expected = np.linalg.norm(rows[:, 0]) * 2 / np.sqrt(4 * np.square(rows[:, 0]).sum() + np.square(rows[:, 1]).sum())
    assert counts.error(rows, rows * [0, 1]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("counts", "each"), [([5, 1, 1, 0, 0, 0, 0, 0], 2 / 5), ([5, 5, 0, 0], 1 / 2), ([1, 1, 1, 0], 1), ([2, 3], 1)]
)
def test_rows_never_seen_weigh_together_what_those_seen_once_do(counts, each):
    np.testing.assert_allclose(metric_of(np.array(counts, float)), [np.array(counts) + each], rtol=1e-12)


def test_constant_indices_count_and_several_look_ups_add_up(build, bench):
    nodes = [
        helper.make_node("Gather", ["w", "x"], ["a"], name="one"),
        helper.make_node("Gather", ["w", "ids"], ["b"], name="two"),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    weights = {"w": normal(ROWS, WIDTH), "ids": np.array([3, 3])}
    model = build(nodes, weights, x=("n", 2), dtype=INT64, gives=FLOAT)
    counts = counts_of(model, find_sites(model)[0], bench(model, np.array([[1, 2]])))
    assert (counts.total[3], counts.total[1], counts.total.sum()) == (2, 1, 4)


def refusal(model, **options) -> str:
    report = FactorizeSVD(rank=3, **{"embeddings": True, **options})(model).report
    assert report.changes == []
    (skip,) = [each for each in report.skips if each.site == "table"]
    return skip.reason


def test_tables_stay_unless_asked_for(embedding):
    reason = "is an embedding: a look-up needs no multiply-adds, its factors would"
    assert refusal(embedding(), embeddings=False) == reason


def test_refuses_a_table_that_is_multiplied_too(embedding):
    tied = helper.make_node("Gemm", ["t", "w"], ["y"], name="out", transB=1)
    reason = refusal(embedding(tied, ids=("n",)))
    assert reason == "is shared by Gather 'table' and Gemm 'out', which read it in different ways"


def test_refuses_a_table_that_is_transposed_too(embedding):
    tied = [helper.make_node("Transpose", ["w"], ["v"], name="turn"), helper.make_node("MatMul", ["t", "v"], ["y"])]
    assert refusal(embedding(*tied)) == "Transpose 'turn' reads its table, too, which would have to stay beside it"


@pytest.mark.parametrize(
    ("shape", "axis", "reason"),
    [
        ((40, 30), 1, "looks up along axis 1: only rows of a table, axis 0, are split"),
        ((4, 6, 5), 0, "looks up in an array of 3 axes: only tables of two are split"),
    ],
)
def test_refuses_other_look_ups(build, shape, axis, reason):
    node = helper.make_node("Gather", ["w", "x"], ["y"], name="table", axis=axis)
    assert refusal(build([node], {"w": normal(*shape)}, x=(2,), dtype=INT64, gives=FLOAT)) == reason


def test_refuses_what_saves_nothing(embedding):
    assert refusal(embedding(rows=4)) == "rank 3 saves nothing: 3·(4+12) ≥ 4·12"


def test_refuses_what_is_neither_true_nor_false():
    with pytest.raises(ConfigError, match="factorize-svd: embeddings must be true or false, got 'yes'"):
        FactorizeSVD(rank=3, embeddings="yes")


@pytest.fixture
def reader(embedding):
    """A table of low rank and a product behind it."""
    low = normal(ROWS, 3) @ normal(3, WIDTH, seed=1) + 1e-3 * normal(ROWS, WIDTH, seed=2)
    return embedding(helper.make_node("MatMul", ["t", "v"], ["y"], name="fc"), w=low, v=normal(WIDTH, 8, seed=3))


@pytest.fixture
def samples(reader):
    """Batches of tokens."""
    batches = [{"x": tokens(8, 5, seed=seed)} for seed in range(12)]
    return Workbench(feed=open_feed(batches, inputs=reader.inputs), threads=1)


def test_factorize_splits_tables_where_size_is_the_goal(reader, samples, run, clock):
    clock()
    result = Factorize(ratio=0.6, goal="size", vary=False)(reader, samples)
    assert "table" in {change.site for change in result.report.changes}
    assert noise(run, reader, result.model, tokens(50, 5, seed=7)) < 1e-4  # 40 dB: the table is of rank 3, nearly


def test_factorize_leaves_tables_where_speed_is_the_goal(reader, samples, clock):
    clock()
    report = Factorize(min_sqnr=20.0, vary=False)(reader, samples).report
    reasons = {skip.site: skip.reason for skip in report.skips}
    assert reasons["table"] == "is an embedding: a look-up needs no multiply-adds, its factors would"


def test_refuses_nothing_but_look_ups_where_speed_is_the_goal():
    with pytest.raises(ConfigError, match="factorize: scheme lookup is for goal size"):
        Factorize(min_sqnr=20.0, schemes=["lookup"])


def test_narrow_tables_are_quantized_and_encoded(reader, samples, run):
    split = FactorizeSVD(rank=3, embeddings=True, include=("table",))
    result = Pipeline([split, QuantizeStatic(), Encode()])(reader, samples)
    assert result.model.weight_bytes() < reader.weight_bytes() / 2
    assert noise(run, reader, result.model, tokens(50, 5, seed=7)) < 3e-3  # 25 dB
