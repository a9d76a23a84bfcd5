"""What passes over weights share: which sites they take, how they see them, and how they refuse a bad option."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxpress.passes.base import Pass
from onnxpress.passes.report import Report
from onnxpress.rewriter.errors import ConfigError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import OPERATORS, Axis, Site, find_sites, select

LAZY = 1 << 20
"""Bytes from which a rewritten weight is promised instead of computed, so that a large model is never in memory."""

_ORDER = ("batch", "out", "in", "kernel")


@dataclass(frozen=True, kw_only=True)
class SitePass(Pass, ABC):
    """A pass that works on sites one by one.

    Attributes:
        include: globs over site, weight or operator names; a site that matches none is left alone.
        exclude: globs of sites that are left alone.
        min_size: weights with fewer elements are left alone.
    """

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    min_size: int = 1

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigError: one of them means nothing.
        """
        check_globs(self, "include")
        check_globs(self, "exclude")
        check_count(self, "min_size", least=0)

    def candidates(self, model: Model, report: Report) -> list[Site]:
        """Sites this pass is to work on; the others are skipped with the reason."""
        sites = find_sites(model)
        chosen = {id(site) for site in select(sites, include=self.include, exclude=self.exclude)}
        named = {*self.include, *self.exclude} - {"*"}
        if sites and not chosen and not named <= OPERATORS:  # a model may well have no weights of some operators
            report.warnings.append(f"include and exclude leave none of {len(sites)} weights; see `onnxpress inspect`")
        left = []
        for site in sites:
            if id(site) not in chosen:
                report.skip(site.name, "excluded by the recipe")
            elif site.size == 0:
                report.skip(site.name, "has no weights")
            elif site.size < self.min_size:
                report.skip(site.name, f"has {site.size} weights, fewer than min_size {self.min_size}")
            else:
                left.append(site)
        return left


class RefusalError(Exception):
    """Ends the work on one site; the text is the reason of its skip."""


@contextmanager
def skipping(report: Report, name: str) -> Iterator[None]:
    """Work on one site: a refusal in it becomes the reason why the site is skipped.

    Args:
        report: gets the skip.
        name: of the site.
    """
    try:
        yield
    except RefusalError as refusal:
        report.skip(name, str(refusal))


@dataclass(frozen=True, slots=True)
class Layout:
    """How the stored array of a weight is a matrix [batch·out, in·kernel].

    Apart from its site, since a promised weight is computed when the graph may have changed.

    Attributes:
        axes: what each stored axis means.
        shape: as stored.
    """

    axes: tuple[Axis, ...]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, site: Site) -> Layout:
        """The layout of a site's weight as it is now."""
        return cls(site.axes, site.shape)

    @property
    def rows(self) -> int:
        """Rows of the matrix: outputs."""
        return math.prod(size for size, axis in zip(self.shape, self.axes, strict=True) if axis in ("batch", "out"))

    def to_rows(self, array: NDArray[Any]) -> NDArray[Any]:
        """A stored array as matrix; a view where the layout allows it."""
        return array.transpose(self.order()).reshape(self.rows, -1)

    def from_rows(self, rows: NDArray[Any]) -> NDArray[Any]:
        """A matrix in the stored layout again, contiguous."""
        order = self.order()
        wide = rows.reshape([self.shape[axis] for axis in order])
        return np.ascontiguousarray(wide.transpose(np.argsort(order)))

    def order(self) -> list[int]:
        """The stored axes in the order in which the matrix has them."""
        return sorted(range(len(self.axes)), key=lambda index: (_ORDER.index(self.axes[index]), index))


def wrong(owner: Pass, field: str, requirement: str) -> ConfigError:
    """The error that names pass, field and value."""
    return ConfigError(f"{owner.name}: {field} must {requirement}, got {getattr(owner, field)!r}")


def check_globs(owner: Pass, field: str) -> None:
    """Make a list, as it comes from a recipe, a tuple; refuse what is no list of strings.

    Raises:
        ConfigError: names the field.
    """
    globs = getattr(owner, field)
    if not isinstance(globs, list | tuple) or not all(isinstance(each, str) for each in globs):
        raise wrong(owner, field, "be a list of globs")
    object.__setattr__(owner, field, tuple(globs))


def check_fraction(owner: Pass, field: str) -> None:
    """Refuse what is not in (0, 1].

    Raises:
        ConfigError: names the field.
    """
    value = getattr(owner, field)
    if not is_number(value) or not 0 < value <= 1:
        raise wrong(owner, field, "lie in (0, 1]")


def check_part(owner: Pass, field: str) -> None:
    """Refuse what is not in (0, 1).

    Raises:
        ConfigError: names the field.
    """
    value = getattr(owner, field)
    if not is_number(value) or not 0 < value < 1:
        raise wrong(owner, field, "lie in (0, 1)")


def check_flag(owner: Pass, field: str) -> None:
    """Refuse what is neither true nor false.

    Raises:
        ConfigError: names the field.
    """
    if not isinstance(getattr(owner, field), bool):
        raise wrong(owner, field, "be true or false")


def check_count(owner: Pass, field: str, *, least: int = 1) -> None:
    """Refuse what is no whole number of at least `least`.

    Raises:
        ConfigError: names the field.
    """
    value = getattr(owner, field)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise wrong(owner, field, f"be a whole number of at least {least}")


def check_choice(owner: Pass, field: str, choices: Sequence[str]) -> None:
    """Refuse what is none of `choices`.

    Raises:
        ConfigError: names the field.
    """
    if getattr(owner, field) not in choices:
        raise wrong(owner, field, "be " + " or ".join(choices))


def check_exactly_one(owner: Pass, fields: Sequence[str]) -> None:
    """Refuse unless exactly one of the fields is given.

    Raises:
        ConfigError: names the fields.
    """
    given = [f"{field} {getattr(owner, field)!r}" for field in fields if getattr(owner, field) is not None]
    if len(given) != 1:
        raise ConfigError(f"{owner.name}: give exactly one of {', '.join(fields)}; got {' and '.join(given) or 'none'}")


def is_number(value: object) -> bool:
    """Whether an option is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
