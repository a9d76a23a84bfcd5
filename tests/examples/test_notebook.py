"""The cells of the example notebook run in order, and what they end with shows itself."""

import ast
import json
import runpy
from pathlib import Path

NOTEBOOK = json.loads((Path(__file__).parents[2] / "examples" / "notebook.ipynb").read_text(encoding="utf-8"))
CELLS = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def as_script() -> str:
    """All cells, with what their last expressions give put into a list `shown`, as a notebook shows it."""
    lines = ["shown = []"]
    for cell in CELLS:
        *body, last = ast.parse("".join(cell["source"])).body
        lines += map(ast.unparse, body)
        lines.append(f"shown.append({ast.unparse(last)})" if isinstance(last, ast.Expr) else ast.unparse(last))
    return "\n".join(lines)


def test_the_cells_run_and_show_what_was_found(tmp_path):
    (tmp_path / "script.py").write_text(as_script(), encoding="utf-8")
    names = runpy.run_path(str(tmp_path / "script.py"))
    assert len(names["shown"]) == len(CELLS) - 1  # one prints
    assert None not in names["shown"]
    html = [each._repr_html_() for each in names["shown"] if hasattr(each, "_repr_html_")]
    assert sum("<table" in each for each in html) >= 3
    assert names["result"].path.is_file()


def test_no_output_is_kept():
    assert [(cell["outputs"], cell["execution_count"]) for cell in CELLS] == [([], None)] * len(CELLS)
