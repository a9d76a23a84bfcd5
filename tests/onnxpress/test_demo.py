"""The demo makes what it promises, also without a network."""

import json

import numpy as np
import pytest

from onnxpress import compression, demo, judging
from onnxpress.calibration.feeds import Feed
from onnxpress.cli import main
from onnxpress.models import zoo
from onnxpress.models.digits import labelled
from onnxpress.models.fetch import FetchError
from onnxpress.recipe import parse
from onnxpress.rewriter.errors import ConfigError


@pytest.fixture
def offline(monkeypatch):
    """A tenth of the digits, timing that does not wait, and no network."""
    path, bench, samples_for = zoo.path, judging.bench, compression.samples_for

    def find(name):
        if name != "lenet5":
            raise FetchError(f"{name} cannot be fetched")
        return path(name)

    def few(runner, data, **settings):
        feed: Feed = samples_for(runner, data, **settings)
        return feed.take(4) if feed.count and feed.count > 4 else feed

    monkeypatch.setattr(zoo, "path", find)
    monkeypatch.setattr(compression, "samples_for", few)
    monkeypatch.setattr(judging, "bench", lambda *a, **k: bench(*a, **{**k, "seconds": 0.01}))


def test_compresses_lenet_alone_and_says_so(offline, tmp_path, capsys):
    assert main(["demo", "-o", str(tmp_path / "made")]) == 0
    printed, complaint = capsys.readouterr()
    assert "LeNet-5" in printed
    assert "PP-OCRv4" not in printed
    assert "PP-OCRv4 recognition is left out: ppocr-rec cannot be fetched" in complaint
    names = {each.name for each in (tmp_path / "made").iterdir()}
    assert names == {"lenet5.onnx", "lenet5.yaml", "lenet5.json", "lenet5.html"}
    made = json.loads((tmp_path / "made" / "lenet5.json").read_text(encoding="utf-8"))["compression"]
    parity = made["verification"]["providers"][0]
    assert made["ratio"] > 10
    assert parity["metric_before"] - parity["metric_after"] <= 0.003


def test_the_recipe_of_lenet_is_valid():
    names = [each.name for each in parse(demo.LENET, name="lenet5", source="lenet5.yaml").passes]
    assert names == ["prune-magnitude", "share-kmeans", "encode"]


def test_calibration_and_test_samples_are_not_the_same():
    for job in demo.JOBS:
        entry = zoo.recipe(job.model)
        assert entry.calibration != entry.feed
    assert np.concatenate([each.labels for each in labelled().samples()]).size == 10_000


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot make the folder"):
        demo.make_folder(tmp_path / "file" / "demo")
