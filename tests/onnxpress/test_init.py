"""The names of the Python API, and the example in its docstring."""

import importlib
import re
import runpy
from textwrap import dedent

import numpy as np
import pytest

import onnxpress


@pytest.mark.parametrize("name", onnxpress.__all__)
def test_every_name_is_there(name):
    assert getattr(onnxpress, name) is not None
    assert name in dir(onnxpress)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = onnxpress.nothing


def test_names_are_functions_whatever_was_imported_before():
    for module in ("compression", "verification", "benchmark", "inspection"):
        importlib.import_module(f"onnxpress.{module}")
    assert callable(onnxpress.compress)
    assert callable(onnxpress.verify)
    assert callable(onnxpress.bench)
    assert callable(onnxpress.inspect)


def test_the_example_runs(model, samples, tmp_path, monkeypatch, capsys):
    (tmp_path / "model.onnx").write_bytes(model.read_bytes())
    assert samples.parent == tmp_path
    monkeypatch.chdir(tmp_path)
    for example in re.findall(r"\n\n((?:    .*\n|\n)+)", onnxpress.__doc__):
        (tmp_path / "example.py").write_text(dedent(example), encoding="utf-8")
        runpy.run_path("example.py")
    assert (tmp_path / "small.onnx").is_file()
    assert np.isfinite(float(capsys.readouterr().out.split()[0]))
