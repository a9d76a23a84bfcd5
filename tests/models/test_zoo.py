from pathlib import Path

import onnx
import pytest

from onnxpress.calibration.plugins import load_function
from onnxpress.models.zoo import ZOO, describe, path, recipe
from onnxpress.rewriter.errors import ConfigError

NAMES = (
    "lenet300",
    "lenet5",
    "charnet",
    "ppocr-rec",
    "ppocr-cls",
    "silero-vad",
    "open-nsfw",
    "minilm",
    "effnet-lite0",
    "textgen",
)


def test_the_zoo_has_all_models() -> None:
    assert tuple(ZOO) == NAMES


@pytest.mark.parametrize("name", ["lenet300", "lenet5", "textgen"])
def test_committed_models_need_no_cache(name: str, tmp_path: Path) -> None:
    found = path(name, cache=tmp_path)
    onnx.checker.check_model(found)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_feeds_and_metrics_can_be_imported(name: str) -> None:
    entry = recipe(name)
    for reference in (entry.feed, entry.calibration, entry.metric):
        if reference not in (None, "top1"):
            assert callable(load_function(reference))
    assert entry.feed != entry.calibration


@pytest.mark.parametrize("name", NAMES)
def test_a_description_names_licence_and_source(name: str) -> None:
    assert ZOO[name].licence in describe(name)
    assert "==" in describe(name) or "comes with onnxpress" in describe(name)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'resnet'; choose one of lenet300, lenet5"):
        path("resnet")


@pytest.mark.network
@pytest.mark.parametrize("name", NAMES)
def test_every_model_can_be_had(name: str) -> None:
    onnx.checker.check_model(path(name))
    assert path(name) == path(name)
