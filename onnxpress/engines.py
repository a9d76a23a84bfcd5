"""Where independent work runs: on the cores of this machine, or on those of a cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from onnxpress.rewriter.errors import ConfigError, EngineError

# joblib and the engines are imported where they are used: one worker needs none of them.
if TYPE_CHECKING:
    from distributed import Client

ENGINES = ("loky", "threading", "dask", "ray")

PATIENCE = 5
"""Seconds in which a cluster has to answer."""


@contextmanager
def engine(jobs: int | None = None, *, name: str | None = None, address: str | None = None) -> Iterator[None]:
    """Let all independent work inside run on several workers; the results stay the same.

    Args:
        jobs: workers; -1 for one each core. None leaves it to the engine, and without a name to the caller.
        name: `loky` for programs on this machine, `threading` for threads, `dask` or `ray` for a cluster; None is
            `loky`.
        address: HOST:PORT of the scheduler of a cluster.

    Raises:
        ConfigError: an unknown engine, one that is not installed, or options that do not go together.
        EngineError: nobody answers at the address, or the workers lack onnxpress.
    """
    _check(jobs, name, address)
    if jobs is None and name is None:
        yield
        return
    from joblib import parallel_config

    if name == "dask":
        with _dask(str(address)), parallel_config(backend="dask"):
            yield
    elif name == "ray":
        with _ray(address), parallel_config(backend="ray", n_jobs=jobs or -1):
            yield
    elif name == "threading":
        with parallel_config(backend="threading", n_jobs=jobs or -1):
            yield
    else:
        with parallel_config(backend="loky", n_jobs=jobs or -1, inner_max_num_threads=1):
            yield


def _check(jobs: int | None, name: str | None, address: str | None) -> None:
    if name is not None and name not in ENGINES:
        raise ConfigError(f"engine {name!r} is unknown; give {', '.join(ENGINES)}")
    if jobs is not None and jobs < 1 and jobs != -1:
        raise ConfigError(f"{jobs} jobs are none; give 1 or more, or -1 for one each core")
    if address is not None and name not in ("dask", "ray"):
        raise ConfigError(f"address {address} is that of a cluster: add --engine dask or --engine ray")
    if name == "dask" and address is None:
        raise ConfigError("engine dask needs the address of a scheduler: add --address HOST:PORT")
    if name == "dask" and jobs is not None:
        raise ConfigError("engine dask takes all workers of the cluster; leave out --jobs")


@contextmanager
def _dask(address: str) -> Iterator[None]:
    """A Dask cluster whose workers have been asked what they have."""
    try:
        from distributed import Client
    except ImportError as error:
        raise ConfigError('engine dask needs distributed: pip install "onnxpress[dask]"') from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what goes wrong is told in one line
    try:
        with ThreadPoolExecutor(1) as aside:  # there may be a loop in this thread, as in a notebook
            aside.submit(asyncio.run, _greet(address)).result()
        client = Client(address, timeout=PATIENCE)
    except (OSError, TimeoutError, ValueError) as error:
        raise EngineError(
            f"no Dask scheduler answers at {address}; start one with `dask scheduler`, or check the address"
        ) from error
    with client:
        _check_workers(client, address)
        yield


async def _greet(address: str) -> None:
    """Fail where nobody answers, before there is half a client.

    One closes itself when it is collected, at any time: if another is about to start then, that waits for ever.
    """
    from distributed.comm import connect

    (await connect(address, timeout=PATIENCE)).abort()


def _check_workers(client: Client, address: str) -> None:
    """Refuse workers that would not find our functions, or other versions of them."""
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError as error:
        raise EngineError(
            f"the Dask scheduler at {address} has no workers; start some with `dask worker {address}`"
        ) from error
    ours = _own_version()
    for worker, theirs in client.run(version, "onnxpress", on_error="return").items():
        if theirs != ours:
            has = f"onnxpress {theirs}" if isinstance(theirs, str) else "no onnxpress"
            raise EngineError(f"worker {worker} has {has}: install {ours} there, as it is here")


def _own_version() -> str:
    return version("onnxpress")


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    """A Ray cluster; without an address one of this machine, for as long as it lasts."""
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise ConfigError('engine ray needs Ray: pip install "ray"') from error
    try:
        ray.init(address=address, logging_level=logging.CRITICAL, log_to_driver=False)
    except (OSError, ValueError, RuntimeError, TimeoutError) as error:
        raise EngineError(f"no Ray cluster answers at {address}; start one with `ray start --head`") from error
    try:
        register_ray()
        yield
    finally:
        ray.shutdown()
