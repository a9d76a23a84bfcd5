"""A report holds everything, and is plain JSON."""

import json
import math

import numpy as np
import pytest

from onnxpress.compression import compress
from onnxpress.outcome import CompressionResult
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.report import Curve
from onnxpress.passes.share.kmeans import ShareKMeans
from onnxpress.report import account, document, plain, to_json, write_text
from onnxpress.rewriter.errors import ConfigError


@pytest.fixture
def result(model, out, samples) -> CompressionResult:
    passes = [ShareKMeans(bits=2), Encode()]
    return compress(model, out, recipe=passes, data=samples, metric="top1", bench_seconds=0.01)


def test_tells_what_was_made_of_what_how_and_where(result):
    content = json.loads(to_json(document("compression", account(result))))
    assert content["versions"]["onnxpress"]
    assert content["versions"]["onnx"]
    assert content["machine"]["cores"] >= 1
    made = content["compression"]
    assert made["input"]["sha256"] == result.hashes_before
    assert made["output"]["sha256"] == result.hashes_after
    assert made["recipe"]["passes"][0]["share-kmeans"]["bits"] == 2
    assert {each["site"] for each in made["passes"][1]["changes"]} == {"first", "second"}
    assert made["verification"]["providers"][0]["nodes_after"]["CPUExecutionProvider"]


def test_numbers_that_json_lacks_are_words():
    assert plain({"a": math.inf, "b": (-math.inf, math.nan, 1.5)}) == {
        "a": "Infinity",
        "b": ["-Infinity", "NaN", 1.5],
    }
    assert plain(np.float64(2.5)) == 2.5


def test_a_report_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot write"):
        write_text("x", tmp_path / "none" / "report.json")


@pytest.fixture
def curved(result) -> CompressionResult:
    """A result with curves of fifty groups."""
    ratios = (0.0, 0.25, 0.5)
    made = [Curve(f"$b<i>lock_{k}", "channels", ratios, (math.inf, 30.0 + k, 20.0 + k), "outputs") for k in range(50)]
    result.reports[0].curves.extend(made)
    return result


def test_curves_are_in_the_report(curved):
    (first, *_) = plain(account(curved))["passes"][0]["curves"]
    assert first == {
        "site": "$b<i>lock_0",
        "unit": "channels",
        "ratios": [0.0, 0.25, 0.5],
        "errors": ["Infinity", 30.0, 20.0],
        "where": "outputs",
    }
