"""More samples for models that read tokens: copies of the given ones with tokens replaced by others of like meaning.

Least squares of a layer with k inputs want several times k rows, and a few dozen short texts have fewer. What a model
gives is known for any tokens, for the model itself says it; so tokens are replaced by near neighbours in the model's
own embedding table, which keeps subject and grammar about as they are. The idea is that of data augmentation by
synonyms: Wang and Yang, "That's So Annoying!!!" (2015); Jiao et al., "TinyBERT" (2020).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxpress.calibration.batches import Array, Batch, Sample
from onnxpress.calibration.feeds import Feed
from onnxpress.rewriter.model import Model
from onnxpress.rewriter.sites import Site, find_sites

Indices = NDArray[np.int64]

_REPLACED = 0.7
"""Part of the tokens that is replaced, where they may be."""

_MOVED = 0.5
"""Part of those in whose stead comes a neighbour of a token of any sample, rather than of the one that stood there."""

_NEIGHBOURS = 64
"""Nearest tokens that one is drawn from, the token itself among them; at most an eighth of the table."""

_MOST = 96
"""Copies of each sample at most."""

_FEWEST = 64
"""Entries of a table below which it holds kinds rather than tokens."""

_CONSTANT = 0.5
"""Part of the rows that have a token: from there on it is a mark (start, end), or too common to need others."""

_MARKED = 0.9
"""Part of the rows that begin or end with one token: from there on it marks texts, so rows are texts."""

_TOGETHER = 1024
"""Tokens of a batch and its copies that may be put together."""

_ENDS = 0.1
"""Part of the rows that begin or end with a token: from there on it is a mark or padding."""

_PIECE = 1 << 22
"""Entries of a table taken at once: 16 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class Variations:
    """Samples, and varied ones behind them.

    Attributes:
        feed: the given samples with the others; the given feed itself where there are none.
        copies: varied ones of each sample.
        tokens: that were given, of the input that has most.
    """

    feed: Feed
    copies: int = 0
    tokens: int = 0


