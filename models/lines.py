"""Rendered lines of English text for PP-OCR, drawn from what pip packages carry.

The text is Python's own reference manual (`pydoc_data.topics`), the fonts are the DejaVu ones inside matplotlib, so
nothing is downloaded; needs Pillow and matplotlib (the extra `report`). The wording of the manual, and with it the
lines, differs a little from one version of Python to the next: compare models within one version.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxpress.calibration.batches import Array, Sample
from onnxpress.calibration.feeds import Feed
from onnxpress.models.samples import by_length, feed
from onnxpress.rewriter.errors import FeedError

_SHORTEST, _LONGEST = 8, 32  # characters in a line
_READABLE = re.compile(r"[A-Za-z][A-Za-z0-9 ,.?!':;()\-]*")
_HEIGHT = 48  # pixels: both models take lines of this height
_RECOGNITION_WIDTH = 320  # at least; PP-OCR pads shorter lines
_DIRECTION_WIDTH = 192  # exactly; longer lines are squeezed
_TEST_LINES = 1000  # calibration takes lines after these, so that the two never share one


def recognition(*, samples: int = 500, batch: int = 4) -> Feed:
    """Lines to be read: `x` float32 [batch, 3, 48, width] in -1..1, width 320 or more; labels are the texts.

    Lines of about the same width share a batch; narrower ones are padded with zeros on the right. There are at most
    1,000 samples.
    """
    return _recognition(sentences()[: min(samples, _TEST_LINES)], seed=7, batch=batch, labelled=True)


def recognition_calibration(*, samples: int = 128, batch: int = 4) -> Feed:
    """Other lines than those of `recognition`, without labels."""
    return _recognition(sentences()[_TEST_LINES : _TEST_LINES + samples], seed=17, batch=batch, labelled=False)


def direction(*, samples: int = 1000, batch: int = 50) -> Feed:
    """Lines upright (label 0) or turned by 180 degrees (label 1): `x` float32 [batch, 3, 48, 192] in -1..1.

    At most 1,000 samples.
    """
    return _direction(sentences()[: min(samples, _TEST_LINES)], seed=8, batch=batch, labelled=True)


def direction_calibration(*, samples: int = 128, batch: int = 16) -> Feed:
    """Other lines than those of `direction`, without labels."""
    return _direction(sentences()[_TEST_LINES : _TEST_LINES + samples], seed=18, batch=batch, labelled=False)


def sentences() -> list[str]:
    """All distinct lines of 8 to 32 letters, digits and common punctuation in Python's manual, in seeded order."""
    from pydoc_data.topics import topics  # here, because it is half a megabyte of text

    starts = {_start(" ".join(line.split())) for text in topics.values() for line in text.splitlines()}
    kept = sorted(line for line in starts if len(line) >= _SHORTEST and _READABLE.fullmatch(line))
    return [kept[i] for i in np.random.default_rng(1).permutation(len(kept))]


def render(text: str, font: Path, generator: np.random.Generator) -> Array:
    """A line of text as a camera might see it: uint8 [height, width], dark on light, at times blurred, with noise."""
    from PIL import Image, ImageDraw, ImageFilter, ImageFont  # here, because only these samples need Pillow

    face = ImageFont.truetype(str(font), size=int(generator.integers(18, 40)))
    left, top, right, bottom = face.getbbox(text)
    paper, ink, margin = (int(generator.integers(*span)) for span in ((180, 256), (0, 90), (2, 8)))
    size = (int(right - left) + 2 * margin, int(bottom - top) + 2 * margin)
    image = Image.new("L", size, paper)
    ImageDraw.Draw(image).text((margin - left, margin - top), text, font=face, fill=ink)
    if generator.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(generator.random() * 1.2))
    grey = np.asarray(image, np.float32)
    noise = generator.standard_normal(grey.shape, np.float32) * generator.random() * 20
    return np.asarray(np.clip(grey + noise, 0, 255), np.uint8)


def fonts() -> list[Path]:
    """The DejaVu fonts inside matplotlib that have all letters.

    Raises:
        FeedError: matplotlib, which brings Pillow too, is not installed.
    """
    try:
        import matplotlib  # here, because only these samples need its fonts
    except ImportError as error:
        raise FeedError("rendered lines need Pillow and matplotlib; run: pip install 'onnxpress[report]'") from error
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    # the Display ones have a handful of mathematical signs only
    return sorted(path for path in folder.glob("DejaVuS*.ttf") if "Display" not in path.name)


@dataclass(frozen=True, slots=True)
class _Line:
    """A line 48 pixels high, uint8 [48, width]."""

    pixels: Array
    label: str | int


def _recognition(texts: Sequence[str], *, seed: int, batch: int, labelled: bool) -> Feed:
    lines = [_Line(_scaled(image, None), text) for text, image in zip(texts, _rendered(texts, seed), strict=True)]
    return _feed(lines, batch=batch, least=_RECOGNITION_WIDTH, labelled=labelled)


def _direction(texts: Sequence[str], *, seed: int, batch: int, labelled: bool) -> Feed:
    images = (np.rot90(image, 2) if i % 2 else image for i, image in enumerate(_rendered(texts, seed)))
    lines = [_Line(_scaled(image, _DIRECTION_WIDTH), i % 2) for i, image in enumerate(images)]
    return _feed(lines, batch=batch, least=_DIRECTION_WIDTH, labelled=labelled)


def _rendered(texts: Sequence[str], seed: int) -> Iterator[Array]:
    faces = fonts()
    for i, text in enumerate(texts):
        generator = np.random.default_rng((seed, i))
        yield render(text, faces[int(generator.integers(len(faces)))], generator)


def _scaled(image: Array, widest: int | None) -> Array:
    from PIL import Image

    height, width = image.shape
    scaled = -(-_HEIGHT * width // height)
    size = (min(scaled, widest) if widest else scaled, _HEIGHT)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def _feed(lines: Sequence[_Line], *, batch: int, least: int, labelled: bool) -> Feed:
    batches = by_length([line.pixels.shape[1] for line in lines], batch=batch, seed=0)

    def make() -> Iterator[Sample]:
        for chosen in batches:
            labels = np.array([lines[i].label for i in chosen]) if labelled else None
            yield Sample({"x": _padded([lines[i].pixels for i in chosen], least)}, labels)

    return feed(make, count=len(batches))


def _padded(images: Sequence[Array], least: int) -> Array:
    """Grey lines as three equal channels in -1..1: float32 [n, 3, 48, width]."""
    padded = np.zeros((len(images), 3, _HEIGHT, max(least, *(image.shape[1] for image in images))), np.float32)
    for row, image in enumerate(images):
        padded[row, :, :, : image.shape[1]] = image.astype(np.float32) / np.float32(127.5) - 1
    return padded


def _start(line: str) -> str:
    """As many words from the start of the line as fit."""
    if len(line) <= _LONGEST:
        return line
    return line[: _LONGEST + 1].rpartition(" ")[0]
