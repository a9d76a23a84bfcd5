"""A model is told layer by layer."""

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest

from onnxpress import Encode, Pipeline, ShareKMeans, survey
from onnxpress.inspection import _prune, count_distinct, inspect
from onnxpress.models import zoo
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites
from onnxpress.structure import Coupling
from onnxpress.terminal import brief

WIDE = 64
"""Neurons of the small model."""


@pytest.fixture
def parse_file(tmp_path):
    """A model file from the text of its graph, and the shapes of its weights."""

    def make(text, **shapes):
        proto = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 17]> ' + text)
        arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
        proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
        onnx.save(proto, tmp_path / "parsed.onnx")
        return tmp_path / "parsed.onnx"

    return make


def test_tells_layers_as_passes_see_them(model):
    found = inspect(model)
    first, second = found.layers  # the second weight comes out of its Constant node
    assert (first.name, first.op, first.shape, first.weights, first.nbytes) == ("first", "Gemm", (64, 8), 512, 2048)
    assert (second.name, second.multiply_adds) == ("second", 640)
    assert first.multiply_adds == 512
    assert found.open_dims == ("n",)
    assert (found.nodes_before, sum(found.nodes.values())) == (4, 3)
    assert found.other_bytes == 64 * 4
    assert found.nbytes == model.stat().st_size


def test_says_what_each_family_could_do_or_why_not():
    layers = {each.name: each for each in inspect(zoo.path("lenet5")).layers}
    gemm = layers["/5/Gemm"].options
    assert gemm["factorize"].text == "rank ≤ 307"  # 307·(500+800) < 500·800 ≤ 308·(500+800)
    assert gemm["quantize"].text == "int8"
    assert not gemm["encode"].possible


def test_ranks_of_recurrent_layers_and_tables(parse_file):
    path = parse_file(
        """g (int64[6, 1] x) => (float[6, 2, 1, 5] y) {
        t = Gather (table, x) y = LSTM <hidden_size = 5, direction = "bidirectional"> (t, w, r)
    }""",
        table=(30, 10),
        w=(2, 20, 10),
        r=(2, 20, 5),
    )
    table, inputs, state = (each.options["factorize"].text for each in inspect(path).layers)
    assert (table, inputs, state) == ("rank ≤ 7", "rank ≤ 7", "reads the state")  # 7·40 < 300; 7·(40+10) < 400


def test_sees_zeros_and_shared_values(model, tmp_path):
    loaded = Model.load(model)
    weight = next(each for each in loaded.constants() if each.name == "w")
    loaded.replace_weight(weight, np.repeat(np.array([0, 1, 2, 3], np.float32), 128).reshape(64, 8))
    loaded.save(tmp_path / "shared.onnx")
    layer = inspect(tmp_path / "shared.onnx").layers[0]
    assert (layer.zeros, layer.distinct) == (0.25, 4)
    assert layer.options["encode"].text == "2-bit codes"
    assert not layer.options["share"].possible


def test_counts_encoded_weights(model, tmp_path):
    result = Pipeline([ShareKMeans(bits=2), Encode()])(Model.load(model))
    result.model.save(tmp_path / "encoded.onnx")
    found = inspect(tmp_path / "encoded.onnx")
    assert (found.encoded, found.sparse) == (2, 1)  # the bias is zero


def test_distinct_values_are_counted_up_to_a_limit():
    assert count_distinct(np.arange(256.0)) == 256
    assert count_distinct(np.arange(257.0)) is None
    assert count_distinct(np.arange(100_000.0)) is None


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2])
def test_distinct_values_are_counted_although_some_are_no_numbers(dtype):
    # sorting leaves narrow types out of order then, and np.unique with them
    values = np.random.default_rng(0).choice([1.0, 2.0, 3.0, np.nan], 5000).astype(dtype)
    assert count_distinct(values) == 4


def test_negative_values_of_float16_are_counted_once():
    # NumPy does not always sort them
    random = np.random.default_rng(0)
    assert count_distinct(-random.random(3).astype(np.float16)[random.integers(0, 3, 61 * 37)]) == 3


