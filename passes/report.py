"""What a pass did and did not do: every candidate site ends as a `Change` or a `Skip`."""

from __future__ import annotations

from dataclasses import dataclass, field


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


@dataclass(slots=True)
class Report:
    """The account of one pass.

    Attributes:
        name: the pass.
        options: its options, as a recipe would write them.
        changes: what was changed.
        skips: what was not, with reasons.
        warnings: what the user must know although nothing failed.
        tensors: why each tensor carries codes or not, by name; empty for passes that place none.
        harms: what each tensor on codes does alone to the outputs, the worst first; empty where it was not tried.
        seconds: wall time of the pass.
    """

    name: str
    options: dict[str, object] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    tensors: dict[str, str] = field(default_factory=dict)
    harms: list[Harm] = field(default_factory=list)
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
