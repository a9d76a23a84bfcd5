"""Labelled speech for Silero VAD: 24 synthetic utterances, committed, in noise and silence that are made here.

The voices are those of eSpeak NG, not of people: a fair test of whether a compressed model still does what the float
one does, not of how well either does in the street. All streams run side by side as one batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from onnxpress.calibration.batches import Array, Sample
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.session import Runner
from onnxpress.models.samples import feed
from onnxpress.models.zoo import path

_HERE = Path(__file__).parent
_RATE = 16_000  # samples a second
_FRAME, _CONTEXT = 512, 64  # samples that the model takes, and how many of the frame before
_STATE = 128
_FRAMES = 160  # in a stream: 5.12 s
_MIXED = -1


def labelled(*, cache: Path | None = None) -> Feed:
    """12 streams of one utterance each: 160 batches, frame by frame.

    `input` float32 [12, 576], `state` float32 [2, 12, 128], `sr` int64 []; labels int64: 1 speech, 0 none, -1 where
    a frame holds the edge of an utterance. The states are those of the float model, so that every batch stands for
    itself; a metric may carry its own instead.

    Raises:
        FetchError: the float model is not in the cache and cannot be fetched.
    """
    return _frames(range(12, 24), seed=5, labelled=True, cache=cache)


def calibration(*, cache: Path | None = None) -> Feed:
    """12 other streams without labels; inputs as in `labelled`."""
    return _frames(range(12), seed=6, labelled=False, cache=cache)


def streams(utterances: range, *, seed: int) -> tuple[Array, Array]:
    """Sound and labels: float32 and int64, [frames, streams, 512] and [frames, streams].

    Every stream is one utterance, louder or softer, after a pause of 0.5 to 2 s, in white noise of -60 to -34 dB;
    every third one with a steady hum of 80 to 2,000 Hz, which is no speech.
    """
    spoken = _utterances()
    sound = np.zeros((len(utterances), _FRAMES * _FRAME), np.float32)
    voiced = np.zeros_like(sound)
    time = np.arange(sound.shape[1]) / _RATE
    for row, number in enumerate(utterances):
        generator = np.random.default_rng((seed, row))
        begin = int(generator.integers(_RATE // 2, 2 * _RATE))
        end = begin + len(spoken[number])
        sound[row, begin:end] = spoken[number] * generator.uniform(0.3, 1)
        voiced[row, begin:end] = 1
        sound[row] += generator.standard_normal(sound.shape[1]) * 10 ** generator.uniform(-3, -1.7)
        if row % 3 == 0:
            sound[row] += 0.05 * np.sin(2 * np.pi * generator.uniform(80, 2000) * time)
    share = voiced.reshape(len(utterances), _FRAMES, _FRAME).mean(axis=2).T
    labels = np.where(share > 0.99, 1, np.where(share < 0.01, 0, _MIXED)).astype(np.int64)
    return sound.reshape(len(utterances), _FRAMES, _FRAME).transpose(1, 0, 2), labels


def _utterances() -> list[Array]:
    """The committed speech, float32 in -1..1 at 16 kHz, out of its 8-bit mu-law codes (ITU-T G.711, mu = 255)."""
    with np.load(_HERE / "speech.npz", allow_pickle=False) as arrays:
        codes, lengths = arrays["codes"], arrays["lengths"]
    level = codes.astype(np.float32) / np.float32(127.5) - 1
    sound = np.sign(level) * np.expm1(np.abs(level) * np.log(np.float32(256))) / 255
    return np.split(sound.astype(np.float32), np.cumsum(lengths)[:-1])


def _frames(utterances: range, *, seed: int, labelled: bool, cache: Path | None) -> Feed:
    sound, labels = streams(utterances, seed=seed)
    model = path("silero-vad", cache=cache)

    def make() -> Iterator[Sample]:
        context = np.zeros((len(utterances), _CONTEXT), np.float32)
        state = np.zeros((2, len(utterances), _STATE), np.float32)
        with Runner(model) as runner:
            for frame, row in zip(sound, labels, strict=True):
                pieces = np.concatenate([context, frame], axis=1)
                batch: dict[str, Array] = {"input": pieces, "state": state, "sr": np.array(_RATE, np.int64)}
                yield Sample(batch, row if labelled else None)
                context, state = frame[:, -_CONTEXT:], runner.run(batch)["stateN"]

    return feed(make, count=len(sound))
