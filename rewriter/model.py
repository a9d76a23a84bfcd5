"""A model that passes edit: load, look, save, clone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxpress.rewriter.decode import decode_graph
from onnxpress.rewriter.encode import encode_graph
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.names import NameAllocator
from onnxpress.rewriter.save import save_skeleton
from onnxpress.rewriter.skeleton import Skeleton, lift, tensors, to_bytes
from onnxpress.rewriter.specs import InputSpec
from onnxpress.rewriter.walk import graphs
from onnxpress.rewriter.weights import Array, Dense, Produced, SparseForm, Stored, Values, read, values_of

DEFAULT_DOMAINS = ("", "ai.onnx")


class Model:
    """An ONNX model as an editable graph; large weights stay on disk until they are replaced.

    Attributes:
        graph: the main graph; its nodes and tensors are graphsurgeon's.
        functions: local functions, as messages.
        header: everything else a ModelProto says (opsets, metadata, producer, training information).
        names: gives out names that are free in the whole model.
        external: its weights lay in a file of their own.
        files: that it was loaded from, also where no weight is read from them any more.
    """

    def __init__(self, skeleton: Skeleton, *, external: bool = False, files: frozenset[Path] = frozenset()) -> None:
        _refuse_unknown_versions(skeleton.proto)
        self.external = external
        self.files = files
        self.reset(skeleton)

    def reset(self, skeleton: Skeleton) -> None:
        """Become what `skeleton` says, for rewrites that work on messages."""
        proto = skeleton.proto
        self.graph: gs.Graph = decode_graph(proto.graph, skeleton)
        self.functions: list[onnx.FunctionProto] = list(proto.functions)
        self.header = onnx.ModelProto()
        self.header.CopyFrom(proto)
        for name in ("graph", "functions"):
            self.header.ClearField(name)
        self.names = NameAllocator(self._all_names())

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """Read a model file.

        Raises:
            ModelError: the file is missing, broken, of an unknown version, or refers to data it must not.
        """
        path = Path(path)
        skeleton = lift(path)
        files = {values.source.path for values in skeleton.table if isinstance(values, Stored)}
        try:
            return cls(skeleton, external=bool(files - {path}), files=frozenset({path.absolute(), *files}))
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error

    @classmethod
    def from_proto(cls, proto: onnx.ModelProto) -> Model:
        """Take a model from memory; `proto` is not kept.

        Raises:
            ModelError: it is of an unknown version, or some of its weights are not in it.
        """
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        for tensor in tensors(copy.graph):
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                raise ModelError(f"tensor '{tensor.name}' lies in another file: load the model by its path")
        return cls(Skeleton(copy))

    def skeleton(self) -> Skeleton:
        """The model as a message without its large weights."""
        out = Skeleton(onnx.ModelProto())
        out.proto.CopyFrom(self.header)
        out.proto.graph.CopyFrom(encode_graph(self.graph, out, constants=self.constants()))
        out.proto.functions.extend(self.functions)
        return out

    def clone(self) -> Model:
        """An independent model; the arrays of weights are shared, for nobody writes into them."""
        return Model(self.skeleton(), external=self.external, files=self.files)

    def to_proto(self) -> onnx.ModelProto:
        """The whole model as one message; for models well below 2 GB."""
        proto = onnx.ModelProto()
        proto.ParseFromString(to_bytes(self.skeleton()))
        return proto

    def save(self, path: str | Path, *, external_data: bool | None = None, overwrite_source: bool = False) -> int:
        """Write the model: streamed to a temporary file, then renamed.

        Args:
            path: of the model file.
            external_data: weights go to a file beside it; None: as the model was loaded, and always above 2 GB.
            overwrite_source: allow `path` to be a file the model was loaded from.

        Returns:
            Bytes written, external data included.

        Raises:
            ModelError: the file cannot be written, or is the model's own source.
        """
        path = Path(path)
        if not overwrite_source and path.exists() and any(f.samefile(path) for f in self.files if f.exists()):
            raise ModelError(f"{path} is the input model: choose another output path")
        return save_skeleton(self.skeleton(), path, external=self.external if external_data is None else external_data)

    @property
    def opset(self) -> int:
        """Version of the standard operators."""
        return self.opset_of("")

    def opset_of(self, domain: str) -> int:
        """Version of a domain's operators, 0 where the model imports none."""
        names = DEFAULT_DOMAINS if domain in DEFAULT_DOMAINS else (domain,)
        return next((int(o.version) for o in self.header.opset_import if o.domain in names), 0)

    def import_domain(self, domain: str, version: int) -> None:
        """Let the model use a domain's operators."""
        if not self.opset_of(domain):
            self.header.opset_import.add(domain=domain, version=version)

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """What a caller has to give: the graph inputs that have no default."""
        return tuple(_spec(each) for each in self.graph.inputs if not isinstance(each, gs.Constant))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph outputs."""
        return tuple(each.name for each in self.graph.outputs)

    def constants(self) -> list[gs.Constant]:
        """Constants of the main graph: its initializers, then those that passes brought in."""
        found: dict[int, gs.Constant] = {id(c): c for c in self.graph.constants}
        below = {id(c) for graph in graphs(self.graph) if graph is not self.graph for c in graph.constants}
        for tensor in self._used_tensors():
            if isinstance(tensor, gs.Constant) and id(tensor) not in below:
                found.setdefault(id(tensor), tensor)
        return list(found.values())

    def sparse_weights(self) -> list[gs.Constant]:
        """The sparse initializers, in all graphs."""
        inner = [c for graph in graphs(self.graph) if graph is not self.graph for c in graph.constants]
        return [each for each in [*self.constants(), *inner] if isinstance(values_of(each), SparseForm)]

    def array(self, constant: gs.Constant) -> Array:
        """The values of a constant, read-only."""
        return read(constant)

    def add_weight(self, hint: str, values: Array | Values) -> gs.Constant:
        """A new constant under a fresh name."""
        held = values if isinstance(values, Values) else Dense(values)
        return gs.Constant(self.names.fresh(hint), held)

    def replace_weight(self, constant: gs.Constant, values: Array | Values | Callable[[], Array]) -> None:
        """Give a constant new values, for all its users.

        Args:
            constant: whose values are replaced.
            values: an array; values that come later (`Streamed`, …); or a function that computes an array of the same
                shape and dtype whenever it is needed.
        """
        if isinstance(values, Values):
            constant._values = values
        elif callable(values):
            old = values_of(constant)
            constant._values = Produced(old.shape, old.dtype, values)
        else:
            constant._values = Dense(values)

    def weight_bytes(self) -> int:
        """Stored bytes of all constants, those of Constant nodes included."""
        every = {id(c): c for c in self.constants()}
        for graph in graphs(self.graph):
            attributes = [v for n in graph.nodes for v in n.attrs.values() if isinstance(v, gs.Constant)]
            every |= {id(c): c for c in [*graph.constants, *attributes]}
        return sum(values_of(c).stored_bytes for c in every.values())

    def _used_tensors(self) -> Iterator[gs.Tensor]:
        for graph in graphs(self.graph):
            for node in graph.nodes:
                yield from node.inputs
            yield from graph.outputs

    def _all_names(self) -> set[str]:
        taken: set[str] = set()
        for graph in graphs(self.graph):
            taken |= {c.name for c in graph.constants} | {t.name for t in graph.inputs}
            for node in graph.nodes:
                taken.add(node.name)
                taken |= {t.name for t in [*node.inputs, *node.outputs]}
        return taken


def _spec(tensor: gs.Variable) -> InputSpec:
    shape = None if tensor.shape is None else tuple(tensor.shape)
    return InputSpec(tensor.name, np.dtype(tensor.dtype if tensor.dtype is not None else object), shape)


def _refuse_unknown_versions(proto: onnx.ModelProto) -> None:
    """Refuse what this installation cannot understand, rather than guess.

    Raises:
        ModelError: no graph, no opset, or an IR version or opset newer than the installed onnx.
    """
    if not proto.ir_version or not proto.HasField("graph") or not (proto.graph.output or proto.graph.node):
        raise ModelError("not an ONNX model: it holds no graph")
    if not proto.opset_import:
        raise ModelError("it imports no operators: it is truncated, or older than ONNX 1.0")
    if proto.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"IR version {proto.ir_version} is newer than {onnx.IR_VERSION}, the newest that onnx "
            f"{onnx.__version__} knows: install a newer onnx, or export with an older format"
        )
    newest = onnx.defs.onnx_opset_version()
    for opset in proto.opset_import:
        if opset.domain in DEFAULT_DOMAINS and opset.version > newest:
            raise ModelError(
                f"opset {opset.version} is newer than {newest}, the newest that onnx {onnx.__version__} knows: "
                "install a newer onnx, or export with an older opset"
            )
