"""Figures are written as people read them."""

import math

import pytest

from onnxpress import tables
from onnxpress.passes.report import Harm, Report
from onnxpress.terminal import brief


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(12, "12 B"), (1_725_602, "1.73 MB"), (135_627, "136 kB"), (20_000, "20.0 kB"), (3e9, "3.00 GB")],
)
def test_sizes(nbytes, text):
    assert tables.size(nbytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.00342, "3.42 ms"), (1.5, "1.50 s"), (0.12, "120 ms"), (2.71e-5, "27.1 µs"), (0, "0.00 ms")]
)
def test_durations(seconds, text):
    assert tables.duration(seconds) == text


def test_counts_and_shapes():
    assert (tables.count(999), tables.count(1_600_000), tables.count(None)) == ("999", "1.60 M", "?")
    assert (tables.dims((64, 3)), tables.dims(("n", None)), tables.dims(())) == ("64×3", "n×?", "scalar")


def test_equal_outputs_have_no_ratio():
    assert (tables.decibel(math.inf), tables.decibel(9.44), tables.decibel(math.nan)) == ("equal", "9.4 dB", "nan dB")


def test_shows_only_the_options_that_were_chosen():
    report = Report("share-kmeans", {"include": ("*",), "exclude": ("a", "b"), "bits": 4, "per": "tensor"})
    assert tables.passes([report]).rows[0][-1] == "exclude a b, bits 4"
    assert tables.passes([Report("unknown", {"x": 1})]).rows[0][-1] == "x 1"


def test_options_read_from_a_file_are_the_same_as_those_of_the_pass():
    report = Report("share-kmeans", {"include": ["*"], "exclude": [], "bits": 4})
    assert tables.passes([report]).rows[0][-1] == "bits 4"


def test_tells_of_the_whole_where_no_layer_changed():
    report = Report("strip")
    for action in ("20 constants are stored once", "53 nodes became 29", "3 notes dropped", "4 names shortened"):
        report.change("graph", action)
    whole = "20 constants are stored once, 53 nodes became 29, 3 notes dropped, 1 others"
    assert tables.passes([report]).rows[0][2] == whole


def test_what_was_measured_of_the_whole_stands_below_the_passes():
    assert tables.passes([Report("encode", notes=["it loads"]), Report("strip")]).notes == ["encode: it loads"]


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ("equal to 'a/3' and stored once", "equal to … and stored once"),
        ("int8 per channel, activations uint8, 31.2 dB", "int8 per channel"),
        ("int8 in the file, float when it runs: it is shared", "int8 in the file"),
        ("90.0% zeros, 12.0% before", "zeros"),
        ("16 clusters", "clusters"),
        ("16 of 64 channels removed", "channels removed"),
        ("rank 96 of 512", "rank"),
        ("codes of 4 bits", "codes"),
        ("bit mask, codes of 4 bits", "bit mask"),
        ("12", "12"),
    ],
)
def test_says_what_was_done_to_layers(action, kind):
    report = Report("any")
    for site in ("a", "b"):
        report.change(site, action)
    report.change("c", "scaled")
    report.change("graph", "weights of 7 bits")
    assert tables.kinds(report) == f"2 {kind}, 1 scaled"
    assert tables.passes([report]).rows[0][2] == f"2 {kind}, 1 scaled"
    assert tables.kinds(report, most=1) == f"2 {kind}, 1 others"


def test_a_metric_that_hardly_rose_did_not_fall_by_minus_nothing():
    assert (tables.number(-0.00001), tables.number(0.25), tables.number(None)) == ("0.0000", "0.2500", "")


def test_groups_sites_that_were_left_alone_for_the_same_reason():
    report = Report("encode")
    for site in "abc":
        report.skip(site, "too small")
    report.skip("d", "dense")
    found = tables.skips([report])
    assert found is not None
    assert [list(row) for row in found.rows] == [
        ["encode", "3 sites: a, …", "too small"],
        ["encode", "d", "dense"],
    ]
    assert tables.skips([Report("encode")]) is None


