"""What the documentation tells a stranger to copy works."""

import fnmatch
import re
from pathlib import Path

import pytest

from onnxpress import recipe
from onnxpress.passes.registry import BUILT_IN

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = {str(page.relative_to(DOCS)): page.read_text(encoding="utf-8") for page in PAGES}


def blocks(language: str) -> list[tuple[str, str]]:
    """Each block in that language, with its page."""
    fence = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    found = [(page, *block) for page, text in TEXTS.items() for block in fence.findall(text)]
    return [(page, block) for page, spoken, block in found if spoken == language]


@pytest.mark.parametrize(("page", "block"), [each for each in blocks("yaml") if "passes:" in each[1]])
def test_recipes_are_valid(page, block):
    assert recipe.parse(block, name="example", source=page).passes


def test_every_option_of_the_command_line_exists(run):
    shown: dict[str, str] = {}
    for page, block in blocks(""):
        for line in block.replace("\\\n", " ").splitlines():
            if not line.startswith("onnxpress "):
                continue
            command, *words = line.split("#")[0].split()[1:]
            if command not in shown:
                shown[command] = run(command, "--help")[1]
            for word in words:
                assert not word.startswith("--") or word in shown[command], f"{page}: {line}"
    assert {"inspect", "compress", "verify", "bench"} <= set(shown)


@pytest.mark.parametrize(("page", "block"), blocks("python"))
def test_python_compiles(page, block):
    compile(block, page, "exec")


def test_every_pass_stands_on_the_page_of_its_family():
    text = "".join(text for page, text in TEXTS.items() if page.startswith("families/"))
    globs = " ".join(re.findall(r"{{ passes: (.*) }}", text)).split()
    told = [name for name in BUILT_IN if any(fnmatch.fnmatch(name, glob) for glob in globs)]
    assert sorted(set(BUILT_IN) - set(told)) == ["normalise"]
