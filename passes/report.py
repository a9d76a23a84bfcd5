"""What a pass did and did not do: every candidate site ends as a `Change` or a `Skip`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal


@dataclass(frozen=True, slots=True)
class Change:
    """One site that was changed.

    Attributes:
        site: name of the site.
        action: what was done, as a short phrase with its figures: `rank 96 of 512`, `90.0 % zeros`.
        bytes_before: stored bytes of the weights concerned, before.
        bytes_after: the same, after.
        error: relative error of the weight, ‖W − W'‖ / ‖W‖ (Frobenius); None where it has no meaning.
    """

    site: str
    action: str
    bytes_before: int | None = None
    bytes_after: int | None = None
    error: float | None = None


@dataclass(frozen=True, slots=True)
class Skip:
    """One site that was left alone, and why, in a sentence a user can act on."""

    site: str
    reason: str


@dataclass(frozen=True, slots=True)
class Harm:
    """What one tensor on codes does alone to the outputs of the model.

    Attributes:
        tensor: its name.
        reader: the first output of the only node that reads the codes; None where all its readers do.
        kind: `activation` or `weight`.
        sqnr: signal to noise of the worst output, in dB.
    """

    tensor: str
    reader: str | None
    kind: str
    sqnr: float


@dataclass(frozen=True, slots=True)
class Curve:
    """How sensitive a model is to what is taken from one site or group: error against ratio.

    Attributes:
        site: name of the site or of the group of coupled axes.
        unit: what the ratios are parts of: `sparsity`, `channels`, `neurons`, `heads`, ….
        ratios: parts removed, ascending, each in [0, 1].
        errors: signal to noise in dB at each ratio; infinite where nothing changes.
        where: `outputs` for the worst output of the model, `layer` for the output of the layer itself.

    Raises:
        ValueError: not one error for each ratio, one that is no number, or ratios that do not ascend within [0, 1].
    """

    site: str
    unit: str
    ratios: tuple[float, ...]
    errors: tuple[float, ...]
    where: Literal["outputs", "layer"]

    def __post_init__(self) -> None:
        """Check that ratios and errors belong together."""
        if len(self.ratios) != len(self.errors):
            raise ValueError(f"curve {self.site}: {len(self.ratios)} ratios, but {len(self.errors)} errors")
        if any(math.isnan(error) for error in self.errors):
            raise ValueError(f"curve {self.site}: an error is no number: {list(self.errors)}")
        ascending = all(first < second for first, second in pairwise(self.ratios))
        if not ascending or not all(0 <= ratio <= 1 for ratio in self.ratios):
            raise ValueError(f"curve {self.site}: ratios must ascend within [0, 1], not {list(self.ratios)}")


@dataclass(slots=True)
class Report:
    """The account of one pass.

    Attributes:
        name: the pass.
        options: its options, as a recipe would write them.
        changes: what was changed.
        skips: what was not, with reasons.
        warnings: what the user must know although nothing failed.
        notes: what was measured of the whole, in sentences.
        tensors: why each tensor carries codes or not, by name; empty for passes that place none.
        harms: what each tensor on codes does alone to the outputs, the worst first; empty where it was not tried.
        curves: error against ratio of each site or group; empty for passes that measure none.
        renamed: what tensors were called before, by the name that they have now; empty for passes that rename none.
        seconds: wall time of the pass.
    """

    name: str
    options: dict[str, object] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tensors: dict[str, str] = field(default_factory=dict)
    harms: list[Harm] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def change(
        self,
        site: str,
        action: str,
        *,
        bytes_before: int | None = None,
        bytes_after: int | None = None,
        error: float | None = None,
    ) -> None:
        """Record a change."""
        self.changes.append(Change(site, action, bytes_before, bytes_after, error))

    def skip(self, site: str, reason: str) -> None:
        """Record a site left alone."""
        self.skips.append(Skip(site, reason))
