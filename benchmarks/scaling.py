"""Two workers of loky against none, of Dask against one: seconds of a pass in turns, whether the files are the same."""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnxpress.calibration.progress import Silent
from onnxpress.engines import engine
from onnxpress.models import zoo
from onnxpress.passes.base import Pass
from onnxpress.passes.jobs import each
from onnxpress.passes.share.kmeans import ShareKMeans
from onnxpress.passes.share.mixture import ShareMixture
from onnxpress.passes.share.vectors import ShareVectors
from onnxpress.rewriter.model import Model

PASSES: dict[str, Pass] = {
    "share-kmeans": ShareKMeans(bits=4, start="exact"),
    "share-mixture": ShareMixture(components=32),
    "share-vectors": ShareVectors(length=4, bits=8),
}


@contextmanager
def cluster(workers: int) -> Iterator[str]:
    """A Dask scheduler on this machine; gives its address."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=":0"
    ) as started:
        yield started.scheduler_address


def timed(model: Path, one: Pass) -> tuple[float, str]:
    """Seconds of a pass, and the hash of the file it makes."""
    loaded = Model.load(model)
    began = time.perf_counter()
    made = one(loaded).model
    seconds = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        made.save(Path(folder) / "made.onnx")
        return seconds, hashlib.sha256((Path(folder) / "made.onnx").read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--pass", dest="name", choices=PASSES, default="share-mixture")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    model, one = zoo.path(given.model), PASSES[given.name]
    with cluster(1) as lone, cluster(given.workers) as many:
        chosen = {
            "here": {},
            "loky": {"jobs": given.workers},
            "dask, one worker": {"name": "dask", "address": lone},
            "dask": {"name": "dask", "address": many},
        }
        taken: dict[str, list[float]] = {name: [] for name in chosen}
        hashes = set()
        for turn in range(given.turns + 1):
            for name, options in chosen.items():
                with engine(**options):
                    list(each(len, [[]] * 2 * given.workers, progress=Silent(), label="start"))
                    seconds, made = timed(model, one)
                hashes.add(made)
                if turn:  # the first finds modules that are not imported yet
                    taken[name].append(seconds)
    for name, alone in (("loky", "here"), ("dask", "dask, one worker")):
        ratios = [one / two for one, two in zip(taken[alone], taken[name], strict=True)]
        print(
            f"{given.name} on {given.model}, {given.workers} workers of {name}: {statistics.median(ratios):.2f} times "
            f"as fast as {'none' if alone == 'here' else 'one'} ({min(ratios):.2f}-{max(ratios):.2f}), "
            f"{statistics.median(taken[alone]):.1f} s -> {statistics.median(taken[name]):.1f} s"
        )
    print("the same file" if len(hashes) == 1 else f"{len(hashes)} different files")


if __name__ == "__main__":
    main()
