"""Which sparsity is asked of which site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxpress.passes.base import Pass
from onnxpress.passes.report import Report
from onnxpress.passes.selection import wrong
from onnxpress.rewriter.sites import OPERATORS, Site, select


@dataclass(frozen=True, slots=True)
class Aim:
    """Sites of which one sparsity is asked together.

    Attributes:
        sparsity: in [0, 1).
        sites: in graph order, at least one.
        glob: of the target that they match; None for those of the rest.
    """

    sparsity: float
    sites: tuple[Site, ...]
    glob: str | None = None


def is_sparsity(value: object) -> bool:
    """Whether `value` is a number in [0, 1)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def check_targets(owner: Pass, field: str) -> None:
    """Refuse what is no mapping of globs to sparsities; keeps a copy of its own.

    Raises:
        ConfigError: names the field.
    """
    targets = getattr(owner, field)
    fits = isinstance(targets, Mapping) and all(isinstance(glob, str) for glob in targets)
    if not fits or not all(is_sparsity(value) for value in targets.values()):
        raise wrong(owner, field, "map globs over site, weight or operator names to sparsities in [0, 1)")
    object.__setattr__(owner, field, dict(targets))


def aims_of(sites: Sequence[Site], targets: Mapping[str, float], rest: float | None, report: Report) -> list[Aim]:
    """Give each site the sparsity of the first target that matches it.

    Args:
        sites: in graph order.
        targets: sparsity by glob; a site belongs to the first glob that its name, its weight's or its operator matches.
        rest: sparsity of the sites that match none; None leaves them alone.
        report: told about sites without a target, and of globs that match nothing.

    Returns:
        The targets in order, then the rest; none without sites.
    """
    left, aims = list(sites), []
    for glob, sparsity in targets.items():
        chosen = {id(site) for site in select(left, include=(glob,))}
        if not chosen and glob not in OPERATORS:
            report.warnings.append(f"targets: {glob!r} matches none of the weights left; see `onnxpress inspect`")
        aims.append(Aim(sparsity, tuple(site for site in left if id(site) in chosen), glob))
        left = [site for site in left if id(site) not in chosen]
    if rest is None:
        for site in left:
            report.skip(site.name, "no target matches it, and there is no sparsity for the rest")
    else:
        aims.append(Aim(rest, tuple(left)))
    return [aim for aim in aims if aim.sites and not _idle(aim, report)]


def _idle(aim: Aim, report: Report) -> bool:
    if aim.sparsity > 0 or aim.glob is None:
        return False
    for site in aim.sites:
        report.skip(site.name, f"target {aim.glob!r} asks for no zeros")
    return True
