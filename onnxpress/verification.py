"""Does the result still do what the original does, on every provider that is asked for?"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from onnxpress.calibration.batches import Array, Batch
from onnxpress.calibration.feeds import Feed, open_feed
from onnxpress.calibration.metrics import Metric, load_metric
from onnxpress.calibration.progress import Progress, Silent
from onnxpress.calibration.providers import provider_name
from onnxpress.calibration.session import Runner
from onnxpress.calibration.synthetic import synthesise_runnable
from onnxpress.parity import OutputParity, OutputSum, ProviderParity, Verification
from onnxpress.rewriter.errors import ConfigError, ModelError, ProviderError
from onnxpress.runtime import check_runtime

_FLOATS = {"tensor(float16)", "tensor(bfloat16)", "tensor(float)", "tensor(double)"}
MADE_UP = 8
"""Batches that are made up where there are no samples."""


def verify(
    original: str | Path,
    result: str | Path,
    *,
    data: object = None,
    metric: Metric | str | None = None,
    providers: Sequence[str] = ("cpu",),
    threads: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Verification:
    """Run both models on the same samples, batch by batch, and compare what comes out.

    Args:
        original: the reference.
        result: what became of it; same inputs and outputs.
        data: what `open_feed` takes; None makes inputs up, with a warning.
        metric: the task's own measure, `top1` or `module:function`; it sees all samples.
        providers: execution providers, by short or full name.
        threads: threads inside an operator; None leaves the choice to ONNX Runtime.
        limit: batches whose outputs are compared at most; None for all.
        seed: of inputs that are made up.
        progress: told about each walk.

    Raises:
        ProviderError: a provider is missing, was silently replaced, or ran nothing.
        ModelError: a model that cannot be run, or the two have other inputs or outputs.
        FeedError: samples that do not fit.
        ConfigError: an unknown metric or provider.
    """
    check_runtime()
    measure = load_metric(metric) if isinstance(metric, str) else metric
    names = provider_names(providers)
    with Runner(original, threads=threads) as runner:
        feed = samples_for(runner, data, seed=seed)
    pair = _Pair(Path(original), Path(result), feed, measure, threads, limit, progress or Silent())
    found = tuple(map(pair.on, names))
    warnings = dict.fromkeys([*feed.warnings, *(line for each in found for line in each.warnings)])
    return Verification(measure.name if measure else None, found, tuple(warnings))


def provider_names(providers: Sequence[str]) -> tuple[str, ...]:
    """Full names of execution providers, each once.

    Raises:
        ConfigError: none, or an unknown one.
    """
    if isinstance(providers, str):  # a sequence of letters, else
        providers = (providers,)
    if not providers:
        raise ConfigError("no provider is named; give at least one, such as cpu")
    return tuple(dict.fromkeys(provider_name(each) for each in providers))


def samples_for(runner: Runner, data: object, *, limit: int | None = None, seed: int = 0) -> Feed:
    """Open the samples for a model, or make some up.

    Raises:
        FeedError: samples that do not fit, or none that could be made up.
    """
    if data is None:
        return synthesise_runnable(runner, samples=limit or MADE_UP, seed=seed)
    return open_feed(data, inputs=runner.input_specs, limit=limit)


@dataclass(frozen=True, slots=True)
class _Pair:
    original: Path
    result: Path
    feed: Feed
    metric: Metric | None
    threads: int | None
    limit: int | None
    progress: Progress

    def on(self, provider: str) -> ProviderParity:
        """Compare on one provider."""
        began = time.perf_counter()
        first = next(iter(self.feed))
        with (
            Runner(self.original, providers=[provider], threads=self.threads) as before,
            Runner(self.result, providers=[provider], threads=self.threads) as after,
        ):
            _same_interface(before, after)
            nodes_before, nodes_after = (_placement(each, provider, first) for each in (before, after))
            outputs, batches = self._compare(before, after)
            metric_before, metric_after = self._measure(before, after)
        return ProviderParity(
            provider=provider,
            outputs=outputs,
            metric_before=metric_before,
            metric_after=metric_after,
            nodes_before=nodes_before,
            nodes_after=nodes_after,
            batches=batches,
            seconds=time.perf_counter() - began,
        )

    def _measure(self, before: Runner, after: Runner) -> tuple[float | None, float | None]:
        """The metric of both models, one after the other."""
        if self.metric is None:
            return None, None
        turns = self.progress.track((before, after), label=self.metric.name, total=2)
        first, second = (self.metric(runner, self.feed) for runner in turns)
        return first, second

    def _compare(self, before: Runner, after: Runner) -> tuple[tuple[OutputParity, ...], int]:
        """Compare the outputs, and count the batches."""
        sums: dict[str, OutputSum] = {}
        batches = 0
        for batch in self._batches():
            reference, test = before.run(batch), after.run(batch)
            for name, values in reference.items():
                if comparable(values):
                    sums.setdefault(name, OutputSum(name)).add(values, test[name])
            batches += 1
        return tuple(each.parity() for each in sums.values()), batches

    def _batches(self) -> Iterator[Batch]:
        count = self.feed.count
        total = count if self.limit is None else self.limit if count is None else min(count, self.limit)
        return self.progress.track(islice(self.feed, self.limit), label="outputs", total=total)


def comparable(values: Array) -> bool:
    """Whether an output is made of real numbers or booleans."""
    return values.dtype.kind in "fiub"


def _same_interface(before: Runner, after: Runner) -> None:
    """Refuse models of other inputs or outputs; floats may be of another width.

    Raises:
        ModelError: names or types differ.
    """
    for what, left, right in (
        ("inputs", {each.name for each in before.input_specs}, {each.name for each in after.input_specs}),
        ("outputs", set(before.output_names), set(after.output_names)),
    ):
        if left != right:
            raise ModelError(
                f"{before.name} has the {what} {', '.join(sorted(left))}, {after.name} has {', '.join(sorted(right))}; "
                "only a model and what became of it can be compared"
            )
    old, new = (each.input_types | each.output_types for each in (before, after))
    for name in (*before.input_types, *before.output_names):
        kinds = {old[name], new[name]}
        if len(kinds) > 1 and not kinds <= _FLOATS:
            raise ModelError(
                f"{name!r} is {old[name]} in {before.name}, {new[name]} in {after.name}; only a model and what "
                "became of it can be compared"
            )


def _placement(runner: Runner, provider: str, batch: Batch) -> dict[str, Counter[str]]:
    """Where the nodes ran.

    Raises:
        ProviderError: none ran on `provider`, so whatever was compared would say nothing about it.
    """
    nodes = runner.node_placement(batch)
    if nodes and provider not in nodes:
        raise ProviderError(
            f"{runner.name} ran no node on {provider}: all went to {', '.join(nodes)}; choose another provider"
        )
    return nodes
