"""Couplings: which axes of which tensors are the same dimension, and so must lose the same elements together."""

from __future__ import annotations

from dataclasses import dataclass

from onnxpress.rewriter.couplings.engine import write_ledger
from onnxpress.rewriter.couplings.groups import Group, Member, build_groups
from onnxpress.rewriter.couplings.removal import remove_units
from onnxpress.rewriter.couplings.reordering import reasons_to_stay, reorder_units
from onnxpress.rewriter.errors import ModelError
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import find_sites

__all__ = ["Couplings", "Group", "Member", "find_couplings", "reasons_to_stay", "remove_units", "reorder_units"]


@dataclass(frozen=True, slots=True)
class Couplings:
    """The groups of a model, as it was when they were found.

    Attributes:
        groups: those that touch an axis of a site's weight, kernels excluded, in graph order; and frozen ones of large
            constants that are no site's, so that every weight is in some group.
    """

    groups: tuple[Group, ...]

    def by_name(self, name: str) -> Group:
        """The group of that name.

        Raises:
            ModelError: there is none.
        """
        for group in self.groups:
            if group.name == name:
                return group
        raise ModelError(f"no group of coupled axes is called '{name}': inspect --couplings lists them")


def find_couplings(model: Model) -> Couplings:
    """Find what has to go together; a clone gives groups of equal names in equal order."""
    ledger, _ = write_ledger(model)
    return Couplings(build_groups(ledger, find_sites(model)))
