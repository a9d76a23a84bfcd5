"""What a model declares about its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One graph input.

    Attributes:
        name: of the input.
        dtype: of its elements.
        shape: sizes; a str is a named dynamic dimension, None an unnamed one. None where the rank is unknown.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...] | None
