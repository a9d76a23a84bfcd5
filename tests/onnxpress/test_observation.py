"""`onnxpress calibrate`."""

import numpy as np
import pytest

from onnxpress.calibration.statistics import Statistics


@pytest.fixture
def place(out):
    return out.with_suffix(".npz")


def test_observes_a_model_and_says_what_was_written(run, model, samples, place):
    status, printed, complaint = run("calibrate", model, "-o", place, "--data", samples)
    assert (status, complaint) == (0, "")
    seen = Statistics.load(place)
    assert (
        printed
        == f"wrote {place}: {len(seen.observers)} tensors, {seen.batches} batches, {place.stat().st_size:,} bytes\n"
    )
    x = np.load(samples)["x"]
    assert (seen.observers["x"].low, seen.observers["x"].high) == (x.min(), x.max())
    assert {each.kind for each in seen.observers.values()} == {"histogram"}


@pytest.mark.parametrize("method", ["minmax", "average"])
def test_keeps_what_it_is_told_to(run, model, samples, place, method):
    assert run("calibrate", model, "-o", place, "--data", samples, "--method", method, "--samples", 10)[0] == 0
    seen = Statistics.load(place)
    assert {each.kind for each in seen.observers.values()} == {method}
    assert seen.observers["x"].high <= np.load(samples)["x"][:10].max()


def test_parts_are_merged_to_the_whole(run, model, samples, place, tmp_path):
    x = np.load(samples)["x"]
    parts = []
    for name, rows in (("a", x[:20]), ("b", x[20:])):
        np.savez(tmp_path / f"{name}-samples.npz", x=rows)
        parts.append(tmp_path / f"{name}.npz")
        assert run("calibrate", model, "-o", parts[-1], "--data", tmp_path / f"{name}-samples.npz")[0] == 0
    assert run("calibrate", "--merge", *parts, "-o", place)[0] == 0
    whole = tmp_path / "whole.npz"
    assert run("calibrate", model, "-o", whole, "--data", samples)[0] == 0
    merged, expected = (Statistics.load(path).observers["x"] for path in (place, whole))
    np.testing.assert_array_equal(merged.counts, expected.counts)


def test_merging_never_overwrites_a_part(run, refused, model, samples, tmp_path):
    one, other = tmp_path / "one.npz", tmp_path / "other.npz"
    assert run("calibrate", model, "-o", one, "--data", samples)[0] == 0
    before = one.read_bytes()
    other.write_bytes(before)
    for parts in ((one, other), (other, one)):
        assert "what is read is never overwritten" in refused("calibrate", "--merge", *parts, "-o", other)
    assert other.read_bytes() == before


@pytest.mark.parametrize(
    "option",
    [("--data", "a.npz"), ("--method", "histogram"), ("--samples", 3), ("--providers", "cpu"), ("--threads", 1)],
)
def test_merging_refuses_options_that_it_would_ignore(refused, samples, place, option):
    complaint = refused("calibrate", "--merge", samples, samples, "-o", place, *option)
    assert f"leave out {option[0]}" in complaint


def test_merging_names_all_options_that_it_would_ignore(refused, samples, place):
    complaint = refused("calibrate", "--merge", samples, samples, "-o", place, "--threads", 1, "--seed", 0)
    assert "leave out --threads and --seed" in complaint


def test_made_up_inputs_are_warned_of(run, model, place):
    status, _, complaint = run("calibrate", model, "-o", place)
    assert status == 0
    assert "warning: no samples were given" in complaint


def test_odd_tensors_are_warned_of(run, model, place, tmp_path):
    x = np.zeros((4, 8), np.float32)
    x[0] = np.nan
    np.savez(tmp_path / "odd.npz", x=x)
    status, _, complaint = run("calibrate", model, "-o", place, "--data", tmp_path / "odd.npz")
    assert status == 0
    assert "NaN or infinities in 3 tensors ('x', " in complaint
    np.savez(tmp_path / "odd.npz", x=np.full((4, 8), np.nan, np.float32))
    assert (
        "no finite number was seen in 3 tensors"
        in run("calibrate", model, "-o", place, "--data", tmp_path / "odd.npz")[2]
    )


def test_refuses_what_cannot_be_done(refused, model, samples, place):
    assert "method 'kl' is unknown" in refused("calibrate", model, "-o", place, "--data", samples, "--method", "kl")
    assert "2 files to calibrate" in refused("calibrate", model, model, "-o", place)
    assert "1 calibration file is nothing to merge" in refused("calibrate", "--merge", samples, "-o", place)
    assert "samples.npz is no calibration file" in refused("calibrate", "--merge", samples, samples, "-o", place)
    assert "no such file" in refused("calibrate", place.with_name("none.onnx"), "-o", place)
    assert "what is read is never overwritten" in refused("calibrate", model, "-o", model)
    assert "there is no folder" in refused("calibrate", model, "-o", place.parent / "none" / "a.npz")
