"""Where candidates are made: each once, and what several begin with once for all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from onnxpress.passes.base import Pass, Workbench
from onnxpress.passes.pipeline import Pipeline
from onnxpress.passes.report import Report
from onnxpress.passes.share.budget import ShareBudget
from onnxpress.passes.share.sharing import Sharing
from onnxpress.report import write_text
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model
from onnxpress.search.measured import MeasuredOnce
from onnxpress.search.plans import Plan, key_of
from onnxpress.stages import Stage, Stages

_MODEL, _ACCOUNT = "model.onnx", "account.json"

Files: TypeAlias = Mapping[str, NDArray[np.uint8]]
"""Contents by name."""


class _Account(BaseModel):
    """What the passes since the nearest stored model did."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    before: str | None
    reports: list[Report]
    stages: list[Stage]


@dataclass(frozen=True, slots=True)
class Made:
    """A candidate.

    Attributes:
        path: of the model.
        reports: what each pass did.
        stages: what the model came to after each.
        models: those that are stored, by the number of the stage that they are behind.
    """

    path: Path
    reports: tuple[Report, ...]
    stages: tuple[Stage, ...]
    models: Mapping[int, Path]


class Workshop:
    """Makes models by plans, all from one normalised model, in a folder that outlives an interrupted run."""

    def __init__(self, folder: Path, bench: Workbench) -> None:
        """Use a folder, with all that is in it.

        Args:
            folder: that exists.
            bench: what passes may use.

        Raises:
            ConfigError: it cannot be written to.
        """
        self._folder = folder / "models"
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise _unusable(folder, error) from error
        self._bench = bench
        self._sharings: dict[tuple[str, object], Sharing] = {}

    def start(self, model: Model, normalise: Pass) -> Made:
        """Normalise the input, with which all plans begin."""
        if not self.has(()):
            stages = Stages()
            done = Pipeline([normalise], normalise=False, after=stages.add)(model, self._bench)
            self._keep((), done.model, _Account(before=None, reports=list(done.reports), stages=stages.found))
        return self.made(())

    def make(self, plan: Plan) -> Made:
        """The model of a plan.

        Raises:
            OnnxpressError: what a pass raises.
        """
        self.grow(plan.passes)
        return self.made(plan.passes)

    def grow(self, passes: tuple[Pass, ...]) -> list[tuple[Pass, ...]]:
        """Make the model behind these passes, if it is not there; says behind which passes models are new.

        Raises:
            OnnxpressError: what a pass raises.
        """
        new, done = [], len(self.nearest(passes))
        while done < len(passes):
            following = self._rest(passes, done)
            stages = Stages()
            model = Model.load(self._place(passes[:done]) / _MODEL)
            now = self._once(passes[:done], passes[done:following])
            found = Pipeline(now, normalise=False, after=stages.add)(model, self._bench)
            account = _Account(before=key_of(passes[:done]), reports=list(found.reports), stages=stages.found)
            self._keep(passes[:following], found.model, account)
            done = following
            new.append(passes[:done])
        return new

    def nearest(self, passes: tuple[Pass, ...]) -> tuple[Pass, ...]:
        """As many of these passes as possible behind which there is a model."""
        return next(passes[:count] for count in range(len(passes), -1, -1) if self.has(passes[:count]))

    def measures(self, passes: tuple[Pass, ...]) -> bool:
        """Whether one of these measures here, once, what other plans need as well."""
        return any(isinstance(each, ShareBudget) for each in passes)

    def nbytes(self, passes: tuple[Pass, ...]) -> int:
        """Bytes of a model that is there."""
        return sum(file.stat().st_size for file in self._place(passes).iterdir())

    def files(self, passes: tuple[Pass, ...]) -> Files:
        """A model that is there, with its account, to be put elsewhere."""
        return {file.name: np.fromfile(file, np.uint8) for file in self._place(passes).iterdir()}

    def put(self, passes: tuple[Pass, ...], files: Files) -> None:
        """Store a model that was made elsewhere."""

        def write(place: Path) -> None:
            for name, content in files.items():
                content.tofile(place / name)

        self._store(passes, write)

    def has(self, passes: tuple[Pass, ...]) -> bool:
        """Whether the model behind these passes is there."""
        return self._place(passes).is_dir()

    def made(self, passes: tuple[Pass, ...]) -> Made:
        """A model that is there, with its account."""
        place = self._place(passes)
        key: str | None = place.name
        reports: list[Report] = []
        stages: list[Stage] = []
        stored: list[tuple[int, Path]] = []  # counted from the last stage on
        while key is not None:
            account = _Account.model_validate_json((self._folder / key / _ACCOUNT).read_text(encoding="utf-8"))
            stored.append((len(stages), self._folder / key / _MODEL))
            reports[:0], stages[:0], key = account.reports, account.stages, account.before
        models = {len(stages) - 1 - behind: path for behind, path in stored}
        return Made(place / _MODEL, tuple(reports), tuple(stages), models)

    def drop(self, plan: Plan) -> None:
        """Remove the finished model of a plan, whole or not at all; what others begin with stays."""
        if plan.passes and self.has(plan.passes):
            place = self._place(plan.passes)
            shutil.rmtree(place.replace(self._emptied(place)))

    def _once(self, before: tuple[Pass, ...], passes: tuple[Pass, ...]) -> tuple[Pass, ...]:
        """The passes, where the first of them measures what other sizes need as well so that it does so once."""
        first = passes[0]
        if not isinstance(first, ShareBudget):
            return passes
        return (MeasuredOnce(how=first, before=key_of(before), known=self._sharings), *passes[1:])

    def _rest(self, passes: tuple[Pass, ...], done: int) -> int:
        """How many passes run before the model is stored: until one that takes its time is followed by others."""
        for count in range(done + 1, len(passes)):
            if passes[count - 1].learns or passes[count].learns:
                return count
        return len(passes)

    def _place(self, passes: tuple[Pass, ...]) -> Path:
        return self._folder / key_of(passes)

    def _keep(self, passes: tuple[Pass, ...], model: Model, account: _Account) -> None:
        """Store a model and its account."""

        def write(place: Path) -> None:
            model.save(place / _MODEL)
            write_text(account.model_dump_json(), place / _ACCOUNT)

        self._store(passes, write)

    def _store(self, passes: tuple[Pass, ...], write: Callable[[Path], None]) -> None:
        """Fill a place, whole or not at all."""
        place = self._place(passes)
        unfinished = self._emptied(place)
        try:
            unfinished.mkdir()
            write(unfinished)
            unfinished.replace(place)
        except OSError as error:
            raise _unusable(self._folder, error) from error

    @staticmethod
    def _emptied(place: Path) -> Path:
        """Where a model is that is not finished, or about to go; what a killed run left there is removed."""
        unfinished = place.with_name(f"{place.name}.part")
        shutil.rmtree(unfinished, ignore_errors=True)
        return unfinished


def _unusable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"folder {folder} cannot be written to: {error.strerror}; name another folder for the search")
