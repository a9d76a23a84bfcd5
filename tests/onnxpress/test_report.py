"""A report holds everything, and is plain JSON; the page shows it."""

import json
import math
import re
import sys

import numpy as np
import pytest

from onnxpress.compression import compress
from onnxpress.outcome import CompressionResult
from onnxpress.page import page
from onnxpress.passes.encode.encode import Encode
from onnxpress.passes.report import Curve, Report
from onnxpress.passes.share.kmeans import ShareKMeans
from onnxpress.plots import SiteTotal, draw, draw_curves, totals
from onnxpress.report import account, document, plain, to_json, write_text
from onnxpress.rewriter.errors import ConfigError
from onnxpress.sensitivity import Family


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


def test_the_page_stands_alone_and_escapes_names(result):
    result.reports[1].change("<b>evil</b>", "<script>", bytes_before=10, bytes_after=5, error=0.1)
    text = page(result)
    assert "<script" not in text
    assert "&lt;b&gt;evil" in text
    assert "<svg" in text
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", text)


def test_the_page_needs_no_plots(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "onnxpress[report]" in page(result)


def test_sums_up_what_passes_did_to_a_site():
    first, second = Report("share"), Report("encode")
    first.change("a", "shared", bytes_before=100, bytes_after=100, error=0.3)
    second.change("a", "encoded", bytes_before=100, bytes_after=20, error=0.4)
    second.change("b", "encoded", bytes_before=500, bytes_after=50)
    second.change("graph", "3 nodes folded")
    assert totals([first, second]) == [SiteTotal("b", 500, 50, None), SiteTotal("a", 100, 20, 0.5)]


def test_draws_many_layers_and_strange_names():
    sites = [SiteTotal(f"$layer_{k} & <co>" + "x" * 50, 100 + k, 10, 0.1) for k in range(60)]
    picture = draw(sites)
    assert picture.startswith("<svg")
    assert "30 smaller layers" in picture
    assert picture == draw(sites)


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


def test_the_page_draws_curves_and_tells_their_figures(curved):
    text = page(curved)
    assert "What each layer or group can spare" in text
    assert "grey: 40 less sensitive ones" in text
    assert "<i>" not in text
    assert text.count("lock_49") == 1  # drawn in grey without its name, named in the table
    assert text.count("lock_0<") == 2  # most sensitive: named in both


def test_the_page_without_curves_has_no_place_for_them(result):
    assert "can spare" not in page(result)


def test_draws_curves_that_have_no_finite_point():
    nothing = Family("any", "heads", "layer", (Curve("a", "heads", (0.0,), (math.inf,), "layer"),))
    assert draw_curves([nothing]).startswith("<svg")
    assert draw_curves([nothing]) == draw_curves([nothing])


def test_one_point_without_loss_does_not_press_the_others_flat():
    def drawn(error):
        curves = (
            Curve("a", "channels", (0.1, 0.2), (error, 20.0), "outputs"),
            Curve("b", "channels", (0.1,), (9.0,), "outputs"),
        )
        return draw_curves([Family("any", "channels", "outputs", curves)])

    assert drawn(170.0) == drawn(60.0) != drawn(50.0)