def test_groups_sites_whose_reasons_differ_in_figures_alone():
    report = Report("share-kmeans")
    for site, weights in (("a", "144"), ("b", "1,576"), ("c", "432")):
        report.skip(site, f"has {weights} weights, fewer than min_size 2000")
    found = tables.skips([report])
    assert found is not None
    assert [row[1:] for row in found.rows] == [["3 sites: a, …", "has 144 to 1,576 weights, fewer than min_size 2000"]]


def test_names_that_no_line_holds_are_shortened():
    report, name = Report("encode"), "fused;" * 40
    report.skip(name, "too small")
    report.harms = [Harm(name, None, "weight", 3.0)]
    skips, harms = tables.skips([report]), tables.harms([report])
    assert skips is not None
    assert harms is not None
    assert skips.rows[0][1] == harms.rows[0][2] == brief([name])[0]
    assert len(brief([name])[0]) == 56


def test_counts_why_tensors_carry_codes_or_not():
    report = Report("quantize-static")
    report.tensors = {"a": "codes: Conv reads them", "b": "float: it has 9.1 dB", "c": "float: it has 12.0 dB"}
    found = tables.tensors([report], most=1)
    assert found is not None
    assert [list(row) for row in found.rows] == [["quantize-static", "2", "float: it has 9.1 to 12.0 dB"]]
    assert found.notes == ["and 1 more reasons, in the report (--json)"]
    assert tables.tensors([Report("encode")]) is None


@pytest.mark.parametrize(
    ("reasons", "joint"),
    [
        (["on codes it has 9.1 dB, layer_sqnr is 20"], "on codes it has 9.1 dB, layer_sqnr is 20"),
        (["it has 9.1 dB, least 20.5"] * 2, "it has 9.1 dB, least 20.5"),
        (["it has 9.1 dB, least 20.5", "it has -1.0 dB, least 20.5"], "it has -1.0 to 9.1 dB, least 20.5"),
        (["it has 9.1 dB", "it has 10.0 dB", "it has -inf dB"], "it has -inf to 10.0 dB"),
    ],
)
def test_shows_the_range_of_figures_in_which_reasons_differ(reasons, joint):
    report = Report("quantize-static")
    report.tensors = {str(index): reason for index, reason in enumerate(reasons)}
    found = tables.tensors([report])
    assert found is not None
    assert [list(row) for row in found.rows] == [["quantize-static", str(len(reasons)), joint]]


def test_reasons_that_differ_in_names_alone_are_one():
    report = Report("quantize-static")
    report.tensors = {"a": "float: 'layer.1.5' held NaN", "b": "float: 'layer.2.5' held NaN"}
    found = tables.tensors([report])
    assert found is not None
    assert [row[1:] for row in found.rows] == [["2", "float: … held NaN"]]


def test_lists_what_hurts_most():
    report = Report("quantize-static")
    report.harms = [Harm("a", "b", "activation", 12.3), Harm("w", None, "weight", math.inf)]
    found = tables.harms([report], most=1)
    assert found.rows == [["quantize-static", "activation", "a", "b", "12.3 dB"]]
    assert found.notes == ["and 1 more, in the report (--json)"]
    assert tables.harms([Report("encode")]) is None


def test_says_how_many_reasons_are_not_shown():
    report = Report("encode")
    for k in "abcde":
        report.skip(k, f"reason {k}")
    found = tables.skips([report], most=2)
    assert found is not None
    assert len(found.rows) == 2
    assert found.notes[0].startswith("and 3 more")


def test_names_the_ops_that_are_many():
    nodes = {"CPUExecutionProvider": {"Conv": 5, **{f"Op{k}": 1 for k in range(10)}}}
    text = tables.placement(nodes)
    assert text.startswith("15 on cpu: 5 Conv, 1 Op0")
    assert text.endswith("3 others")
    assert tables.placement({}) == "none"
