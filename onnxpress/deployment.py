"""Pipeline files: a recipe with its model, samples, targets, gates and outputs, as a deployment runs it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from onnxpress.calibration.plugins import is_reference
from onnxpress.documents import checked, read_mapping, read_text
from onnxpress.manifest import beside
from onnxpress.passes.base import Pass
from onnxpress.recipe import Head, Limits, Recipe, StatedLimits, built_in, load, recipe_of, schema_with_passes
from onnxpress.rewriter.errors import ConfigError
from onnxpress.search.budget import Budget
from onnxpress.settings import fill, override

Text = Annotated[str, Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Targets(_Part):
    """Where the result is to run."""

    providers: Annotated[
        tuple[Text, ...], Field(min_length=1, description="execution providers; each is verified and timed")
    ] = ("cpu",)
    threads: Annotated[int | None, Field(gt=0, description="inside an operator; ONNX Runtime chooses")] = None
    seconds: Annotated[float, Field(gt=0, description="that timing takes about, on each provider")] = 5.0


class _Budget(_Part):
    """What a search is to gain, and what it may cost."""

    model_config = ConfigDict(title="Budget")

    goal: Annotated[Literal["size", "latency", "memory"], Field(description="what is to become better")]
    max_drop: Annotated[float | None, Field(ge=0, description="how far the metric may fall")] = None
    min_sqnr: Annotated[float | None, Field(description="signal to noise that every output must keep, in dB")] = None
    limit: Annotated[float | Text | None, Field(description="what it must come to: 4x better, or as 3MB, 5ms")] = None
    confidence: Annotated[float | None, Field(ge=0, lt=1, description="that the drop keeps to max_drop")] = None
    time_limit: Annotated[float | None, Field(gt=0, description="seconds after which nothing else is tried")] = None


class _Output(_Part):
    """What is written, each beside the file unless it names another folder."""

    model_config = ConfigDict(title="Output")

    model: Annotated[Text, Field(description="the result, an .onnx file")]
    report: Annotated[Text | None, Field(description="the account of the run as JSON")] = None
    junit: Annotated[Text | None, Field(description="a test for the run and for each gate, as JUnit XML")] = None
    html: Annotated[Text | None, Field(description="the report for people, one file")] = None
    manifest: Annotated[
        bool | Text, Field(description="hashes, recipe and measurements as JSON; beside the model unless named")
    ] = True
    transport: Annotated[Literal["zst"] | None, Field(description="also write the result compressed")] = None


class _Document(Head):
    """A pipeline file, before its passes are read."""

    model: Annotated[Text, Field(description="the input, an .onnx file")]
    data: Annotated[Text | None, Field(description="samples for the passes: .npz, folder or module:function")] = None
    test: Annotated[Text | None, Field(description="samples to judge by; without them, those of data")] = None
    metric: Annotated[Text | None, Field(description="top1, or module:function")] = None
    samples: Annotated[int | None, Field(gt=0, description="of data used at most")] = None
    seed: Annotated[int, Field(ge=0, description="of everything random")] = 0
    passes: list[object] | None = None
    recipe: Annotated[Text | None, Field(description="a built-in recipe or a recipe file, instead of passes")] = None
    budget: Annotated[_Budget | None, Field(description="a search, instead of passes")] = None
    folder: Annotated[Text | None, Field(description="of a search that is to go on where it was stopped")] = None
    targets: Targets = Targets()
    gates: Annotated[StatedLimits, Field(description="what the result must keep to; replaces the recipe's limits")] = (
        StatedLimits()
    )
    output: _Output


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What is written; None is left out.

    Attributes:
        model: the result.
        report: JSON.
        junit: JUnit XML.
        html: the report for people.
        manifest: JSON.
        transport: `zst` or None.
    """

    model: Path
    report: Path | None = None
    junit: Path | None = None
    html: Path | None = None
    manifest: Path | None = None
    transport: str | None = None

    @property
    def reports(self) -> dict[str, Path]:
        """What is written whether or not the gates hold, by field."""
        named = {"report": self.report, "junit": self.junit, "html": self.html}
        return {name: path for name, path in named.items() if path is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A pipeline file whose fields are what they should be, its paths as seen from here.

    Attributes:
        source: the file.
        description: what it is good for.
        model: the input.
        data: samples for the passes.
        test: samples to judge by.
        metric: `top1` or `module:function`.
        samples: of `data` used at most.
        seed: of everything random.
        recipe: what is done; None where a search finds that out.
        recipe_file: that it was read from; None where it stands in `source` or is built in.
        budget: of the search; None where the recipe is given.
        folder: of a search that is to go on where it was stopped.
        limits: what the result must keep to: the recipe's, each stated gate in its place.
        targets: where the result is to run.
        output: what is written.
    """

    source: Path
    description: str
    model: Path
    data: str | None
    test: str | None
    metric: str | None
    samples: int | None
    seed: int
    recipe: Recipe | None
    recipe_file: Path | None
    budget: Budget | None
    folder: Path | None
    limits: Limits
    targets: Targets
    output: Output


def read(path: str | Path, *, settings: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Deployment:
    """Read a pipeline file.

    Paths in it count from its folder, whether they stand in the file or among the settings.

    Args:
        path: of the file, YAML.
        settings: `field.below=value`, each in the place of what the file says.
        environment: what `${NAME}` stands for; None takes the program's own.

    Raises:
        ConfigError: it cannot be read, or a field means nothing; one line that names file, field and value.
    """
    path = Path(path)
    needs = "a pipeline is a mapping with `model:`, `output:` and one of `passes:`, `recipe:`, `budget:`"
    raw = read_mapping(read_text(path, "pipeline"), source=path.name, needs=needs)
    raw = override(raw, settings)
    filled = fill(raw, os.environ if environment is None else environment, source=path.name)
    document = checked(_Document, filled, source=path.name)
    folder = path.parent
    recipe = _recipe(document, path.name, folder)
    return Deployment(
        source=path,
        description=document.description,
        model=folder / document.model,
        data=_source(document.data, folder),
        test=_source(document.test, folder),
        metric=document.metric,
        samples=document.samples,
        seed=document.seed,
        recipe=recipe,
        recipe_file=None if document.recipe in (None, *built_in()) else folder / str(document.recipe),
        budget=_budget(document.budget, path.name),
        folder=None if document.folder is None else folder / document.folder,
        limits=_limits(document, recipe, path.name),
        targets=document.targets,
        output=_output(document.output, folder),
    )


def schema(names: Iterable[str] | None = None) -> dict[str, JsonValue]:
    """The JSON schema of a pipeline file, for editors.

    Args:
        names: of the passes it knows; None means all that are installed.
    """
    result = schema_with_passes(_Document, names, title="onnxpress pipeline")
    ways: list[JsonValue] = [{"required": [name]} for name in ("passes", "recipe", "budget")]
    told = "A recipe with its model, samples, targets, gates and outputs, for `onnxpress run`."
    return {**result, "description": told, "oneOf": ways}


def _recipe(document: _Document, source: str, folder: Path) -> Recipe | None:
    """The recipe, its passes written here or there; None for a search."""
    ways = {"passes": document.passes, "recipe": document.recipe, "budget": document.budget}
    given = [name for name, each in ways.items() if each is not None]
    if len(given) != 1:
        raise ConfigError(f"{source}: give one of passes, recipe and budget; there is {' and '.join(given) or 'none'}")
    if document.passes is None:
        for name in ("goal", "needs_data", "limits"):
            if name in document.model_fields_set:
                instead = "gates" if name == "limits" else f"the {given[0]}"
                raise ConfigError(f"{source}: {name}: it stands with passes; {instead} says it here, leave it out")
    if document.folder is not None and document.budget is None:
        raise ConfigError(f"{source}: folder: it is that of a search; give a budget, or leave it out")
    if document.passes is not None:
        recipe = recipe_of(document, document.passes, name=Path(source).stem, source=source)
    elif document.recipe is not None:
        named = document.recipe if document.recipe in built_in() else folder / document.recipe
        try:
            recipe = load(named)
        except ConfigError as error:
            raise ConfigError(f"{source}: recipe: {error}") from error
    else:
        return None
    return replace(recipe, passes=tuple(_placed(each, folder) for each in recipe.passes))


def _placed(each: Pass, folder: Path) -> Pass:
    """A pass whose file of observed ranges, if it reads one, counts from the folder of the pipeline."""
    calibration = getattr(each, "calibration", None)
    if not isinstance(calibration, str):
        return each
    options = {field.name: getattr(each, field.name) for field in fields(each)}
    return type(each)(**{**options, "calibration": str(folder / calibration)})


def _limits(document: _Document, recipe: Recipe | None, source: str) -> Limits:
    """The recipe's limits under the gates; those of a search are gates, too.

    Raises:
        ConfigError: one that cannot be judged.
    """
    stated = Limits() if recipe is None else recipe.limits
    if (budget := document.budget) is not None:
        stated = Limits(max_drop=budget.max_drop, min_sqnr=budget.min_sqnr, confidence=budget.confidence)
    limits = stated.under(document.gates)
    if limits.max_drop is not None and document.metric is None:
        raise ConfigError(f"{source}: metric: max_drop {limits.max_drop:g} needs one: give top1 or module:function")
    if limits.confidence is not None and limits.max_drop is None:
        place = "gates" if document.gates.confidence is not None else "limits" if budget is None else "budget"
        raise ConfigError(
            f"{source}: {place}.confidence: it is that of max_drop, which is not given; give both or none"
        )
    return limits


def _budget(stated: _Budget | None, source: str) -> Budget | None:
    """The budget of a search.

    Raises:
        ConfigError: it means nothing.
    """
    try:
        return None if stated is None else Budget(**stated.model_dump(exclude_none=True))
    except ConfigError as error:
        raise ConfigError(f"{source}: budget.{error}") from error


def _source(text: str | None, folder: Path) -> str | None:
    """Samples: a path from the folder, unless it reads as `module:function` and no such file is there."""
    if text is None or (is_reference(text) and not (folder / text).exists()):
        return text
    return str(folder / text)


def _output(stated: _Output, folder: Path) -> Output:
    def placed(text: str | None) -> Path | None:
        return None if text is None else folder / text

    model, manifest = folder / stated.model, stated.manifest
    return Output(
        model=model,
        report=placed(stated.report),
        junit=placed(stated.junit),
        html=placed(stated.html),
        manifest=(beside(model) if manifest else None) if isinstance(manifest, bool) else placed(manifest),
        transport=stated.transport,
    )
