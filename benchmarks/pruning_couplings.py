"""How much of a model the couplings explain: groups found, groups frozen and why, and what pruning them leaves."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.table import Table

from onnxpress import Pipeline
from onnxpress.calibration.feeds import open_feed
from onnxpress.calibration.session import Runner
from onnxpress.models.zoo import ZOO, path
from onnxpress.options import read_pass
from onnxpress.rewriter.couplings import Couplings, find_couplings
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites

PASS = {"prune-channels": {"pruning_ratio": 0.25}}
"""What is tried on each model, without samples: here only shapes matter."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """One model.

    Attributes:
        model: its name.
        groups: of coupled axes that touch a weight.
        free: of those that may be pruned.
        frozen: reasons of the others, names left out, with their number.
        missing: axes of weights whose channels, or some of them, are in no group.
        changed: sites or groups that 25 % of units were taken from.
        bytes_left: part of the weights' bytes.
        kept_shapes: whether inputs and outputs have the shapes they had, declared and when run.
        failed: why there is no pruned model that runs.
    """

    model: str
    groups: int
    free: int
    frozen: dict[str, int]
    missing: tuple[str, ...]
    changed: int = 0
    bytes_left: float = 1.0
    kept_shapes: bool = False
    failed: str | None = None

    @property
    def broken(self) -> str | None:
        """What is not as promised: all axes are in groups, the pruned model runs, shapes are kept."""
        if self.failed or self.missing:
            return self.failed or f"axes in no group: {', '.join(self.missing)}"
        return None if self.kept_shapes else "inputs or outputs changed their shapes"


def coverage(name: str, *, threads: int) -> Coverage:
    """Find the groups of a model, prune them, and run what is left."""
    model = Pipeline([])(Model.load(path(name))).model
    couplings = find_couplings(model)
    reasons = Counter(_nameless(group.frozen) for group in couplings.groups if group.frozen is not None)
    found = Coverage(
        model=name,
        groups=len(couplings.groups),
        free=sum(group.frozen is None for group in couplings.groups),
        frozen=dict(reasons.most_common()),
        missing=tuple(_missing(model, couplings)),
    )
    try:
        return _pruned(found, model, threads)
    except Exception as error:  # a bug costs its model's row, not the run
        return replace(found, failed=f"{type(error).__name__}: {error}".partition("\n")[0][:300])


def _pruned(found: Coverage, model: Model, threads: int) -> Coverage:
    result = Pipeline([read_pass(PASS, found.model)])(model)
    batch = next(iter(open_feed(ZOO[found.model].calibration, inputs=model.inputs)))
    with tempfile.TemporaryDirectory(prefix="couplings-") as folder:
        shapes = []
        for number, each in enumerate((model, result.model)):
            file = Path(folder) / f"{number}.onnx"
            each.save(file)
            with Runner(file, threads=threads) as runner:
                outputs = {name: array.shape for name, array in runner.run(batch).items()}
                shapes.append((each.inputs, each.outputs, _declared(each), outputs))
    return replace(
        found,
        changed=sum(len(report.changes) for report in result.reports if report.name in PASS),
        bytes_left=result.model.weight_bytes() / model.weight_bytes(),
        kept_shapes=shapes[0] == shapes[1],
    )


def _declared(model: Model) -> list[object]:
    return [(each.name, each.shape) for each in (*model.graph.inputs, *model.graph.outputs)]


def _missing(model: Model, couplings: Couplings) -> list[str]:
    """Axes of weights, kernels and single elements aside, with an element that no group holds."""
    held: dict[tuple[int, int], int] = Counter()
    for member in (member for group in couplings.groups for member in group.members):
        held[id(member.tensor), member.axis] += np.unique(member.indices).size  # no element is in two groups
    return [
        f"{site.name}:{axis}"
        for site in find_sites(model)
        for axis, meaning in enumerate(site.axes)
        if meaning != "kernel" and site.shape[axis] > 1 and held[id(site.weight), axis] < site.shape[axis]
    ]


def _nameless(reason: str) -> str:
    """A reason without the names in it, so that equal ones are counted together."""
    return re.sub(r"'[^']*'", "…", reason)


def table(found: Sequence[Coverage]) -> Table:
    """A row for each model."""
    result = Table(
        "",
        "groups",
        "can be pruned",
        "frozen, because",
        "in no group",
        "pruned",
        "bytes left",
        "shapes",
        title="groups of coupled axes; 25 % of the units of all that can be pruned are taken",
    )
    for each in found:
        reasons = "; ".join(f"{count} × {reason}" for reason, count in each.frozen.items())
        kept = "kept" if each.kept_shapes else "changed"
        result.add_row(
            each.model,
            str(each.groups),
            str(each.free),
            reasons,
            ", ".join(each.missing) or "none",
            str(each.changed),
            f"{each.bytes_left:.1%}",
            f"failed: {each.failed}" if each.failed else kept,
        )
    return result
