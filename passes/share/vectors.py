"""Vector quantization: every few weights that lie side by side take one of a few sub-vectors together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np

from onnxpress.passes.base import Workbench
from onnxpress.passes.equations import Pair, equations
from onnxpress.passes.inputs import SOLVED, check_sole, check_width, reading_of
from onnxpress.passes.intercepts import intercept_of
from onnxpress.passes.jobs import Refusing, Stored, accepted, each
from onnxpress.passes.kernels.arrays import Array, pieces
from onnxpress.passes.kernels.errors import relative_error
from onnxpress.passes.kernels.vectors import VectorCode, cluster, distinct_vectors
from onnxpress.passes.report import Report
from onnxpress.passes.selection import (
    LAZY,
    Layout,
    RefusalError,
    SitePass,
    check_choice,
    check_count,
    check_flag,
    skipping,
    wrong,
)
from onnxpress.passes.share.aims import learn, rounded
from onnxpress.passes.staged import Staged
from onnxpress.passes.threads import threads_for
from onnxpress.passes.varied import with_varied
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site
from onnxpress.rewriter.weights import values_of

_COPIES = 6
"""How many matrices as large as the weight there are then, of float64."""


_PLAIN = 24
"""Powers of two between which squares and their sums are well within float32."""


@dataclass(frozen=True, kw_only=True)
class ShareVectors(SitePass):
    """Product quantization: sub-vectors of each output's weights are taken from a codebook.

    Gong et al., "Compressing Deep Convolutional Networks using Vector Quantization" (2014). A row of weights, those of
    one output along its inputs (of a Conv: channel by channel, each with its kernel; of an embedding: what is looked
    up), is cut into sub-vectors; k-means finds a few for all. Several stages add vectors of several codebooks (residual
    quantization).

    With samples, errors count by the second moments of what the layer reads, and layers are taken one after the other
    (Wu et al., "Quantized Convolutional Neural Networks for Mobile Devices", 2016): each reads what the layers before,
    already quantized, give, and should give what the original gave. Codes and codebooks are chosen in turn, then the
    codebooks and the bias are fitted by least squares, and kept where that is better on samples held out. Without
    samples, and for weights whose inputs cannot be observed, plain distances count.

    The weights stay dense arrays: sub-vectors with equal codes are equal bit by bit, so that with one stage at most
    2^bits of them (at each place, with `per: subspace`) differ. Zeros of a pruned weight do not stay. `encode` finds
    the sub-vectors again and stores codes and codebooks; those of several stages only where it follows in the same run,
    for in a dense array of their sums nothing tells them.

    Attributes:
        length: entries of a sub-vector, 2 to 32; usual are 2, 4 and 8. A weight whose number of inputs it does not
            divide is left alone.
        bits: of a code, 1 to 8, for 2^bits vectors of a codebook: stages·bits / length bits a weight.
        stages: codebooks whose vectors are added, 1 to 4.
        per: `tensor` for one codebook a weight and stage, `subspace` for one at each place of a row.
        correct: with samples, make up for the error layer by layer; otherwise samples are not used.
        vary: where samples of a model that reads tokens are few, learn from variations of them, too, as
            `prune-second-order` does.
        min_size: weights with fewer elements are left alone.
    """

    name: ClassVar[str] = "share-vectors"
    learns: ClassVar[bool] = True
    length: int = 4
    bits: int = 8
    stages: int = 1
    per: Literal["tensor", "subspace"] = "tensor"
    correct: bool = True
    vary: bool = True
    min_size: int = 256

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_choice(self, "per", ("tensor", "subspace"))
        check_flag(self, "correct")
        check_flag(self, "vary")
        for field, least, most in (("length", 2, 32), ("bits", 1, 8), ("stages", 1, 4)):
            check_count(self, field, least=least)
            if getattr(self, field) > most:
                raise wrong(self, field, f"lie in {least} to {most}")

    def apply(self, model: Model, bench: Workbench) -> Report:
        """Quantize every site that fits the options."""
        report, original = self.report(), model.clone()
        plain, learnt = self._parted(model, self.candidates(model, report), bench, report)
        weights = (Stored.of(site, layout=_layout(site)) for site, _ in plain)
        work = Refusing(partial(_plain, self, seed=bench.seed))
        codes = each(work, weights, progress=bench.progress, label=self.name, total=len(plain))
        for (site, why), code in zip(plain, codes, strict=True):
            with skipping(report, site.name):
                self._give(model, site, report, (accepted(code), f", without samples: {why}" if why else ""))
        if learnt:
            bench = with_varied(original, bench, report) if self.vary else bench
            for site, pair in equations(model, original, learnt, bench):
                with skipping(report, site.name):
                    self._give(model, site, report, self._learnt(model, site, pair, bench))
        return report

    def _parted(
        self, model: Model, sites: Sequence[Site], bench: Workbench, report: Report
    ) -> tuple[list[tuple[Site, str]], list[Site]]:
        """Sites without samples, each with the reason if there are some, and those that learn from samples."""
        plain: list[tuple[Site, str]] = []
        learnt: list[Site] = []
        for site in sites:
            try:
                self._refuse(site)
            except RefusalError as refusal:
                report.skip(site.name, str(refusal))
                continue
            if bench.feed is None or not self.correct:
                plain.append((site, ""))
                continue
            try:
                _refuse_learning(model, site)
                learnt.append(site)
            except RefusalError as refusal:
                plain.append((site, str(refusal)))
        return plain, learnt

    def _refuse(self, site: Site) -> None:
        """Refuse a weight that has no sub-vectors, or gains nothing by a codebook.

        Raises:
            RefusalError: with the figures.
        """
        width = site.size // max(1, _layout(site).rows)
        if width % self.length:
            raise RefusalError(f"each output has {width} weights, which sub-vectors of {self.length} do not divide")
        itemsize = values_of(site.weight).dtype.itemsize
        stored, vectors = self._stored(site), self._books(site) * 2**self.bits
        if stored >= site.size * itemsize:
            raise RefusalError(
                f"sub-vectors of {self.length} save nothing: {self.stages}·{self.bits}-bit codes and {vectors} vectors "
                f"take {stored} bytes, the weight {site.size * itemsize}"
            )
        if not all(np.isfinite(piece).all() for piece in pieces(site.array())):
            raise RefusalError("cannot cluster values that are not finite")
        if distinct_vectors(_layout(site).to_rows(site.array()), self.length, 2**self.bits) is not None:
            raise RefusalError(f"has no more than {2**self.bits} distinct sub-vectors already")

    def _stored(self, site: Site) -> int:
        """Bytes of codes and codebooks."""
        codes = self.stages * math.ceil(site.size // self.length * self.bits / 8)
        books = self._books(site) * 2**self.bits * self.length
        return int(codes + books * values_of(site.weight).dtype.itemsize)

    def _books(self, site: Site) -> int:
        places = site.size // _layout(site).rows // self.length
        return self.stages * (places if self.per == "subspace" else 1)

    def _give(self, model: Model, site: Site, report: Report, found: tuple[VectorCode, str]) -> None:
        """Give a site the weights of a code, and tell of it."""
        code, told = found
        layout, old = _layout(site), values_of(site.weight)
        decode = _decoding(layout, code, old.dtype)
        lost = relative_error(old.load(), decode())
        if self.stages > 1:
            model.replace_weight(site.weight, Staged(layout, code, old.dtype))
        else:
            model.replace_weight(site.weight, decode() if old.nbytes < LAZY else decode)
        report.change(
            site.name,
            f"{self._described()}, {8 * self._stored(site) / site.size:.2f} bits a weight{told}",
            bytes_before=site.nbytes,
            bytes_after=site.nbytes,
            error=lost if math.isfinite(lost) else None,
        )

    def _described(self) -> str:
        stages = f"{self.stages} stages of " if self.stages > 1 else ""
        return f"{stages}{2**self.bits} vectors of {self.length}{' a place' if self.per == 'subspace' else ''}"

    def _learnt(self, model: Model, site: Site, pair: Pair | RefusalError, bench: Workbench) -> tuple[VectorCode, str]:
        """The code that gives the outputs of a layer best, and what to tell of it; the bias is replaced.

        Raises:
            RefusalError: it has none.
        """
        if isinstance(pair, RefusalError):
            weight = Stored.of(site, layout=_layout(site))
            return _plain(self, weight, seed=bench.seed), f", without samples: {pair}"
        rows, intercept = _layout(site).to_rows(site.array()), intercept_of(model, site)
        try:
            with threads_for(rows.shape[1]):
                learnt = learn(
                    pair,
                    rows,
                    lambda metric: self.clustered(rows, metric, seed=bench.seed),
                    dtype=values_of(site.weight).dtype,
                    bias=intercept is not None,
                )
        except ValueError as failure:
            raise RefusalError(str(failure)) from failure
        _check_better_than_zeros(min(learnt.before, learnt.after), "outputs")
        if intercept is not None and learnt.shift is not None:
            intercept.add(model, learnt.shift)
        return learnt.code, f", {learnt.account}"

    def clustered(self, rows: Array, metric: Array | None, *, seed: int) -> VectorCode:
        """The code of a matrix whose rows are cut into sub-vectors.

        Args:
            rows: [rows, width], float.
            metric: of the errors, as `cluster` takes it; None counts all alike.
            seed: of the starts.

        Raises:
            RefusalError: it has none.
        """
        scale = _scale(rows)
        try:
            code = cluster(
                np.ldexp(rows.astype(np.promote_types(rows.dtype, np.float32)), scale) if scale else rows,
                length=self.length,
                count=2**self.bits,
                stages=self.stages,
                by_place=self.per == "subspace",
                metric=metric,
                seed=seed,
            )
            return replace(code, books=np.ldexp(code.books, -scale)) if scale else code
        except ValueError as failure:  # weights that are no numbers
            raise RefusalError(str(failure)) from failure


def _plain(owner: ShareVectors, weight: Stored, *, seed: int) -> VectorCode:
    """The code of a weight without samples.

    Raises:
        RefusalError: it has none.
    """
    rows = weight.layout.to_rows(weight.array)
    code = rounded(owner.clustered(rows, None, seed=seed), weight.array.dtype)
    _check_better_than_zeros(relative_error(rows, code.decode(rows.dtype)), "weights")
    return code


def _layout(site: Site) -> Layout:
    """How the weight is a matrix whose rows are cut: that of its outputs, and of an embedding what it looks up."""
    if site.op != "Gather":
        return Layout.of(site)
    return Layout(tuple("in" if axis == "out" else "out" for axis in site.axes), site.shape)


def _refuse_learning(model: Model, site: Site) -> None:
    """Refuse a weight of which samples tell nothing, or which is too large to learn from them.

    Raises:
        RefusalError: says why.
    """
    check_sole(model, site)
    for use in site.uses:  # before the width: a table that is looked up has no inputs
        reading_of(model, use)
    check_width(site)
    if (needed := _COPIES * 8 * site.size) > SOLVED:
        raise RefusalError(f"fitting codes to so many weights takes {needed / 1e9:.0f} GB")


def _scale(rows: Array) -> int:
    """The power of two by which very large or small weights, whose squares no type holds, come near to one."""
    largest = max((float(np.abs(piece).max()) for piece in pieces(rows)), default=0.0)
    exponent = math.frexp(largest)[1] if math.isfinite(largest) else 0
    return -exponent if abs(exponent) > _PLAIN else 0


def _check_better_than_zeros(error: float, what: str) -> None:
    """Refuse sub-vectors that give less of a layer than no weights would.

    Raises:
        RefusalError: the relative error is not below that of zeros.
    """
    if not error < 1:
        raise RefusalError(f"the {what} of the sub-vectors found are off by {error:.0%}: zeros would do as well")


def _decoding(layout: Layout, code: VectorCode, dtype: np.dtype[Any]) -> Callable[[], Array]:
    """Computes the stored array of a code."""
    return lambda: layout.from_rows(code.decode(dtype))
