"""Print the lower bounds in pyproject.toml as pip constraints: `numpy>=2.0` -> `numpy==2.0`."""

import re
import tomllib
from itertools import chain
from pathlib import Path

REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[.*?\])?\s*>=\s*(?P<bound>[\w.]+)")


def lower_bounds(pyproject: Path) -> list[str]:
    """Pin what `pyproject` requires, its extras included, to the lower bounds.

    Raises:
        ValueError: a requirement states no lower bound.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    pins = []
    for requirement in chain(project["dependencies"], *project["optional-dependencies"].values()):
        match = REQUIREMENT.match(requirement)
        if match is None:
            raise ValueError(f"{requirement} has no lower bound: write {requirement}>=…")
        pins.append(f"{match['name']}=={match['bound']}")
    return sorted(set(pins))


if __name__ == "__main__":
    print("\n".join(lower_bounds(Path(__file__).parents[1] / "pyproject.toml")))