def test_refuses_what_is_no_model(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        inspect(tmp_path / "none.onnx")


def test_tells_what_goes_together(model):
    (hidden,) = (each for each in inspect(model).couplings if each.frozen is None)
    assert (hidden.name, hidden.units, hidden.producers, hidden.consumers) == ("first", WIDE, ("first",), ("second",))
    assert hidden.nbytes == 4 * WIDE * (8 + 1 + 10)  # rows of w, the bias, rows of v
    parts = {(each.layer, each.axis, each.role, each.per_unit, each.size) for each in hidden.members}
    assert {("first", 0, "out", 1, WIDE), ("second", 0, "in", 1, WIDE), (None, 0, "parameter", 1, WIDE)} <= parts


def test_says_why_groups_are_frozen_and_which_units_a_layer_could_spare(model):
    found = inspect(model)
    assert {each.frozen for each in found.couplings if each.name == "second"} == {"'y' is an output of the model"}
    assert [each.options["prune"].text for each in found.layers] == [f"zeros, {WIDE} neurons", "zeros"]


def test_several_groups_of_the_same_size_are_counted(parse_file):
    text = "g (float[n, 64] x) => (float[n, 64] y) { y = MatMul(x, w) }"
    (site,) = find_sites(Model.load(parse_file(text, w=(64, 64))))
    groups = [Coupling(str(k), "neurons", units, (site.name,), (), 8, None, ()) for k, units in enumerate((32, 9, 32))]
    assert _prune(site, groups).text == "zeros, 2 × 32 neurons, 9 neurons"


def test_a_small_layer_can_still_lose_units():
    found = {each.name: each.options["prune"] for each in inspect(zoo.path("ppocr-cls")).layers}
    assert (found["Conv@3"].possible, found["Conv@3"].text) == (True, "2 channels")  # 16 weights


def test_weights_that_lose_elements_of_two_axes_are_counted_once(parse_file):
    # A depthwise weight has one axis of channels; a square one between tied inputs and outputs has two.
    path = parse_file(
        """g (float[1, 4] x) => (float[1, 2] y) {
        a = MatMul (x, first) b = MatMul (a, square) c = Add (a, b) y = MatMul (c, last)
    }""",
        first=(4, 6),
        square=(6, 6),
        last=(6, 2),
    )
    (group,) = (each for each in inspect(path).couplings if each.frozen is None)
    assert group.nbytes == 4 * (4 * 6 + 6 * 6 + 6 * 2)


def test_members_are_told_in_short():
    table = survey.couplings(
        [
            Coupling("a", "heads", 12, ("x" * 40, "b"), ("c",), 2000, None, ()),
            Coupling("b", "channels", 3, (), ("c",), 10, "'x' is an input of the model", ()),
        ]
    )
    assert table.title == "2 groups of coupled axes, 1 of which can be pruned"
    assert table.rows == [
        ["a", "heads", "12", "2 → 1: …" + "x" * 27 + ", … → c", "2.00 kB", ""],
        ["b", "channels", "3", "0 → 1: – → c", "10 B", "'x' is an input of the model"],
    ]


def test_names_that_no_line_holds_are_shortened(parse_file):
    text = "g (float[n, 64] x) => (float[n, 64] y) { y = MatMul(x, w) }"
    path = parse_file(text, w=(64, 64))
    proto = onnx.load(path)
    proto.graph.node[0].name = "fused;" * 40
    onnx.save(proto, path)
    found = inspect(path)
    _, layers, options = survey.tables_of(found)
    assert layers.rows[0][0] == options.rows[0][0] == brief(["fused;" * 40])[0]
    assert (
        layers.notes[0] == "names with … are longer: --json has them whole, and recipes take patterns such as `conv1*`"
    )
    assert found.layers[0].name == "fused;" * 40


def test_tells_of_sparse_initializers(parse_file, tmp_path):
    text = "g (float[n, 64] x) => (float[n, 64] y) { y = MatMul(x, w) }"
    model = Model.load(parse_file(text, w=(64, 64)))
    weight = np.zeros((64, 64), np.float32)
    weight[3, 4] = 1
    model.replace_weight(model.constants()[0], weight)
    Encode()(model).model.save(tmp_path / "sparse.onnx")
    found = inspect(tmp_path / "sparse.onnx")
    assert (found.sparse, found.encoded, found.other_bytes) == (1, 0, 0)
    assert found.layers[0].options["encode"].text == "sparse"
    assert any("1 weights are sparse initializers" in note for table in survey.tables_of(found) for note in table.notes)