def with_variations(model: Model, feed: Feed, *, rows: int, seed: int = 0) -> Variations:
    """Add varied samples where the given ones have few tokens.

    Which inputs can be varied is found in the graph: integers that go straight into a Gather from a table of vectors.
    Tokens stay that most rows have, or that begin, end or fill up several (marks of start and end, padding), as do all
    tokens of inputs whose rows only ascend (positions).

    Args:
        model: reads the samples.
        feed: samples; walked through twice at most.
        rows: tokens that are enough; where there is not half of them, copies are made until there are about so many.
        seed: of all draws; each walk through the feed gives the same.
    """
    tables = _tables(model)
    seen = {name: _Seen() for name in tables}
    given = tokens = 0
    for batch in feed if tables else ():
        given += 1
        for name, each in seen.items():
            each.add(batch[name])
        tokens = max(each.tokens for each in seen.values())
        if 2 * tokens > rows:
            break
    few = 0 < 2 * tokens <= rows
    copies = min(_MOST, rows // tokens - 1) if few else 0
    lexicons = (
        {name: _Lexicon.of(tables[name].array(), each) for name, each in seen.items() if each.varies}
        if copies > 0
        else {}
    )
    if not lexicons:
        return Variations(feed)
    together = 1
    if _has_free_rows(model) and all(each.marked for each in seen.values() if each.varies):
        together = max(1, min(1 + copies, _TOGETHER * given // tokens))
    count = given * math.ceil((1 + copies) / together)
    varied = _Varied(feed, lexicons, copies, together, seed)
    return Variations(Feed(varied, count=count, warnings=feed.warnings), copies, tokens)


def _has_free_rows(model: Model) -> bool:
    """Whether all inputs have one open first axis, so that batches may be put together."""
    first = {spec.shape[0] if spec.shape else 0 for spec in model.inputs}
    return len(first) == 1 and not isinstance(next(iter(first)), int)


@dataclass(frozen=True, slots=True, eq=False)
class _Varied:
    """The samples, then copies of them with other tokens; the same at each walk. None has labels.

    So many as are to be together come in one batch, so that all batches are about as large, and none is held out of a
    fit without its copies.
    """

    feed: Feed
    lexicons: Mapping[str, _Lexicon]
    copies: int
    together: int
    seed: int

    def __iter__(self) -> Iterator[Sample]:
        for first in range(0, 1 + self.copies, self.together):
            some = range(first, min(first + self.together, 1 + self.copies))
            for number, batch in enumerate(self.feed):
                parts = [self._copy(batch, copy, number) for copy in some]
                whole = {name: np.concatenate([each[name] for each in parts]) for name in batch}
                yield Sample(whole if len(parts) > 1 else parts[0])

    def _copy(self, batch: Batch, copy: int, number: int) -> Batch:
        """The batch itself, or one with other tokens."""
        if not copy:
            return batch
        draw = np.random.default_rng((self.seed, copy, number))
        return {**batch, **{name: each.varied(batch[name], draw) for name, each in self.lexicons.items()}}


class _Seen:
    """Which tokens the samples have in one input."""

    def __init__(self) -> None:
        self.tokens = 0
        self._rows = 0
        self._ascend = True
        self._pieces: list[Indices] = []
        self._rows_with: Counter[int] = Counter()
        self._ends: Counter[int] = Counter()
        self._fill: set[int] = set()

    def add(self, ids: Array) -> None:
        """Take in a batch, of any rank; its last axis runs along a row."""
        wide = ids.astype(np.int64)
        for row in wide.reshape(-1, wide.shape[-1] if wide.ndim else 1):
            self._rows += 1
            self.tokens += row.size
            self._pieces.append(row)
            self._ascend = self._ascend and bool((np.diff(row) > 0).all())
            self._rows_with.update(np.unique(row).tolist())
            self._ends.update({*row[:1].tolist(), *row[-1:].tolist()})
            self._fill.update(row[[0, -1]][row[[0, -1]] == row[[1, -2]]].tolist() if row.size > 1 else ())

    @property
    def inner(self) -> Indices:
        """All tokens that may be replaced, as often as they come."""
        stay = set(self._fill)
        for counts, part in ((self._rows_with, _CONSTANT), (self._ends, _ENDS)):
            stay.update(token for token, rows in counts.items() if rows > 1 and rows >= part * self._rows)
        tokens = np.concatenate(self._pieces)
        return np.asarray(tokens[~np.isin(tokens, sorted(stay))])

    @property
    def marked(self) -> bool:
        """Whether nearly all rows begin, or end, with one token: then each row is a text."""
        return self._rows > 1 and max(self._ends.values(), default=0) >= _MARKED * self._rows

    @property
    def varies(self) -> bool:
        """Whether there is anything to replace."""
        return not self._ascend and self.inner.size > 0


@dataclass(frozen=True, slots=True, eq=False)
class _Lexicon:
    """What may stand in the place of a token.

    Attributes:
        known: tokens that may be replaced, ascending, [n].
        near: tokens like them, themselves included, [n, neighbours].
        pool: places in `known`, as often as the samples have the token.
    """

    known: Indices
    near: Indices
    pool: Indices

    @classmethod
    def of(cls, table: Array, seen: _Seen) -> _Lexicon:
        """Look up the neighbours of all tokens that were seen and may be replaced; `table` is [tokens, width]."""
        inner = seen.inner
        # What lies outside of the table is left for the model to refuse.
        known, pool = np.unique(inner.clip(0, len(table) - 1), return_inverse=True)
        return cls(known, _nearest(table, known, max(1, min(_NEIGHBOURS, len(table) // 8))), pool.reshape(-1))

    def varied(self, ids: Array, draw: np.random.Generator) -> Array:
        """Tokens of a batch with some replaced; shape and type stay."""
        place = np.searchsorted(self.known, ids).clip(0, len(self.known) - 1)
        free = (self.known[place] == ids) & (draw.random(ids.shape) < _REPLACED)
        moved = draw.random(ids.shape) < _MOVED
        source = np.where(moved, self.pool[draw.integers(0, len(self.pool), ids.shape)], place)
        other = self.near[source, draw.integers(0, self.near.shape[1], ids.shape)]
        return np.asarray(np.where(free, other, ids), ids.dtype)


def _nearest(table: Array, tokens: Indices, count: int) -> Indices:
    """The tokens whose vectors point about where those of some do, seen from the mean of all: [tokens, count]."""
    mean = np.asarray(table.mean(axis=0, dtype=np.float64), np.float32)
    wanted = _directions(table[tokens], mean)
    best = np.full((len(tokens), count), -np.inf, np.float32)
    near = np.repeat(tokens[:, np.newaxis], count, axis=1)
    step = max(count, _PIECE // max(1, table.shape[1]))
    for start in range(0, len(table), step):
        like = wanted @ _directions(table[start : start + step], mean).T
        numbers = np.broadcast_to(np.arange(start, start + like.shape[1]), like.shape)
        like, numbers = np.concatenate([best, like], axis=1), np.concatenate([near, numbers], axis=1)
        chosen = np.argpartition(-like, count - 1, axis=1)[:, :count]
        best, near = np.take_along_axis(like, chosen, axis=1), np.take_along_axis(numbers, chosen, axis=1)
    return near


def _directions(vectors: Array, mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """Less their mean, each of length 1; zero where there is none."""
    less = vectors.astype(np.float32) - mean
    length = np.sqrt(np.einsum("nk,nk->n", less, less))[:, np.newaxis]
    return np.asarray(np.divide(less, length, out=np.zeros_like(less), where=length > 0))


def _tables(model: Model) -> dict[str, Site]:
    """Tables of vectors by the name of the integer input that looks them up; the longest, where there are several."""
    found: dict[str, Site] = {}
    for site in find_sites(model):
        if len(site.shape) != 2 or site.shape[0] < _FEWEST:
            continue
        for name in _readers(model, site):
            old = found.get(name)
            if old is None or old.shape[0] < site.shape[0]:
                found[name] = site
    return found


def _readers(model: Model, site: Site) -> Sequence[str]:
    """Inputs of the model whose integers are rows of a table."""
    names = []
    for use in site.uses:
        if use.node.op != "Gather" or use.index != 0 or use.node.attrs.get("axis", 0) != 0:
            continue
        tensor = use.node.inputs[1]
        while len(tensor.inputs) == 1 and tensor.inputs[0].op in ("Cast", "Identity"):
            tensor = tensor.inputs[0].inputs[0]
        if _is_token_input(model, tensor):
            names.append(str(tensor.name))
    return names


def _is_token_input(model: Model, tensor: gs.Tensor) -> bool:
    inputs = any(each is tensor for each in model.graph.inputs)
    return inputs and tensor.dtype is not None and np.issubdtype(tensor.dtype, np.integer)
