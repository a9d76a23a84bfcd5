"""Results at a prompt and in a notebook: short, and without harm."""

import dataclasses

import numpy as np
import pytest

import onnxpress
from onnxpress.compression import compress
from onnxpress.passes.share.kmeans import ShareKMeans


@pytest.fixture
def result(model, out, samples):
    return compress(model, out, recipe=[ShareKMeans(bits=2)], data=samples, metric="top1", bench_seconds=0.01)


def test_a_result_is_a_line(result):
    text = repr(result)
    assert str(result) == text
    assert "\n" not in text
    assert len(text) < 250
    for part in ("times smaller", "times as fast", "SQNR", "top1"):
        assert part in text


def test_a_line_says_what_is_wrong(result):
    changed = dataclasses.replace(result, version="normalised", unmet=("SQNR is 3\n dB",), benchmarks=())
    assert "the normalised model was delivered" in repr(changed)
    assert "limit not met: SQNR is 3  dB" in repr(changed)
    assert "as fast" not in repr(changed)


def test_a_notebook_gets_a_table(result):
    changed = dataclasses.replace(result, warnings=("<script>alert()</script>",))
    text = changed._repr_html_()
    assert "<script" not in text
    assert "warning: &lt;script&gt;" in text
    assert "times smaller" in text


def test_comparisons_and_timings_too(result):
    assert repr(result.verification).startswith("<SQNR ")
    assert "cosine" in result.verification._repr_html_()
    (timed,) = result.benchmarks
    assert "times as fast on cpu" in repr(timed)
    assert "middle half" in timed._repr_html_()


def test_timings_of_several_providers_are_one_table(model, tmp_path):
    found = onnxpress.bench(model, model, data={"x": np.zeros((4, 8), np.float32)}, seconds=0.01)
    assert isinstance(found, tuple)
    assert found._repr_html_() == found[0]._repr_html_()
