"""Values from outside stand where they belong, or are refused in one line."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.rewriter.errors import ConfigError
from onnxpress.settings import fill, override

DOCUMENT = {"gates": {"max_drop": 0.01}, "passes": ["encode", {"share-kmeans": {"bits": 4}}], "targets": None}


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("gates.max_drop=0.5", ("gates", "max_drop"), 0.5),
        ("gates.min_sqnr=20", ("gates", "min_sqnr"), 20),
        ("passes.1.share-kmeans.bits=6", ("passes", 1, "share-kmeans", "bits"), 6),
        ("targets.threads=2", ("targets", "threads"), 2),
        ("targets.providers=[cpu, cuda]", ("targets", "providers"), ["cpu", "cuda"]),
        ("output.model=a=b.onnx", ("output", "model"), "a=b.onnx"),
        ("test=", ("test",), None),
    ],
)
def test_a_setting_replaces_one_value(setting, path, value):
    found = override(DOCUMENT, [setting])
    for key in path:
        found = found[key]
    assert found == value
    assert DOCUMENT["passes"][1] == {"share-kmeans": {"bits": 4}}


def test_the_last_of_two_settings_counts():
    assert override({}, ["seed=1", "seed=2"]) == {"seed": 2}


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("gates.max_drop", "--set gates.max_drop: write field.below=value"),
        ("=3", "--set =3: write field.below=value"),
        ("gates..x=3", "--set gates..x=3: write field.below=value"),
        ("passes.2=encode", "--set passes.2: there is no entry '2' in a list of 2"),
        ("passes.first=encode", "--set passes.first: there is no entry 'first'"),
        ("passes.0.encode.x=1", "--set passes.0.encode.x: nothing can stand below 'encode'"),
        ("seed=[1", "--set seed: line 1, column 3: not YAML"),
    ],
)
def test_a_setting_that_leads_nowhere_is_refused(setting, complaint):
    with pytest.raises(ConfigError) as caught:
        override(DOCUMENT, [setting])
    assert str(caught.value).startswith(complaint)


def test_only_variables_in_braces_are_filled_in():
    content = {"a": "${ROOT}/x", "b": ["$ROOT", "$${ROOT}", "${ROOT}${ROOT}", 3]}
    assert fill(content, {"ROOT": "${HOME}"}, source="p") == {
        "a": "${HOME}/x",
        "b": ["$ROOT", "${ROOT}", "${HOME}" * 2, 3],
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("${NONE}", "p: a.0: the environment variable NONE is not set"),
        ("${NONE:-3}", "p: a.0: '${NONE:-3}' is no variable; write ${NAME}"),
        ("${", "p: a.0: '${' is no variable"),
        ("${}", "p: a.0: '${}' is no variable"),
    ],
)
def test_a_variable_that_means_nothing_is_refused(text, complaint):
    with pytest.raises(ConfigError) as caught:
        fill({"a": [text]}, {}, source="p")
    assert str(caught.value).startswith(complaint)


@given(
    st.recursive(
        st.text(alphabet="ab $") | st.integers(), lambda each: st.lists(each) | st.dictionaries(st.text("ab"), each)
    )
)
def test_what_holds_no_variable_stays(content):
    assert fill({"a": content}, {}, source="p") == {"a": content}


@given(st.dictionaries(st.sampled_from("abc"), st.integers()), st.sampled_from("abc"), st.integers())
def test_a_setting_is_as_if_it_stood_in_the_file(document, key, value):
    assert override(document, [f"{key}={yaml.safe_dump(value).split()[0]}"]) == {**document, key: value}
