"""Statistics in files."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxpress.calibration.observers import Histogram, MinMax, MovingAverage
from onnxpress.calibration.statistics import KINDS, Statistics, fingerprint, versions
from onnxpress.rewriter.errors import ConfigError, ModelError
from onnxpress.rewriter.model import Model

X = np.random.default_rng(3).standard_normal((20, 4))


def seen(kind, *arrays):
    observer = KINDS[kind]()
    for array in arrays:
        observer.update(array)
    return observer


def statistics(kind="histogram", arrays=(X,), mark="one", name="x/ö .y"):
    return Statistics(mark, len(arrays), {name: seen(kind, *arrays)}, {"onnxpress": "0"})


def states(found):
    return {
        name: {key: value.tolist() for key, value in observer.state().items()}
        for name, observer in found.observers.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_gives_back_what_was_saved(tmp_path, kind):
    made = statistics(kind)
    made.save(tmp_path / "a.npz")
    again = Statistics.load(tmp_path / "a.npz")
    assert (again.fingerprint, again.batches, again.versions) == ("one", 1, {"onnxpress": "0"})
    assert states(again) == states(made)
    assert {type(each) for each in again.observers.values()} == {KINDS[kind]}
    assert {path.name for path in tmp_path.iterdir()} == {"a.npz"}


def test_the_same_statistics_give_the_same_bytes(tmp_path):
    for name in "ab":
        statistics().save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_holds_no_objects(tmp_path):
    statistics().save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        assert all(not stored[name].dtype.hasobject for name in stored.files)


@pytest.mark.parametrize("kind", KINDS)
def test_merged_files_are_the_whole(tmp_path, kind):
    parts = X[:5], X[5:9], X[9:]
    whole = statistics(kind, parts)
    for position, part in enumerate(parts):
        statistics(kind, (part,)).save(tmp_path / f"{position}")
    one, two, three = (Statistics.load(tmp_path / f"{position}") for position in range(3))
    before = states(one)
    merged = one.merged(two).merged(three)
    assert merged.batches == 3
    for name, observer in merged.observers.items():
        # a mean range sums in another order
        np.testing.assert_allclose(observer.low, whole.observers[name].low, rtol=1e-12, atol=0)
        np.testing.assert_allclose(observer.high, whole.observers[name].high, rtol=1e-12, atol=0)
    if kind != "average":
        assert states(merged) == states(whole)
    assert states(one) == before


def test_refuses_to_merge_what_is_not_alike():
    with pytest.raises(ConfigError, match="statistics of different models"):
        statistics().merged(statistics(mark="two"))
    with pytest.raises(ConfigError, match=r"tensor 'x/ö \.y' was not observed alike"):
        statistics().merged(statistics("minmax"))
    with pytest.raises(ConfigError, match=r"tensor 'x/ö \.y' was not observed alike"):
        statistics().merged(statistics(name="z"))


def test_an_unfinished_file_does_not_replace_the_old_one(tmp_path):
    path = tmp_path / "a.npz"
    statistics().save(path)
    before = path.read_bytes()
    made = statistics()
    broken = MinMax()
    broken.state = lambda: {"low": np.array([object()])}
    with pytest.raises(ValueError, match="Object arrays"):
        Statistics("one", 1, {**made.observers, "z": broken}, {}).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ModelError, match="cannot write"):
        made.save(tmp_path / "none" / "a.npz")


def broken_files(folder):
    """Files that are none of ours, and what is said of each."""
    statistics().save(folder / "good.npz")
    good = (folder / "good.npz").read_bytes()
    (folder / "cut.npz").write_bytes(good[: len(good) // 2])
    (folder / "text.npz").write_text("no zip")
    np.savez(folder / "samples.npz", x=X)
    np.savez(folder / "newer.npz", header=np.array('{"format": 2}'))
    np.savez(folder / "list.npz", header=np.array("[]"))
    np.savez(folder / "json.npz", header=np.array("{"))
    np.savez(folder / "objects.npz", header=np.array([{}], dtype=object))
    header = '{"format": 1, "fingerprint": "", "batches": 1, "versions": {}, "tensors": {"x": "%s"}}'
    np.savez(folder / "kind.npz", header=np.array(header % "moments"))
    np.savez(folder / "parts.npz", header=np.array(header % "minmax"))
    flipped = bytearray(good)
    middle = good.index(b"counts") + 60
    flipped[middle] ^= 0xFF
    (folder / "flipped.npz").write_bytes(flipped)
    return [path for path in folder.iterdir() if path.name != "good.npz"]


def test_refuses_files_that_are_none(tmp_path):
    for path in broken_files(tmp_path):
        with pytest.raises(
            ConfigError, match=r"is no calibration file: .+; write one with onnxpress calibrate"
        ) as caught:
            Statistics.load(path)
        assert "\n" not in str(caught.value)
        assert path.name in str(caught.value)
    with pytest.raises(ConfigError, match="no file"):
        Statistics.load(tmp_path / "none.npz")
    with pytest.raises(ConfigError, match="is no calibration file"):
        Statistics.load(tmp_path)


@pytest.fixture
def model(save_model):
    weight = np.random.default_rng(0).standard_normal((4, 30)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    return save_model(nodes, {"x": ["n", 4]}, ["y"], weights={"w": weight})


def test_a_fingerprint_is_of_weights_inputs_and_outputs_not_of_names(model, tmp_path):
    first = fingerprint(Model.load(model))
    Model.load(model).save(tmp_path / "again.onnx", external_data=True)
    assert fingerprint(Model.load(tmp_path / "again.onnx")) == first
    renamed = onnx.load(model)
    renamed.graph.initializer[0].name = renamed.graph.node[0].input[1] = "other"
    assert fingerprint(Model.from_proto(renamed)) == first
    renamed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7
    assert fingerprint(Model.from_proto(renamed)) != first
    pruned = Model.load(model)
    (weight,) = pruned.constants()
    pruned.replace_weight(weight, pruned.array(weight) * np.float32(0.5))
    assert fingerprint(pruned) != first


def test_statistics_are_for_their_own_model(model):
    loaded = Model.load(model)
    made = statistics(mark=fingerprint(loaded))
    made.check(loaded, name="a.npz")
    with pytest.raises(ConfigError, match=r"a\.npz was made with another model, or with this one before"):
        statistics().check(loaded, name="a.npz")


def test_tells_the_versions():
    assert set(versions()) == {"onnxpress", "onnxruntime", "numpy"}
    assert {each.kind for each in (MinMax, MovingAverage, Histogram)} == set(KINDS)
