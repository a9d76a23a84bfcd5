"""Pipeline files say what they mean, and one line says where they do not."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from onnxpress.deployment import read, schema
from onnxpress.passes.registry import BUILT_IN
from onnxpress.rewriter.errors import ConfigError

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "onnxpress" / "schema" / "pipeline.json"
LEAST = {"model": "in.onnx", "recipe": "balanced", "output": {"model": "out.onnx"}}


@pytest.fixture
def pipeline(tmp_path):
    """Write a pipeline file and read it."""

    def pipeline(content, **options):
        path = tmp_path / "pipeline.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
        return read(path, **options)

    return pipeline


def test_paths_count_from_the_folder_of_the_file(pipeline, tmp_path):
    (tmp_path / "odd:name").mkdir()
    given = {"data": "samples.npz", "test": "odd:name", "metric": "theirs:accuracy"}
    found = pipeline({**LEAST, **given, "output": {"model": "build/out.onnx", "html": "r.html"}})
    assert (found.model, found.data) == (tmp_path / "in.onnx", str(tmp_path / "samples.npz"))
    assert (found.test, found.metric) == (str(tmp_path / "odd:name"), "theirs:accuracy")
    assert found.output.model == tmp_path / "build" / "out.onnx"
    assert found.output.manifest == tmp_path / "build" / "out.onnx.manifest.json"
    assert found.output.reports == {"html": tmp_path / "r.html"}


def test_functions_are_left_as_they_are(pipeline):
    assert pipeline({**LEAST, "data": "theirs:samples"}).data == "theirs:samples"


def test_ranges_that_a_pass_reads_count_from_the_folder_too(pipeline, tmp_path):
    passes = [{"quantize-static": {"calibration": "ranges.npz"}}, "encode"]
    found = pipeline({"model": "in.onnx", "passes": passes, "output": {"model": "out.onnx"}})
    assert found.recipe.passes[0].calibration == str(tmp_path / "ranges.npz")


@pytest.mark.parametrize(("manifest", "name"), [(True, "out.onnx.manifest.json"), (False, None), ("m.json", "m.json")])
def test_the_manifest_lies_beside_the_model_unless_told_otherwise(pipeline, tmp_path, manifest, name):
    found = pipeline({**LEAST, "output": {"model": "out.onnx", "manifest": manifest}})
    assert found.output.manifest == (None if name is None else tmp_path / name)


def test_gates_replace_the_limits_of_the_recipe(pipeline):
    kept = pipeline({**LEAST, "recipe": "slim", "gates": {"max_bytes": 9}}).limits
    assert (kept.min_sqnr, kept.max_bytes) == (10, 9)
    assert pipeline({**LEAST, "recipe": "slim", "gates": {"min_sqnr": 30}}).limits.min_sqnr == 30


def test_a_recipe_file_with_model_and_output_is_a_pipeline(pipeline):
    recipe = {"description": "mine", "goal": "size", "limits": {"min_sqnr": 20}, "passes": ["encode"]}
    found = pipeline({**recipe, "model": "in.onnx", "output": {"model": "out.onnx"}})
    assert (found.recipe.goal, found.recipe.limits.min_sqnr, found.limits.min_sqnr) == ("size", 20, 20)
    assert found.description == "mine"


def test_a_recipe_file_is_found_beside_the_pipeline(pipeline, tmp_path):
    (tmp_path / "mine.yaml").write_text("passes: [encode]", encoding="utf-8")
    assert pipeline({**LEAST, "recipe": "mine.yaml"}).recipe.name == "mine"


def test_a_budget_takes_the_place_of_passes(pipeline, tmp_path):
    budget = {"goal": "latency", "max_drop": 0.01, "limit": "2x", "confidence": 0.9, "time_limit": 60}
    given = {"model": "in.onnx", "metric": "top1", "budget": budget, "folder": "tried", "output": {"model": "out.onnx"}}
    found = pipeline(given)
    assert found.recipe is None
    assert (found.budget.goal, found.budget.limit, found.budget.time_limit) == ("latency", "2x", 60)
    assert found.folder == tmp_path / "tried"
    assert (found.limits.max_drop, found.limits.confidence) == (0.01, 0.9)
    assert pipeline({**given, "gates": {"confidence": 0.95}}).limits.confidence == 0.95
    del budget["confidence"]
    assert pipeline(given).limits.confidence is None  # so that a metric of which nobody knows how sure it is may pass


def test_providers_of_parity_have_their_full_names(pipeline):
    assert pipeline({**LEAST, "gates": {"parity": {"cpu": 30}}}).limits.parity == {"CPUExecutionProvider": 30}


def test_settings_and_variables_stand_in_the_place_of_what_the_file_says(pipeline, tmp_path):
    content = {**LEAST, "gates": {"max_bytes": "${BYTES}"}, "description": "$HOME"}
    found = pipeline(content, settings=["model=${NAME}.onnx"], environment={"BYTES": "12", "NAME": "other"})
    assert (found.model, found.limits.max_bytes, found.description) == (tmp_path / "other.onnx", 12, "$HOME")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"model": None}, "model: should be a valid string, not None"),
        ({"model": ""}, "model: String should have at least 1 character, not ''"),
        ({"output": {}}, "output.model: is missing"),
        ({"output": {"model": "o", "htlm": "x"}}, "output.htlm: there is no such field; did you mean html"),
        ({"gates": {"max_dorp": 1}}, "gates.max_dorp: there is no such field; did you mean max_drop"),
        ({"gates": {"max_drop": -1}}, "gates.max_drop: should be greater than or equal to 0, not -1"),
        ({"gates": {"max_load_ratio": 0}}, "gates.max_load_ratio: should be greater than 0, not 0"),
        ({"gates": {"parity": {"gpu": 20}}}, "gates.parity: provider 'gpu' is unknown; give one of cpu, cuda"),
        ({"gates": {"parity": {"cpu": "x"}}}, "gates.parity.cpu: should be a valid number"),
        ({"gates": {"max_drop": 0.1}}, "metric: max_drop 0.1 needs one: give top1 or module:function"),
        ({"gates": {"confidence": 0.9}}, "gates.confidence: it is that of max_drop, which is not given"),
        ({"gates": {"confidence": 1}}, "gates.confidence: should be less than 1, not 1"),
        ({"targets": {"providers": []}}, "targets.providers: "),
        ({"targets": {"threads": 0}}, "targets.threads: should be greater than 0, not 0"),
        ({"passes": ["encode"]}, "give one of passes, recipe and budget; there is passes and recipe"),
        ({"recipe": None}, "give one of passes, recipe and budget; there is none"),
        ({"recipe": "balancd"}, "recipe: no recipe is called"),
        ({"recipe": "none.yaml"}, "recipe: cannot read recipe"),
        ({"goal": "size"}, "goal: it stands with passes; the recipe says it here"),
        ({"limits": {"min_sqnr": 1}}, "limits: it stands with passes; gates says it here"),
        ({"folder": "x"}, "folder: it is that of a search"),
        ({"recipe": None, "passes": ["encod"]}, "passes.0: no pass is called 'encod'"),
        ({"recipe": None, "passes": [{"share-kmeans": {"bits": 99}}]}, "passes.0.bits: "),
        ({"recipe": None, "budget": {"goal": "size", "confidence": 0.9}}, "budget.confidence: it is that of max_drop"),
        ({"recipe": None, "budget": {"goal": "sped"}}, "budget.goal: should be 'size', 'latency' or 'memory'"),
        ({"recipe": None, "budget": {"goal": "size", "limit": "4y"}}, "budget.limit '4y': give"),
        ({"recipe": None, "budget": {"goal": "size", "max_drop": 0.1}}, "metric: max_drop 0.1 needs one"),
        ({"gates": None}, "gates: should be a mapping, not None"),
        ({"targets": "cpu"}, "targets: should be a mapping, not 'cpu'"),
        ({"samples": 0}, "samples: should be greater than 0"),
        ({"model": "${NOT_SET_ANYWHERE}"}, "model: the environment variable NOT_SET_ANYWHERE is not set"),
        ({1: 2}, "1: "),
    ],
)
def test_refuses_in_one_line_that_names_file_and_field(pipeline, change, complaint):
    with pytest.raises(ConfigError) as caught:
        pipeline({**LEAST, **change}, environment={})
    assert str(caught.value).startswith(f"pipeline.yaml: {complaint}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("- model", "pipeline.yaml: a pipeline is a mapping with `model:`"),
        ("", "pipeline.yaml: a pipeline is a mapping"),
        ("model: [", "pipeline.yaml: line 1, column 9: not YAML"),
        ("gates: {max_drop: 1}\ngates: {}", "pipeline.yaml: line 2, column 1: not YAML: 'gates' stands here twice"),
        ("model: &a [*a]", "pipeline.yaml: a value holds itself"),
        ("model: 2026-02-30", "pipeline.yaml: not YAML that can be read"),
        ("a: " + "[" * 5000, "pipeline.yaml: "),
    ],
)
def test_refuses_what_is_no_document(pipeline, text, complaint):
    with pytest.raises(ConfigError) as caught:
        pipeline(text)
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read pipeline .*none\.yaml: No such file"):
        read(tmp_path / "none.yaml")


def test_the_shipped_schema_is_what_the_code_says():
    made = json.loads(json.dumps(schema(sorted(BUILT_IN))))
    assert json.loads(SHIPPED.read_text(encoding="utf-8")) == made, "run python scripts/write_schema.py"


@pytest.mark.parametrize("text", [LEAST, {**LEAST, "gates": {"parity": {"cpu": 3}}}, {**LEAST, "metric": None}])
def test_the_schema_takes_what_the_reader_takes(pipeline, text):
    jsonschema.Draft202012Validator(schema()).validate(text)
    assert pipeline(text).model.name == "in.onnx"


@pytest.mark.parametrize(
    "change",
    [
        {"gates": {"max_dorp": 1}},
        {"output": {}},
        {"targets": {"threads": 0}},
        {"passes": ["encode"]},
        {"recipe": None, "passes": ["encod"]},
        {"passes": [{"share-kmeans": {"overrides": {"*": {"bit": 1}}}}]},
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(pipeline, change):
    text = {**LEAST, **change}
    assert not jsonschema.Draft202012Validator(schema()).is_valid(text)
    with pytest.raises(ConfigError):
        pipeline(text)


def test_the_schema_is_one_and_its_references_lead_somewhere():
    content = schema()
    jsonschema.Draft202012Validator.check_schema(content)
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(content))):
        found = content
        for key in reference.split("/"):
            found = found[key]


@pytest.mark.parametrize("field", ["model", "data", "metric", "gates", "budget", "passes", "recipe"])
def test_the_schema_says_what_each_field_means(field):
    assert schema()["properties"][field]["description"]
