"""Ways to write a layer as a chain of smaller ones: geometry, cost, factors; no graph is edited here."""

from onnxpress.passes.factorize.schemes.base import Scheme
from onnxpress.passes.factorize.schemes.channel import ChannelScheme, SVDScheme
from onnxpress.passes.factorize.schemes.cp import CPScheme
from onnxpress.passes.factorize.schemes.groups import GroupScheme
from onnxpress.passes.factorize.schemes.lookup import LookupScheme
from onnxpress.passes.factorize.schemes.separable import SeparableScheme
from onnxpress.passes.factorize.schemes.spatial import SpatialScheme
from onnxpress.passes.factorize.schemes.train import TrainScheme
from onnxpress.passes.factorize.schemes.tucker import TuckerScheme

SCHEMES: tuple[Scheme, ...] = (
    SVDScheme(),
    ChannelScheme(),
    SpatialScheme(),
    TuckerScheme(),
    CPScheme(),
    TrainScheme(),
    SeparableScheme(),
    GroupScheme(),
    LookupScheme(),
)
"""All of them."""
