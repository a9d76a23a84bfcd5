"""What loading may take, what it took, and what cannot be decoded."""

import itertools
import re

import ml_dtypes
import numpy as np
import pytest

from onnxpress.passes.encode import encode as module
from onnxpress.passes.encode import measuring
from onnxpress.passes.encode.encode import Encode
from onnxpress.rewriter.errors import ConfigError


def reasons(report):
    return {skip.site: skip.reason for skip in report.skips}


def test_chooses_larger_plans_where_the_smallest_take_too_much_memory(make_model, make_weight):
    model = make_model({f"w{i}": make_weight((256, 256), density=0.1, distinct=15, seed=i) for i in range(4)})
    free, held, least = (Encode(max_load_bytes=each)(model) for each in (None, 5_000_000, 0))
    assert [c.action for c in free.report.changes] == ["Huffman-coded gaps below 128, Huffman codes"] * 4
    assert {c.action for c in held.report.changes} == {"gaps of 4 bits, codes of 4 bits"}
    assert "of max_load_bytes = 5,000,000" in reasons(held.report)["graph"]
    assert "graph" not in reasons(free.report)
    assert {c.action for c in least.report.changes} == {"sparse initializer"}  # loads like a dense weight


def test_rejects_a_negative_saving():
    with pytest.raises(ConfigError, match="least_saving must be a whole number of at least 0, got -1"):
        Encode(least_saving=-1)


def test_chooses_larger_plans_where_the_smallest_take_too_long(make_model, make_weight):
    model = make_model({f"w{i}": make_weight((256, 256), density=0.1, distinct=15, seed=i) for i in range(4)})
    free, held, least = (Encode(max_load_seconds=each)(model) for each in (None, 0.008, 0))
    assert [c.action for c in free.report.changes] == ["Huffman-coded gaps below 128, Huffman codes"] * 4
    assert {c.action for c in held.report.changes} == {"gaps of 4 bits, codes of 4 bits"}
    assert "seconds more to load, of max_load_seconds = 0.008" in reasons(held.report)["graph"]
    assert "graph" not in reasons(free.report)
    assert {c.action for c in least.report.changes} == {"sparse initializer"}  # loads like a dense weight


def test_tells_what_loading_took_and_what_happens_without_folding(make_model, make_weight):
    weights = {"w": make_weight((64, 64), distinct=16)}
    load, run = Encode()(make_model(weights)).report.notes
    memory = r"(, and up to [\d.,]+ MB more meanwhile)?"
    assert re.fullmatch(r"ONNX Runtime takes -?[\d.,]+ ms longer to load it \(estimated [\d.,]+\)" + memory, load)
    assert re.search(r"does not fold constants, every run decodes the weights, which takes [\d.,]+ ms", run)
    assert Encode(measure=False)(make_model(weights)).report.notes == []


def test_tells_what_memory_loading_took(make_model, make_weight, monkeypatch):
    seen = itertools.cycle([5_000_000, 25_000_000])  # the dense model and the encoded one, in turns
    monkeypatch.setattr(measuring, "_highest", lambda *, reset=False: 0 if reset else next(seen))
    load, _ = Encode()(make_model({"w": make_weight((64, 64), distinct=16)})).report.notes
    assert load.endswith("), and up to 20.0 MB more meanwhile")


def test_does_not_tell_memory_where_the_system_does_not(make_model, make_weight, monkeypatch):
    monkeypatch.setattr(measuring, "_highest", lambda *, reset=False: None)
    load, run = Encode()(make_model({"w": make_weight((64, 64), distinct=16)})).report.notes
    assert load.endswith(")")
    assert "MB" not in run


def test_warns_where_loading_takes_longer_than_it_may(make_model, make_weight, monkeypatch):
    monkeypatch.setattr(module, "opening", lambda before, after, bench: measuring.Opening(0.5, None))
    model = make_model({"w": make_weight((64, 64), distinct=16)})
    (warning,) = Encode(max_load_seconds=0.1)(model).report.warnings
    assert warning.startswith("it takes 0.5 seconds longer to load, max_load_seconds is 0.1")
    assert Encode(max_load_seconds=1)(model).report.warnings == []


def test_a_model_that_does_not_load_is_encoded_and_not_timed(make_model, make_weight):
    model = make_model({"w": make_weight((64, 64), distinct=16)})
    model.graph.nodes[0].domain = "unheard.of"
    model.import_domain("unheard.of", 1)
    report = Encode()(model).report
    assert len(report.changes) == 1
    assert report.notes[0].endswith("that was not measured")


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
def test_says_that_nothing_decodes_eight_bit_floats(make_model, make_weight, name):
    model = make_model({"w": make_weight((64, 64))})
    weight = next(iter(model.constants()))
    model.replace_weight(weight, make_weight((64, 64), distinct=4).astype(np.dtype(getattr(ml_dtypes, name))))
    report = Encode()(model).report
    assert report.changes == []
    assert reasons(report)["w"] == f"ONNX has no Gather of {name}, so nothing decodes it"


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), "1", True])
def test_rejects_seconds_that_are_negative_or_no_number(wrong):
    with pytest.raises(ConfigError, match="max_load_seconds must be a number of at least 0, got"):
        Encode(max_load_seconds=wrong)


@pytest.mark.parametrize("flag", ["huffman", "measure"])
def test_rejects_flags_that_are_neither_true_nor_false(flag):
    with pytest.raises(ConfigError, match=f"{flag} must be true or false, got 'no'"):
        Encode(**{flag: "no"})


def test_rejects_negative_memory():
    with pytest.raises(ConfigError, match="max_load_bytes must be a whole number of at least 0, got -1"):
        Encode(max_load_bytes=-1)


def test_a_weight_that_stays_dense_for_the_load_limit_says_so(make_model, make_weight):
    model = make_model({"w": make_weight((64, 64), distinct=16), "v": make_weight((64, 64), distinct=16, seed=1)})
    told = reasons(Encode(max_load_bytes=60_000)(model).report)
    limited = [reason for reason in told.values() if "together the weights" in reason]
    wanted = r"would take [\d,]+ of [\d,]+ bytes, but [\d,]+ bytes of memory to load, of max_load_bytes = 60,000"
    assert limited
    assert all(re.search(wanted, reason) for reason in limited)
    held = reasons(Encode(max_load_seconds=1e-5)(model).report)
    assert all("seconds more to load, of max_load_seconds = 1e-05" in held[name] for name in ("node0", "node1"))
