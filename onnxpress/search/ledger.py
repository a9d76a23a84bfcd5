"""What a search has measured so far, in a folder, so that an interrupted one goes on where it was."""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from onnxpress.artifact import Artifact
from onnxpress.calibration.batches import Array
from onnxpress.calibration.feeds import Feed
from onnxpress.calibration.metrics import Metric, UserMetric
from onnxpress.report import write_text
from onnxpress.rewriter.errors import ConfigError, OnnxpressError
from onnxpress.search.trial import Trial

_WHAT, _TRIALS = "search.json", "trials"


class _Page(BaseModel):
    """A trial in a file."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    trial: Trial


class Ledger:
    """Trials by key, each in a file of its own that appears whole or not at all.

    Attributes:
        folder: of the search.
        trials: in the order in which they were noted.
    """

    def __init__(self, folder: Path, what: dict[str, object]) -> None:
        """Open a folder, or make it.

        Args:
            folder: whose parent exists.
            what: is searched: the same search goes on, another is refused.

        Raises:
            ConfigError: the folder holds something else, or cannot be written.
        """
        self.folder = folder
        self._check(json.loads(json.dumps(what)))
        found = [self._read(path) for path in self._place.glob("*.json")]
        self._known = {trial.key: trial for trial in found}
        self.trials: list[Trial] = []
        self.spent = sum(trial.seconds for trial in found)

    def recall(self, key: str) -> Trial | None:
        """A trial that was measured before this run or in it."""
        return self._known.get(key)

    def twin(self, digest: str) -> Trial | None:
        """The first trial noted in this run whose files were the same."""
        return next((each for each in self.trials if each.digest == digest), None) if digest else None

    def note(self, trial: Trial) -> None:
        """Keep a trial."""
        if trial.key not in self._known:
            write_text(_Page(trial=trial).model_dump_json(indent=1), self._place / f"{trial.key}.json")
            self._known[trial.key] = trial
        if all(trial.key != each.key for each in self.trials):
            self.trials.append(trial)

    @property
    def _place(self) -> Path:
        return self.folder / _TRIALS

    def _check(self, what: dict[str, object]) -> None:
        stated = self.folder / _WHAT
        try:
            if not stated.is_file():
                if self.folder.exists() and not all(map(self._own, self.folder.iterdir())):
                    raise ConfigError(f"folder {self.folder} holds something else; name an empty or a new one")
                self._place.mkdir(parents=True, exist_ok=True)
                write_text(json.dumps(what, indent=1), stated)
                return
            before = dict(json.loads(stated.read_text(encoding="utf-8")))
        except OSError as error:
            raise ConfigError(f"folder {self.folder}: {error.strerror}") from error
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{stated} is not of a search; name an empty or a new folder") from error
        differing = [name for name in {**before, **what} if before.get(name) != what.get(name)]
        if differing:
            raise ConfigError(
                f"folder {self.folder} holds another search ({', '.join(differing)} differ); name a new folder"
            )

    def _own(self, path: Path) -> bool:
        """Whether a search that was killed as it began left it."""
        return path == self._place or (path.name.startswith(f".{_WHAT}.") and path.suffix == ".part")

    def _read(self, path: Path) -> Trial:
        try:
            return _Page.model_validate_json(path.read_bytes()).trial
        except ValueError as error:
            raise ConfigError(f"{path} is no trial of a search; remove it, and it is made again") from error


@contextmanager
def unspoilt(folder: Path) -> Iterator[None]:
    """Leave a folder as it was, missing or empty, where the work inside fails before anything was measured."""
    first = folder
    while not first.parent.exists():
        first = first.parent
    new, empty = not folder.exists(), _is_empty(folder)
    try:
        yield
    except OnnxpressError:
        if (new or empty) and not any((folder / _TRIALS).glob("*.json")):
            for each in [first] if new else list(folder.iterdir()):
                shutil.rmtree(each) if each.is_dir() else each.unlink(missing_ok=True)
        raise


def _is_empty(folder: Path) -> bool:
    try:
        return not any(folder.iterdir())
    except OSError:
        return False


def code_of(metric: Metric | None) -> str | None:
    """What tells the code of a user's metric from what it was: a hash of its module, or of its class.

    A metric by name is a module that is written for it; an object comes from a program that may change around it.
    """
    try:
        if isinstance(metric, UserMetric):
            found = inspect.getsourcefile(inspect.unwrap(metric.function))
            source = b"" if found is None else Path(found).read_bytes()
        else:
            source = b"" if metric is None else inspect.getsource(type(metric)).encode()
    except (TypeError, OSError):  # written in C, or typed into a prompt
        return None
    return hashlib.sha256(source).hexdigest()[:16] if source else None


def digest_of(model: Path) -> str:
    """A hash of the files of a model, whatever their names."""
    hashes = sorted(Artifact.of(model).hashes().values())
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16]


def fingerprint(feed: Feed, *, most: int = 64) -> str:
    """What tells these samples from others: a hash of the first few batches and of how many there are."""
    digest = hashlib.sha256(str(feed.count).encode())
    for position, (batch, labels) in enumerate(feed.samples()):
        if position == most:
            break
        for name, array in sorted(batch.items()):
            _add(digest, name, array)
        if labels is not None:
            _add(digest, "labels", labels)
    return digest.hexdigest()[:16]


def _add(digest: hashlib._Hash, name: str, array: Array) -> None:
    parts: Iterable[bytes] = (name.encode(), str((array.dtype, array.shape)).encode())
    for each in parts:
        digest.update(each)
    digest.update(str(array.tolist()).encode() if array.dtype.kind in "OU" else array.tobytes())
