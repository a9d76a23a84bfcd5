"""ONNX's own backend tests: what ONNX Runtime computes of a model, it computes of the normalised one.

    python -m benchmarks.backend_suite [--shard I/N]

Every model of the node, simple and PyTorch-converted cases that ONNX Runtime runs is loaded, normalised, saved and run
again, and held to what the suite expects, or, where ONNX Runtime itself differs from that, to what it computed. Prints
how many agreed, were refused (with the reason), differed or crashed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

from onnxpress.passes.pipeline import Pipeline
from onnxpress.rewriter.errors import OnnxpressError
from onnxpress.rewriter.model import Model

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
Sample = tuple[dict[str, object], list[object]]


@dataclass
class Tally:
    """How the cases ended, and what to look at."""

    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def add(self, outcome: str, case: str, note: str = "") -> None:
        """Count one case."""
        self.counts[outcome] += 1
        if note:
            self.notes.append(f"{case}: {outcome}: {note}")


def cases(shard: int, shards: int) -> Iterator[TestCase]:
    """Every `shards`-th case, from number `shard` on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [case for kind in KINDS for case in load_model_tests(kind=kind)]
    yield from found[shard::shards]


def run(shard: int = 0, shards: int = 1) -> Tally:
    """Try the cases of a shard."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(shard, shards):
            try_case(case, Path(folder), tally)
    return tally


def try_case(case: TestCase, folder: Path, tally: Tally) -> None:
    """Run one case before and after normalisation."""
    before, after = folder / "before.onnx", folder / "after.onnx"
    proto = onnx.load(Path(case.model_dir) / "model.onnx") if case.model_dir else case.model
    if proto is None:
        return tally.add("without a model", case.name)
    onnx.save(proto, before)
    try:
        samples = list(read_samples(case, proto))
        computed = [run_file(before, inputs) for inputs, _ in samples]
        again = [run_file(before, inputs) for inputs, _ in samples]
    except Exception:  # not our matter: the suite is ahead of ONNX Runtime
        return tally.add("not run by ONNX Runtime", case.name)
    right = all(agrees(got, outputs, case) for got, (_, outputs) in zip(computed, samples, strict=True))
    if not right:  # 4-bit values that Python cannot hand over packed, other tolerances: ONNX Runtime is the truth
        if not all(agrees(got, twice, case) for got, twice in zip(computed, again, strict=True)):
            return tally.add("random", case.name)
        samples = [(inputs, got) for (inputs, _), got in zip(samples, computed, strict=True)]
    try:
        Pipeline([])(Model.load(before)).model.save(after)
    except OnnxpressError as error:
        return tally.add("refused", case.name, str(error))
    except Exception as error:
        return tally.add("crashed", case.name, repr(error))
    try:
        same = all(agrees(run_file(after, inputs), outputs, case) for inputs, outputs in samples)
    except Exception as error:
        return tally.add("does not run any more", case.name, str(error).splitlines()[0])
    agreed = "agreed" if right else "agreed with ONNX Runtime, which differs from the suite here"
    return tally.add(agreed, case.name) if same else tally.add("differs", case.name, "beyond the tolerances")


def run_file(path: Path, inputs: dict[str, object]) -> list[object]:
    """The outputs of a model file on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {name: fed(value) for name, value in inputs.items()})


def fed(value: object) -> object:
    """A value as ONNX Runtime takes it: types that NumPy lacks need their ONNX type told."""
    array = as_array(value)
    if not isinstance(array, np.ndarray) or array.dtype.kind != "V":
        return array
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    bits = array.view(f"u{array.dtype.itemsize}")
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, kind)


def as_array(value: object) -> object:
    """An array where the suite gives a message or a NumPy scalar; else the value itself."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def read_samples(case: TestCase, proto: onnx.ModelProto) -> Iterator[Sample]:
    """Inputs by name and expected outputs of each data set."""
    defaults = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in defaults]
    if not case.model_dir:
        for given, expected in case.data_sets:
            yield {value.name: array for value, array in zip(inputs, given, strict=True)}, list(expected)
        return
    for folder in sorted(Path(case.model_dir).glob("test_data_set_*")):
        given = {v.name: read_value(folder / f"input_{i}.pb", v.type) for i, v in enumerate(inputs)}
        yield given, [read_value(folder / f"output_{i}.pb", v.type) for i, v in enumerate(proto.graph.output)]


def read_value(path: Path, kind: onnx.TypeProto) -> object:
    """A tensor, sequence or optional from a file of the suite."""
    if kind.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(path.read_bytes()))
    if kind.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(path.read_bytes()))
    return numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))


def agrees(got: Sequence[object], want: Sequence[object], case: TestCase) -> bool:
    """Whether outputs equal the expected ones within the suite's tolerances."""
    return len(got) == len(want) and all(close(a, b, case) for a, b in zip(got, want, strict=True))


def close(got: object, want: object, case: TestCase) -> bool:
    """The same for one value."""
    if isinstance(want, list):
        return isinstance(got, list) and agrees(got, want, case)
    if want is None or got is None:
        return want is got
    a, b = np.asarray(got), np.asarray(as_array(want))
    if b.dtype.kind == "V" and a.dtype != b.dtype and a.dtype.itemsize == b.dtype.itemsize:
        a = a.view(b.dtype)  # as ONNX Runtime gives what NumPy lacks
    if b.dtype.kind in "OUS":
        return bool(a.shape == b.shape and (a.astype(str) == b.astype(str)).all())
    wide = np.complex128 if b.dtype.kind == "c" else np.float64
    return a.shape == b.shape and np.allclose(
        a.astype(wide), b.astype(wide), rtol=case.rtol, atol=case.atol, equal_nan=True
    )


def main() -> int:
    """Print the tally; 1 if anything crashed, differed or no longer ran."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shard", default="0/1", help="I/N: only every N-th case, from number I on")
    shard, shards = map(int, parser.parse_args().shard.split("/"))
    tally = run(shard, shards)
    for outcome, count in tally.counts.most_common():
        print(f"{count:6d} {outcome}")
    print("\n".join(tally.notes))
    return int(any(tally.counts[each] for each in ("crashed", "differs", "does not run any more")))


if __name__ == "__main__":
    sys.exit(main())
