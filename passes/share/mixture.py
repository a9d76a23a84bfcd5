"""Weight sharing by a mixture of Gaussians: every weight takes the value of the component it most likely comes from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from onnxpress.passes.jobs import Stored
from onnxpress.passes.kernels.arrays import Array, pieces
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.kernels.mixture import Mixture, fit_mixture, settle
from onnxpress.passes.kernels.packing import distinct
from onnxpress.passes.selection import RefusalError, check_count, check_fraction, wrong
from onnxpress.passes.share.alone import AlonePass, Shared
from onnxpress.passes.share.saving import check_saving
from onnxpress.passes.storing import narrowed


@dataclass(frozen=True, kw_only=True)
class ShareMixture(AlonePass):
    """Share weights by a mixture of Gaussians (Ullrich et al., "Soft Weight-Sharing for Network Compression", 2017).

    A mixture is fitted to the weights of each site, or a sample of them. The component nearest to zero is a spike: its
    weights become zero. Components that overlap are taken together, then each weight goes to the one most responsible
    for it, and all of a component take their mean. Zeros stay zero. The paper trains the weights towards the components
    as well; here they stay what they are, and no samples are needed.

    Attributes:
        components: Gaussians at the start, 2 to 256, the spike among them; so many values at most are left.
        overlap: in (0, 1]: neighbours that overlap more are taken together, by Bhattacharyya's coefficient ∫ √(p·q),
            which is 0 for those that are apart and 1 for equal ones; with 1 all stay.
        min_size: weights with fewer elements are left alone.
    """

    name: ClassVar[str] = "share-mixture"
    components: int = 16
    overlap: float = 0.95
    min_size: int = 256

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_count(self, "components", least=2)
        if self.components > 256:
            raise wrong(self, "components", "lie in 2 to 256")
        check_fraction(self, "overlap")

    def shared(self, weight: Stored, *, seed: int) -> Shared:
        """The weights with the means of their components.

        Raises:
            RefusalError: that saves nothing, changes nothing, or cannot be done.
        """
        array = weight.array
        if distinct(array, self.components) is not None:
            raise RefusalError(f"has no more than {self.components} distinct values already")
        check_saving(array.size, array.itemsize, codes=self.components, what=f"{self.components} components")
        mixture, means = settle(array, self._mixture(array, seed))
        values = narrowed(means, array.dtype)
        error = relative_error(array, values[mixture.assign(array)])
        zeros = sum(int(np.count_nonzero(mixture.assign(piece) == mixture.spike)) for piece in pieces(array))
        merged = f" of {self.components}" if values.size < self.components else ""
        said = f"{values.size} components{merged}, {zeros / array.size:.1%} zeros"
        return Shared(partial(_means, mixture, values), said, error)

    def _mixture(self, weight: Array, seed: int) -> Mixture:
        try:
            mixture = fit_mixture(weight, self.components, seed=seed).merged(self.overlap)
        except ValueError as error:
            raise RefusalError(str(error)) from error
        if mixture.means.size < 2:
            raise RefusalError(
                f"all {self.components} components overlap by more than {self.overlap:g}, so only zero would be left; "
                "raise overlap"
            )
        return mixture


def _means(mixture: Mixture, values: Array, weight: Array) -> Array:
    """The value of the component of each weight."""
    return np.asarray(values[mixture.assign(weight)])
