from pathlib import Path

import pytest
from typer.testing import CliRunner

from onnxpress.models.__main__ import app
from onnxpress.models.zoo import ZOO, path


def test_lists_the_models_without_a_name() -> None:
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(ZOO)


def test_copies_a_model_where_asked(tmp_path: Path) -> None:
    out = tmp_path / "mine.onnx"
    result = CliRunner().invoke(app, ["lenet300", "--out", str(out)])
    assert result.exit_code == 0
    assert result.stdout.strip() == str(out)
    assert out.read_bytes() == path("lenet300").read_bytes()


@pytest.mark.parametrize("arguments", [["resnet"], ["lenet5", "--wrong"]])
def test_wrong_usage_exits_with_status_two(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2
