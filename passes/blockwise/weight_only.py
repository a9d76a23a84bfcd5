"""Weights in blocks of few bits, each in the form that suits the nodes that read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_graphsurgeon as gs

from onnxpress.passes.balance.absorb import Absorber
from onnxpress.passes.balance.factors import absorb
from onnxpress.passes.base import Workbench
from onnxpress.passes.blockwise.blocked import layout_of
from onnxpress.passes.blockwise.forms import Forms
from onnxpress.passes.blockwise.merging import runtime_name, unmerged
from onnxpress.passes.blockwise.readings import Bundle, bundles, with_moments
from onnxpress.passes.blockwise.rounding import (
    NEED_SAMPLES,
    Found,
    How,
    activation_factors,
    by_factors,
    by_gptq,
    by_weight,
    can_weigh,
    coded,
    stored,
)
from onnxpress.passes.inputs import check_sole
from onnxpress.passes.jobs import Refusing, accepted, each
from onnxpress.passes.kernels.affine import Floats
from onnxpress.passes.quantize.coding import OVERHEAD
from onnxpress.passes.quantize.storage import check_float32
from onnxpress.passes.report import Report
from onnxpress.passes.selection import RefusalError, skipping
from onnxpress.rewriter.edits import add_node, set_input, sweep
from onnxpress.rewriter.model import DEFAULT_DOMAINS, Model
from onnxpress.rewriter.shapes import infer_shapes
from onnxpress.rewriter.sites import Site, Use

MERGED_BLOCKS = (16, 32, 64, 128, 256)
"""Sizes of blocks that ONNX Runtime merges into MatMulNBits; larger ones go wrong in 1.24."""

WHOLE = 4
"""Codes of 2 bits in a byte."""


@dataclass(slots=True, eq=False)
class _Written:
    """What became of one site; `node` is its DequantizeLinear where products are to run on codes."""

    site: str
    before: int
    after: int
    found: Found
    form: str
    node: gs.Node | None = None
    output: str = ""


def product_of(model: Model, site: Site) -> Use | None:
    """The node that could run on the codes of a weight: a MatMul or Gemm that alone reads it, from the right."""
    if len(site.uses) != 1:
        return None
    use = site.uses[0]
    standard = (use.node.domain or "") in DEFAULT_DOMAINS
    right = standard and use.node.op in ("MatMul", "Gemm") and use.index == 1 and len(site.shape) == 2
    return use if right and not use.node.attrs.get("transA", 0) and use.graph is model.graph else None


def check_usable(model: Model, site: Site, how: How) -> None:
    """Refuse weights that cannot be codes, or do not get smaller by it.

    Raises:
        RefusalError: says why.
    """
    check_float32(site)
    check_sole(model, site)
    count = site.size // max(1, how.block or site.size) + 1
    least = site.size * how.bits // 8 + count * 2 + OVERHEAD
    if least >= site.nbytes:
        raise RefusalError(f"its {site.nbytes} bytes would not get smaller by codes, scales and nodes")


class WeightOnly:
    """Puts the weights of one model into blocks.

    ONNX Runtime 1.32 merges no weight that several nodes read, so that is decoded once, at load.
    """

    def __init__(self, model: Model, how: How, report: Report, bench: Workbench, *, form: str) -> None:
        """Start with nothing written.

        Args:
            model: of an opset that has what `form` needs.
            how: which codes.
            report: gets changes and skips.
            bench: brings samples.
            form: `run` for codes that stay codes under MatMul and Gemm, `load`, or `auto`, which is `run` where ONNX
                Runtime is seen to merge them.
        """
        self._model, self._how, self._report, self._bench, self._form = model, how, report, bench, form
        self._float = model.clone()
        self._forms = Forms(model)
        self._shapes = infer_shapes(model)
        self._written: list[_Written] = []

    def rewrite(self, sites: Sequence[Site]) -> None:
        """Rewrite every site that gets smaller by it.

        Raises:
            FeedError: the method needs samples, and there are none.
        """
        usable = [site for site in sites if self._is_usable(site)]
        if self._how.method in NEED_SAMPLES:
            for bundle in with_moments(self._float, bundles(self._model, usable), self._bench):
                self._bundle(bundle)
        else:
            self._all_alone(usable)
        sweep(self._model)
        self._judge_merging()
        for one in self._written:
            action = f"{self._label()}, {one.found.told}, {one.form}"
            self._report.change(one.site, action, bytes_before=one.before, bytes_after=one.after, error=one.found.error)

    def _label(self) -> str:
        how = self._how
        blocks = f"in blocks of {how.block}" if how.block else "per channel"
        return f"int{how.bits} {blocks}, {'symmetric' if how.symmetric else 'with zero points'}"

    def _is_usable(self, site: Site) -> bool:
        try:
            check_usable(self._model, site, self._how)
        except RefusalError as refusal:
            self._report.skip(site.name, str(refusal))
            return False
        return True

    def _all_alone(self, sites: Sequence[Site]) -> None:
        """By a method that needs no samples, on as many workers as there are."""
        weights = (stored(site) for site in sites)
        work = Refusing(partial(by_weight, how=self._how))
        results = each(work, weights, progress=self._bench.progress, label="quantize weights", total=len(sites))
        for site, chosen in zip(sites, results, strict=True):
            with skipping(self._report, site.name):
                self._write(site, coded(site, self._how, accepted(chosen)))

    def _alone(self, site: Site, *, reason: str) -> None:
        """By a method that needs no samples, where another cannot be had."""
        with skipping(self._report, site.name):
            self._write(site, coded(site, self._how, by_weight(stored(site), self._how, reason=reason)))

    def _bundle(self, bundle: Bundle) -> None:
        """By a method that weighs errors by what layers read."""
        moment = bundle.moment
        if moment is None:
            for site in bundle.sites:
                self._alone(site, reason=bundle.reason)
            return
        sites = [site for site in bundle.sites if self._is_weighed(site, moment)]
        if self._how.method == "awq":
            self._by_factors(sites, moment)
            return
        for site in sites:
            try:
                self._write(site, by_gptq(site, self._how, moment))
            except RefusalError as refusal:
                self._report.skip(site.name, str(refusal))

    def _is_weighed(self, site: Site, moment: Floats) -> bool:
        """Whether errors of a site can be weighed by its inputs; one that cannot is done otherwise."""
        try:
            if can_weigh(site, moment):
                return True
        except RefusalError as refusal:
            self._report.skip(site.name, str(refusal))
        else:
            self._alone(site, reason="the squares of what it reads and gives are too large for float32")
        return False

    def _by_factors(self, sites: Sequence[Site], moment: Floats) -> None:
        """By AWQ: what runs on codes shares the factors of its input, what is decoded at load has its own."""
        products = [site for site in sites if self._product(site)]
        together = [products] if products else []
        for part in [*together, *([site] for site in sites if not self._product(site))]:
            try:
                self._scaled(part, moment)
            except RefusalError as refusal:
                for site in part:
                    self._report.skip(site.name, str(refusal))

    def _scaled(self, sites: list[Site], moment: Floats) -> None:
        factors = activation_factors(sites, self._how, moment) if len(moment) == 1 else None
        taken: list[tuple[Site, Found]] = []
        for site in sites:
            found = None if factors is None else by_factors(site, self._how, moment, factors)
            if found is None or found.gain <= 0:
                why = "awq knows no groups" if len(moment) > 1 else "awq does not better it"
                self._alone(site, reason=why)
            else:
                taken.append((site, found))
        uses = [use for site, _ in taken if (use := self._product(site))]
        if uses and factors is not None:
            self._divide(uses, factors)
        for site, found in taken:
            self._write(site, found)

    def _divide(self, uses: Sequence[Use], factors: Floats) -> None:
        """Divide what layers read by factors: in the LayerNormalization or the like before them, or in a Mul."""
        model, source = self._model, uses[0].node.inputs[0]
        readers = {id(use.node) for use in uses}
        try:
            targets = Absorber(model, self._shapes).plan(source, np.arange(len(factors)), readers=readers)
            if any(target.is_weight for target in targets):
                raise RefusalError("the weights before it may be codes already")
            absorb(model, targets, 1 / factors.astype(np.float64))
        except RefusalError:
            inverse = model.add_weight("f", (1 / factors).astype(np.float32))
            scaled = add_node(model, model.graph, "Mul", [source, inverse], hint="m")
            for use in uses:
                set_input(use.node, 0, scaled)

    def _product(self, site: Site) -> Use | None:
        """The node that is to run on codes."""
        fits = self._form != "load" and self._how.block in MERGED_BLOCKS and not self._is_wrong(site)
        return product_of(self._model, site) if fits else None

    def _is_wrong(self, site: Site) -> bool:
        """Whether ONNX Runtime multiplies by these codes wrongly: seen in 1.32, of 2 bits."""
        return self._how.bits == 2 and layout_of(site).rows % WHOLE != 0

    def _write(self, site: Site, found: Found) -> None:
        before, after = site.nbytes, found.blocked.nbytes
        if after + OVERHEAD >= before:
            self._report.skip(site.name, f"its {before} bytes would not get smaller by codes, scales and nodes")
            return
        use = self._product(site)
        if use is None:
            wrong = self._form != "load" and self._is_wrong(site) and product_of(self._model, site) is not None
            form = self._forms.store(site, found.blocked)
            if wrong:
                form += f": ONNX Runtime multiplies 2-bit codes wrongly where outputs are no multiple of {WHOLE}"
            self._written.append(_Written(site.name, before, after, found, form))
            return
        node = self._forms.multiply(use, found.blocked)
        written = _Written(site.name, before, after, found, "codes when it runs, activations int8", node)
        written.output = str(node.outputs[0].name)
        self._written.append(written)

    def _judge_merging(self) -> None:
        """Look at what ONNX Runtime makes of the products, and decode at load what it would decode in every run."""
        products = {each.output: each for each in self._written if each.node is not None}
        if not products:
            return
        left = [products[name] for name in sorted(unmerged(self._model, products, self._bench))]
        if not left:
            return
        if self._form == "run":
            self._report.warnings.append(
                f"{runtime_name()} merges {len(products) - len(left)} of {len(products)} products with their codes; "
                f"{_some(left)} decode their weights in every run: set form load, or run on another version"
            )
            return
        for one in left:
            if one.node is not None:
                self._forms.decode_once(one.node, length=one.found.blocked.shape[1])
            one.form = f"float when it runs: {runtime_name()} does not merge it with its codes"
        sweep(self._model)


def _some(written: Sequence[_Written]) -> str:
    names = [each.site for each in written[:3]]
    return ", ".join(names) + (", …" if len(written) > 3 else "")
