"""Several observers of one tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from onnxpress.calibration.batches import Array
from onnxpress.calibration.observers.base import Observer
from onnxpress.rewriter.errors import ConfigError


class Several:
    """Shows one tensor to several observers: layers may read it in different ways.

    Attributes:
        observers: by any name.
    """

    def __init__(self, observers: Mapping[str, Observer]) -> None:
        """Start with what the observers have seen."""
        self.observers = dict(observers)

    def update(self, array: Array, /) -> None:
        """Show the tensor of one batch to all."""
        for observer in self.observers.values():
            observer.update(array)

    def merge(self, other: Self, /) -> None:
        """Let each take in what the one of the same name saw.

        Raises:
            ConfigError: the names differ, or an observer was set up otherwise.
        """
        if self.observers.keys() != other.observers.keys():
            mine, others = (", ".join(sorted(each)) for each in (self.observers, other.observers))
            raise ConfigError(f"observers {mine} cannot take in {others}")
        for name, observer in self.observers.items():
            observer.merge(other.observers[name])

    def state(self) -> dict[str, Array]:
        """The states of all, as `name/entry`."""
        return {f"{name}/{key}": value for name, each in self.observers.items() for key, value in each.state().items()}
