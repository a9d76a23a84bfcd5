"""Recipes say what they mean, and one line says where they do not."""

import json
from pathlib import Path

import pytest
import yaml

from onnxpress.options import schema_of
from onnxpress.passes.registry import known
from onnxpress.recipe import Limits, Recipe, built_in, load, locate, parse, schema
from onnxpress.rewriter.errors import ConfigError

DESIGN = """
passes:
  - prune-magnitude: {sparsity: 0.5, sites: {exclude: ["*head*"]}}
  - share-kmeans: {bits: 4}
  - encode: {}
"""


def read(text: str) -> Recipe:
    return parse(text, name="mine", source="recipe.yaml")


def test_reads_passes_in_order_with_options_and_sites():
    prune, share, encode = read(DESIGN).passes
    assert (prune.name, share.name, encode.name) == ("prune-magnitude", "share-kmeans", "encode")
    assert prune.options()["sparsity"] == 0.5
    assert prune.options()["exclude"] == ("*head*",)


def test_a_name_alone_is_a_pass_with_its_usual_options():
    assert (
        read("passes: [encode]").passes == read("passes: [{encode: {}}]").passes == read("passes: [{encode: }]").passes
    )


def test_no_passes_is_a_recipe_that_only_normalises():
    assert read("passes: []").passes == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("passes: [{prune-magnitude: {sparsity: 2}}]", "recipe.yaml: passes.0.sparsity: sparsity must"),
        ("passes: [encode, {share-kmeans: {bits: many}}]", "recipe.yaml: passes.1.bits: should be a valid integer"),
        ("passes: [{share-kmeans: {bit: 4}}]", "recipe.yaml: passes.0.bit: share-kmeans has no such option"),
        ("passes: [share-kmean]", "recipe.yaml: passes.0: no pass is called 'share-kmean'; did you"),
        ("passes: [3]", "recipe.yaml: passes.0: write a pass as"),
        ("passes: [{encode: {}, decode: {}}]", "recipe.yaml: passes.0: write a pass as"),
        ("passes: [{encode: 4}]", "recipe.yaml: passes.0.encode: options are written"),
        (
            "passes: [{normalise: {sites: {include: ['*']}}}]",
            "recipe.yaml: passes.0.sites: normalise works on",
        ),
        ("passes: [{encode: {sites: ['*']}}]", "recipe.yaml: passes.0.sites: write {include"),
        (
            "passes: [{encode: {include: ['*'], sites: {include: ['*']}}}]",
            "recipe.yaml: passes.0.sites.include",
        ),
        ("passes: 3", "recipe.yaml: passes: should be a valid list, not 3"),
        ("goal: size", "recipe.yaml: passes: is missing"),
        ("passes: []\ngaol: size", "recipe.yaml: gaol: there is no such field; did you mean goal"),
        ("passes: []\ngoal: speed", "recipe.yaml: goal: should be 'size' or 'latency', not 'speed'"),
        ("passes: []\nlimits: {max_drop: -1}", "recipe.yaml: limits.max_drop: should be greater than or equal to 0"),
        ("passes: []\nlimits: {max_size: 1}", "recipe.yaml: limits.max_size: there is no such field"),
        ("passes: []\nlimits: {min_sqnr: .nan}", "recipe.yaml: limits.min_sqnr: should be a finite number, not nan"),
        ("passes: []\nlimits: {min_speedup: 0}", "recipe.yaml: limits.min_speedup: should be greater than 0, not 0"),
        ("pases: [encode]", "recipe.yaml: pases: there is no such field; did you mean passes"),
        ("passes: [{prune-magnitude: {sparsty: 0.5}}]", "recipe.yaml: passes.0.sparsty: prune-magnitude has no"),
        ("- encode", "recipe.yaml: a recipe is a mapping"),
        ("passes: [{", "recipe.yaml: line 1, column 11: not YAML"),
        ("", "recipe.yaml: a recipe is a mapping"),
    ],
)
def test_refuses_in_one_line_that_names_file_field_and_value(text, complaint):
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        ({"min_speedup": 0}, "min_speedup 0: should be greater than 0"),
        ({"min_sqnr": float("nan")}, "min_sqnr nan: should be a finite number"),
        ({"max_drop": float("inf")}, "max_drop inf: should be a finite number"),
        ({"max_bytes": 0}, "max_bytes 0: should be greater than 0"),
    ],
)
def test_a_limit_that_means_nothing_is_refused(limits, complaint):
    with pytest.raises(ConfigError) as caught:
        Limits(**limits)
    assert str(caught.value) == complaint


@pytest.mark.parametrize("name", ["smallest", "fastest", "int8", "int4", "balanced", "slim"])
def test_built_in_recipe_is_valid_and_described(name):
    recipe = load(name)
    assert recipe.name == name
    assert recipe.description
    assert recipe.passes


