"""ONNX Runtime sessions whose failures are one line, and whose providers are the ones that were asked for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from onnxpress.calibration.batches import Array, Batch
from onnxpress.calibration.profile import count_nodes
from onnxpress.calibration.providers import CPU, available_providers, provider_name
from onnxpress.rewriter.errors import ConfigError, FeedError, ModelError, ProviderError
from onnxpress.rewriter.packed import refuse_packed
from onnxpress.rewriter.specs import InputSpec

# onnxruntime and onnx are imported where they are used: importing onnxpress stays light.
if TYPE_CHECKING:
    import onnxruntime

Level: TypeAlias = Literal["none", "basic", "extended", "all"]
"""How far ONNX Runtime may rewrite the graph for itself."""

_ELEMENTS: Mapping[str, str] = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bool": "bool",
    "string": "object",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


class Runner:
    """A model, open in ONNX Runtime. Use it as a context manager, or `close` it, to free its memory.

    Attributes:
        name: what errors call the model.
        providers: the execution providers that were asked for, by full name.
    """

    def __init__(
        self,
        model: str | Path | bytes,
        *,
        providers: Sequence[str] = (CPU,),
        threads: int | None = None,
        optimise: Level = "all",
        weights_folder: Path | None = None,
        file_order: bool = False,
    ) -> None:
        """Open a session.

        Args:
            model: a file, or the bytes of one.
            providers: execution providers in order of preference, by short or full name.
            threads: threads inside an operator; None leaves the choice to ONNX Runtime.
            optimise: how far ONNX Runtime may rewrite the graph for itself.
            weights_folder: where the external data lie of a model given as bytes.
            file_order: run the nodes in the order of the file rather than ONNX Runtime's own, which puts off nodes
                that lead to an output of their own, and keeps alive until then what they read.

        Raises:
            ModelError: no such file, or none that ONNX Runtime can run.
            ProviderError: a provider is missing, or ONNX Runtime replaced it by another.
            ConfigError: an unknown short name, or less than one thread.
        """
        if threads is not None and threads < 1:
            raise ConfigError(f"threads {threads}: give 1 or more")
        self.name = "the model" if isinstance(model, bytes) else Path(model).name
        self.providers = tuple(dict.fromkeys(provider_name(name) for name in providers)) or (CPU,)
        self._model = model if isinstance(model, bytes) else Path(model)
        self._threads = threads
        self._optimise: Level = optimise
        self._weights_folder = weights_folder
        self._file_order = file_order
        self._open: onnxruntime.InferenceSession | None = self._start(self._options())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the session; running it afterwards is an error."""
        self._open = None

    @cached_property
    def input_specs(self) -> tuple[InputSpec, ...]:
        """What the model declares about the inputs it must be given.

        Raises:
            ModelError: an input that is no tensor, or of a type NumPy lacks.
        """
        return tuple(
            InputSpec(node.name, self._dtype(node.name, node.type), self._shape(node.name, node.shape))
            for node in self._session.get_inputs()
        )

    @cached_property
    def output_names(self) -> tuple[str, ...]:
        """The outputs that are tensors, in the model's order; others cannot be compared."""
        return tuple(node.name for node in self._session.get_outputs() if node.type.startswith("tensor("))

    @cached_property
    def output_shapes(self) -> Mapping[str, tuple[int | str | None, ...] | None]:
        """Shape of each output as ONNX Runtime infers it; None for unknown ones and scalars, which look the same."""
        return {node.name: tuple(node.shape) or None for node in self._session.get_outputs()}

    @cached_property
    def output_types(self) -> dict[str, str]:
        """Type of each output as ONNX Runtime writes it: `tensor(float)`."""
        return {node.name: node.type for node in self._session.get_outputs()}

    @cached_property
    def input_types(self) -> dict[str, str]:
        """Type of each input as ONNX Runtime writes it: `tensor(float)`."""
        return {node.name: node.type for node in self._session.get_inputs()}

    def fitted(self, batch: Mapping[str, ArrayLike]) -> Batch:
        """The batch with floats as wide as the inputs are, for a model whose inputs became narrower; the rest as it is.

        What float16 cannot hold becomes infinite; numbers and lists, which a user's metric may give, become arrays.
        """
        arrays = {name: np.asarray(value) for name, value in batch.items()}
        widths = {
            name: np.dtype(_ELEMENTS[kind[7:-1]])
            for name, kind in self.input_types.items()
            if kind[7:-1] in ("float16", "float", "double")
        }
        with np.errstate(over="ignore"):
            return {
                name: array.astype(widths[name], copy=False) if name in widths and array.dtype.kind == "f" else array
                for name, array in arrays.items()
            }

    def run(self, batch: Mapping[str, ArrayLike], *, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run one batch.

        Args:
            batch: an array for every input, or what NumPy makes one of, cast as `fitted` does.
            outputs: names of the outputs wanted; None for all tensors.

        Raises:
            FeedError: ONNX Runtime cannot run this batch.
        """
        wanted = list(self.output_names if outputs is None else outputs)
        session = self._session
        try:
            return dict(zip(wanted, session.run(wanted, dict(self.fitted(batch))), strict=True))
        except Exception as error:  # its classes are private, and share no base
            raise FeedError(f"{self.name} cannot run this sample: {_one_line(error)}; check its shapes") from error

    def node_placement(self, batch: Batch) -> dict[str, Counter[str]]:
        """Which nodes really run where, found by profiling one run in a second session.

        Args:
            batch: what to run.

        Returns:
            Number of nodes by op type, by provider; after ONNX Runtime's own rewrites of the graph.

        Raises:
            FeedError: ONNX Runtime cannot run this batch.
        """
        with TemporaryDirectory(prefix="onnxpress-") as folder:
            options = self._options()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = self._start(options)
            try:
                session.run(None, dict(self.fitted(batch)))
            except Exception as error:  # as in run
                raise FeedError(f"{self.name} cannot run this sample: {_one_line(error)}; check its shapes") from error
            finally:
                profile = Path(session.end_profiling())
            return count_nodes(profile)

    @property
    def _session(self) -> onnxruntime.InferenceSession:
        if self._open is None:
            raise ModelError(f"{self.name} was closed; open it again")
        return self._open

    def _options(self) -> onnxruntime.SessionOptions:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what matters is raised; the rest is noise on the user's terminal
        options.intra_op_num_threads = self._threads or 0
        # Threads that spin while they wait for more take the cores from another session whose turn it is: of two models
        # run in turns with two threads on two cores, both seem twice as slow as they are.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = {
            "none": levels.ORT_DISABLE_ALL,
            "basic": levels.ORT_ENABLE_BASIC,
            "extended": levels.ORT_ENABLE_EXTENDED,
            "all": levels.ORT_ENABLE_ALL,
        }[self._optimise]
        if self._file_order:
            options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
        if self._weights_folder is not None:
            key = "session.model_external_initializers_file_folder_path"
            options.add_session_config_entry(key, str(self._weights_folder.absolute()))
        return options

    def _start(self, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        import onnxruntime

        missing = [name for name in self.providers if name not in available_providers()]
        if missing:
            raise ProviderError(_absent(missing, "was built without it"))
        if isinstance(self._model, Path) and not self._model.is_file():
            raise ModelError(f"no file {self._model}; check the path")
        if isinstance(self._model, Path):
            refuse_packed(self._model)
        model = self._model if isinstance(self._model, bytes) else str(self._model)
        try:
            session = onnxruntime.InferenceSession(model, options, providers=list(self.providers))
        except Exception as error:  # its classes are private, and share no base
            raise ModelError(f"ONNX Runtime cannot load {self.name}: {_one_line(error)}") from error
        session.disable_fallback()  # else a failing run starts again elsewhere, unasked
        lost = [name for name in self.providers if name not in session.get_providers()]
        if lost:
            raise ProviderError(_absent(lost, f"runs on {', '.join(session.get_providers())} in its place"))
        return session

    def _dtype(self, name: str, kind: str) -> np.dtype[Any]:
        element = kind.removeprefix("tensor(").removesuffix(")")
        if element not in _ELEMENTS:
            raise ModelError(f"input {name!r} of {self.name} is {kind}; only tensors of NumPy's types can be fed")
        return np.dtype(_ELEMENTS[element])

    def _shape(self, name: str, dims: Sequence[int | str | None]) -> tuple[int | str | None, ...] | None:
        # ONNX Runtime gives [] for a scalar and for an unknown rank.
        if dims or self._is_scalar(name):
            return tuple(dims)
        return None

    def _is_scalar(self, name: str) -> bool:
        import onnx

        if isinstance(self._model, bytes):
            model = onnx.load_model_from_string(self._model)
        else:
            model = onnx.load(self._model, load_external_data=False)
        return any(value.name == name and value.type.tensor_type.HasField("shape") for value in model.graph.input)


def _absent(providers: Sequence[str], why: str) -> str:
    names = ", ".join(providers)
    advice = "; install onnxruntime-gpu and its CUDA libraries" if "CUDA" in names or "Tensorrt" in names else ""
    return f"{names} cannot be had: this ONNX Runtime {why}{advice or '; choose another provider'}"


def _one_line(error: Exception) -> str:
    """What ONNX Runtime says, without its prefix: `[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : …`."""
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : (\w+) : ", r"", text)
    return (text if len(text) <= 300 else text[:297] + "...").rstrip(".")
