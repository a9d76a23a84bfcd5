"""Smaller files that compute the same, bit for bit."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxpress.calibration.feeds import open_feed
from onnxpress.calibration.session import Runner
from onnxpress.models import zoo
from onnxpress.passes.encode.decode import decode
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.encode.folding import undecoded_nodes
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.prune.zeros.magnitude import PruneMagnitude
from onnxpress.passes.share.kmeans import ShareKMeans
from onnxpress.passes.strip import Strip
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites


def outputs(path, inputs):
    with Runner(path, threads=1) as runner:
        return runner.run(inputs)


@pytest.fixture(scope="module")
def small():
    """LeNet-5 with few zeros and values left, encoded."""
    passes = [PruneMagnitude(sparsity=0.9), ShareKMeans(bits=4), Encode()]
    return Pipeline(passes)(Model.load(zoo.path("lenet5"))).model


@pytest.mark.parametrize("name", ["lenet5", "ppocr-cls", "silero-vad"])
def test_models_compute_the_same_and_are_smaller(name, tmp_path):
    model = Pipeline([ShareKMeans(bits=4), Encode()])(Model.load(zoo.path(name))).model
    result = Strip()(model)
    before, after = tmp_path / "before.onnx", tmp_path / "after.onnx"
    assert result.model.save(after) < model.save(before)
    onnx.checker.check_model(after)
    feed = open_feed(zoo.ZOO[name].feed, inputs=model.inputs, limit=1)
    inputs = next(iter(feed))
    wanted, found = outputs(before, inputs), outputs(after, inputs)
    assert list(wanted) == list(found)
    for each in wanted:
        np.testing.assert_array_equal(found[each], wanted[each])
    assert undecoded_nodes(after) == []
    (skip,) = Strip()(result.model).report.skips
    assert skip.reason == "there is nothing left to take out"


def test_says_what_tensors_were_called(small):
    before = [name for node in small.to_proto().graph.node for name in node.output]
    result = Strip()(small)
    after = [name for node in result.model.to_proto().graph.node for name in node.output]
    assert [result.report.renamed.get(name, name) for name in after] == before
    assert set(result.report.renamed) == {new for new, old in zip(after, before, strict=True) if new != old} != set()
    assert Strip(names=False)(small).report.renamed == {}


def test_the_graph_of_a_small_model_takes_little(small, tmp_path):
    path = tmp_path / "small.onnx"
    size = Strip()(small).model.save(path)
    proto = onnx.load(path)
    weights = sum(len(each.raw_data) for each in proto.graph.initializer)
    functions = sum(each.ByteSize() for each in proto.functions)
    assert size - weights - functions < 1500


def test_weights_still_decode(small):
    wanted, found = (decode(each).model for each in (small, Strip()(small).model))
    for one, other in zip(find_sites(wanted), find_sites(found), strict=True):
        np.testing.assert_array_equal(one.array(), other.array())


def test_the_report_counts_the_bytes_of_each_kind(small, tmp_path):
    result = Strip()(small)
    sizes = [each.bytes_before for each in result.report.changes] + [result.report.changes[-1].bytes_after]
    assert [each.bytes_after for each in result.report.changes] == sizes[1:]
    assert sizes == sorted(sizes, reverse=True)
    files = [model.save(tmp_path / "m.onnx") for model in (small, result.model)]
    assert sizes[0] - sizes[-1] == pytest.approx(files[0] - files[1], abs=16)
    assert [each.action.split(" ", 1)[1] for each in result.report.changes] == [
        "attributes that state a default dropped",
        "declared shapes dropped that follow from the nodes",
        "names shortened or dropped",
    ]


@pytest.fixture
def talkative(build):
    """Notes, labels, two equal constants of four bytes, and a name that is long."""
    nodes = [
        helper.make_node("Add", ["x", "one"], ["quite_long"], name="first", doc_string="from line 3"),
        helper.make_node("Mul", ["quite_long", "other"], ["y"], name="second"),
    ]
    model = build(nodes, {"one": np.float32([3]), "other": np.float32([3])}, x=[2])
    model.header.metadata_props.add(key="labels", value="cat,dog")
    model.header.producer_name = "exporter"
    return model


def test_equal_constants_are_stored_once(talkative, run):
    result = Strip()(talkative)
    assert len(result.model.constants()) == 1
    assert result.report.changes[0].action == "1 constants equal to others are stored once"
    x = np.float32([1, 2])
    np.testing.assert_array_equal(run(result.model, x)[0], run(talkative, x)[0])


def test_labels_and_producer_stay_unless_asked(talkative):
    kept, gone = Strip()(talkative).model.to_proto(), Strip(metadata=True)(talkative).model.to_proto()
    assert [each.key for each in kept.metadata_props] == ["labels"]
    assert not gone.metadata_props
    assert kept.producer_name == gone.producer_name == "exporter"


@pytest.mark.parametrize(
    ("option", "left"), [("names", "quite_long"), ("notes", "from line 3"), ("share", '"b"\n')], ids=lambda each: each
)
def test_each_kind_can_stay(talkative, option, left):
    everything = str(Strip()(talkative).model.to_proto())
    without = str(Strip(**{option: False})(talkative).model.to_proto())
    assert left in without
    assert option == "share" or left not in everything
    assert len(without) > len(everything)


def test_names_stay_where_training_information_needs_them(talkative):
    talkative.header.training_info.add().algorithm.name = "step"
    result = Strip()(talkative)
    assert "quite_long" in str(result.model.to_proto())
    assert result.report.skips[0].reason == "names stay: its training information refers to weights by name"


def test_large_weights_stay_on_disk_and_what_they_are(tmp_path):
    path = zoo.path("lenet5")
    model = Model.load(path)
    result = Strip()(model)
    for one, other in zip(find_sites(model), find_sites(result.model), strict=True):
        np.testing.assert_array_equal(one.array(), other.array())
    result.model.save(tmp_path / "apart.onnx", external_data=True)
    onnx.checker.check_model(tmp_path / "apart.onnx")


def test_does_not_touch_the_model_it_is_given(talkative):
    before = talkative.to_proto().SerializeToString()
    Strip(metadata=True)(talkative)
    assert talkative.to_proto().SerializeToString() == before


@pytest.mark.parametrize("option", ["share", "names", "notes", "metadata", "shapes", "defaults", "imports"])
def test_refuses_options_that_are_neither_true_nor_false(option):
    with pytest.raises(ConfigError) as caught:
        Strip(**{option: "yes"})
    assert str(caught.value) == f"strip: {option} must be true or false, got 'yes'"