def test_lists_the_built_in_recipes():
    assert set(built_in()) == {"smallest", "fastest", "int8", "int4", "balanced", "slim"}


def test_written_out_it_reads_the_same():
    recipe = load("smallest")
    again = parse(yaml.safe_dump(recipe.document()), name="smallest", source="again.yaml")
    assert again == recipe


def test_reads_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(DESIGN, encoding="utf-8")
    assert load(path).name == load(str(path)).name == "mine"


def test_a_wrong_name_is_answered_with_the_near_ones():
    with pytest.raises(ConfigError, match=r"no recipe is called 'smalest'.*did you mean smallest"):
        load("smalest")


def test_refuses_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read recipe .*none\.yaml: No such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "bytes.yaml")


def test_built_in_files_hold_utf8_text():
    assert "passes:" in locate("int8").read_text(encoding="utf-8")
    assert isinstance(locate("int8"), Path)


def test_schema_knows_every_pass_and_its_options():
    content = schema()
    entries = content["properties"]["passes"]["items"]["anyOf"]
    assert "encode" in entries[0]["enum"]
    prune = next(each for each in entries[1:] if "prune-magnitude" in each["properties"])
    assert prune["properties"]["prune-magnitude"]["anyOf"][0] == {"$ref": "#/definitions/prune-magnitude"}
    options = content["definitions"]["prune-magnitude"]["properties"]
    assert {"sparsity", "include", "sites"} <= set(options)
    assert json.loads(json.dumps(content)) == content


@pytest.mark.parametrize("name", known())
def test_schema_says_what_each_option_means(name):
    options = schema_of(name)["properties"]
    assert [each for each, content in options.items() if not content.get("description") and each != "sites"] == []


def test_names_of_layers_to_leave_alone_have_an_option_of_their_own():
    with pytest.raises(ConfigError, match="works on the whole model; ignored_layers names layers that stay"):
        parse("passes: [prune-channels: {count: 1, sites: {exclude: ['*']}}]", name="r", source="r.yaml")
    with pytest.raises(ConfigError, match=r"ignored_layers: should be a list, not '\*'"):
        parse("passes: [prune-channels: {count: 1, ignored_layers: '*'}]", name="r", source="r.yaml")


def test_overrides_give_some_sites_other_options():
    text = (
        "passes: [{share-kmeans: {bits: 4, sites: {exclude: [last]}, overrides: {'*head*': {bits: 8}, b: {bits: 2}}}}]"
    )
    all_but, heads, second = (each.options() for each in read(text).passes)
    assert (all_but["bits"], all_but["include"], all_but["exclude"]) == (4, ("*",), ("last", "*head*", "b"))
    assert (heads["bits"], heads["include"], heads["exclude"]) == (8, ("*head*",), ("last",))
    assert (second["bits"], second["include"], second["exclude"]) == (2, ("b",), ("last", "*head*"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{share-kmeans: {overrides: [4]}}", "passes.0.overrides: write {glob: {option: value}}"),
        ("{share-kmeans: {overrides: {h: 4}}}", "passes.0.overrides: write {glob: {option: value}}"),
        ("{share-kmeans: {bits: 4, overrides: {h: {bits: 99}}}}", "passes.0.overrides.h.bits: "),
        (
            "{share-kmeans: {bits: 4, overrides: {h: {bit: 9}}}}",
            "passes.0.overrides.h.bit: share-kmeans has no such option",
        ),
        (
            "{share-kmeans: {bits: 4, overrides: {h: {include: [a]}}}}",
            "passes.0.overrides.h.include: the glob 'h' chooses",
        ),
        ("{share-kmeans: {bits: 4, overrides: {h: {sites: {}}}}}", "passes.0.overrides.h.sites: the glob 'h' chooses"),
        ("{normalise: {overrides: {h: {}}}}", "passes.0.overrides: normalise works on the whole model"),
    ],
)
def test_overrides_that_mean_nothing_are_refused(text, complaint):
    with pytest.raises(ConfigError) as caught:
        read(f"passes: [{text}]")
    assert str(caught.value).startswith(f"recipe.yaml: {complaint}")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("passes: []\nlimits: {}\nlimits: {}", "line 3, column 1: not YAML: 'limits' stands here twice"),
        ("passes: [{encode: {a: 1, a: 2}}]", "line 1, column 26: not YAML: 'a' stands here twice"),
    ],
)
def test_what_stands_twice_is_refused(text, complaint):
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert str(caught.value) == f"recipe.yaml: {complaint}"


def test_a_mapping_that_is_merged_into_others_may_be_changed():
    text = "passes: [{share-kmeans: &a {bits: 4}}, {share-kmeans: {<<: *a, bits: 5}}, {share-kmeans: {<<: *a}}]"
    assert [each.options()["bits"] for each in read(text).passes] == [4, 5, 4]
