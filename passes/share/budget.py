"""How sparse each weight becomes and how many bits its values get, so that a file of some size loses least."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from onnxpress.passes.base import Workbench
from onnxpress.passes.prune.zeros.targets import is_sparsity
from onnxpress.passes.report import Report
from onnxpress.passes.selection import SitePass, check_count, check_exactly_one, check_flag, is_number, wrong
from onnxpress.passes.share.sharing import Sharing, Tried
from onnxpress.passes.share.stored import refusals
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site


@dataclass(frozen=True, kw_only=True)
class ShareBudget(SitePass):
    """Prune and share weights together for a file of a given size: zeros and fewer bits go where they harm least.

    For each weight, some of its outputs are pruned by second order at several sparsities and get values for codes of
    several widths. What each takes in the encoded file is known from the estimates of `encode`; what it does to the
    layer from second moments of samples held out; what that does to the outputs of the model is measured. The bytes
    are then shared out at the least sum of errors (Everett, 1963; Shoham and Gersho, 1988), and layers are pruned,
    shared and refitted one after another, each to what the original gave, of what the layers before it now give. What
    one takes less or more than was expected goes to those behind. Last, the outputs are judged on samples held out:
    where they are much worse than predicted, what each weight does there is measured, the bytes are shared out once
    more, and the better of both results is kept. The weights stay dense arrays; put `encode` behind.

    Without samples the error of each weight counts, ‖W − W'‖² / ‖W‖², the largest weights stay, and nothing is
    refitted.

    Attributes:
        bytes: the whole file is to take after `encode`; exactly one of `bytes`, `ratio` and `bits`.
        ratio: how many times smaller the weights that are worked on become, with all that decodes them.
        bits: of these weights on average, in the same way.
        sparsities: at which weights are tried, each in [0, 1); what lies between them may be chosen, too.
        widths: bits of a code for the values of weights that stay, each 1 to 8. At most four of them are tried, for
            noise falls by 6 dB a bit, nearly.
        huffman: whether `encode` may use Huffman codes; without them each weight gets 2^bits values.
        max_load_bytes: as in `encode`: memory that loading may take beyond what the dense model takes. Huffman codes
            take most, so the smallest weights have them, as many as there is memory for. None: 2 GiB, or 16 bytes a
            weight where that is more.
        max_load_seconds: as in `encode`: that loading may take longer, by its estimates; Huffman codes take most here,
            too. None sets no limit.
        min_size: weights with fewer elements are left alone.
        vary: where samples of a model that reads tokens are few, learn from variations of them, too.
    """

    name: ClassVar[str] = "share-budget"
    learns: ClassVar[bool] = True
    bytes: int | None = None
    ratio: float | None = None
    bits: float | None = None
    sparsities: tuple[float, ...] = (0.0, 0.5, 0.75, 0.9, 0.97)
    widths: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    huffman: bool = True
    max_load_bytes: int | None = None
    max_load_seconds: float | None = None
    min_size: int = 256
    vary: bool = True

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_exactly_one(self, ("bytes", "ratio", "bits"))
        if self.bytes is not None:
            check_count(self, "bytes")
        if self.ratio is not None and not (is_number(self.ratio) and 1 <= self.ratio < math.inf):
            raise wrong(self, "ratio", "be a number of at least 1")
        if self.bits is not None and not (is_number(self.bits) and 0 < self.bits <= 32):
            raise wrong(self, "bits", "lie in (0, 32]")
        for field, fits, what in (
            ("sparsities", is_sparsity, "list sparsities in [0, 1)"),
            ("widths", lambda each: type(each) is int and 1 <= each <= 8, "list whole numbers from 1 to 8"),
        ):
            given = getattr(self, field)
            if not isinstance(given, list | tuple) or not given or not all(map(fits, given)):
                raise wrong(self, field, what)
            object.__setattr__(self, field, tuple(sorted(set(given))))
        if self.max_load_bytes is not None:
            check_count(self, "max_load_bytes", least=0)
        if self.max_load_seconds is not None and not (is_number(self.max_load_seconds) and self.max_load_seconds >= 0):
            raise wrong(self, "max_load_seconds", "be a number of at least 0")
        check_flag(self, "huffman")
        check_flag(self, "vary")

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Prune and share every site that fits the options.

        Raises:
            ConfigError: the target cannot be met; says what can.
        """
        sharing = Sharing(self.tried, model, self._sites(model, report := self.report()), bench, report)
        result = sharing.at(bytes=self.bytes, ratio=self.ratio, bits=self.bits)
        model.reset(result.model.skeleton())
        return result.report

    def measure(self, model: Model, bench: Workbench | None = None) -> Sharing:
        """Measure the weights of a model once, to be shared for one size after another; `ratio` and so on are unused.

        Args:
            model: is not changed, and must not be meanwhile.
            bench: brings the samples.
        """
        report = self.report()
        return Sharing(self.tried, model, self._sites(model, report), self.fitting(bench or Workbench()), report)

    @property
    def tried(self) -> Tried:
        """What is tried, whatever the size."""
        limits = self.max_load_bytes, self.max_load_seconds
        return Tried(self.sparsities, self.widths, self.huffman, *limits, self.vary)

    def _sites(self, model: Model, report: Report) -> list[Site]:
        """Those that are worked on."""
        sites = self.candidates(model, report)
        refused = refusals(model, sites)
        for site in sites:
            if site.name in refused:
                report.skip(site.name, f"encode leaves it as it is: {refused[site.name]}")
        return [each for each in sites if each.name not in refused]
