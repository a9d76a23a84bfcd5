"""What is installed is what lies in the folders, with bounds that are tested."""

import ast
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions, version
from itertools import chain
from pathlib import Path

import pytest

from onnxpress.passes.base import Pass
from onnxpress.passes.registry import BUILT_IN
from onnxpress.runtime import OLDEST

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
FOLDERS = ("onnxpress", "passes", "calibration", "rewriter", "models")
OPTIONAL_IMPORTS = {"onnxruntime", "ray"}
"""Which distribution brings it is the user's choice, or whether it is there at all."""


def files(*folders: str) -> Iterator[Path]:
    """The files in top-level folders, each once: the symbolic links in onnxpress/ are not followed."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and not any(parent.is_symlink() for parent in path.parents):
                yield path


def sources(*folders: str) -> Iterator[Path]:
    """The modules among them."""
    return (path for path in files(*folders) if path.suffix == ".py")


def installed_as(path: Path) -> str:
    """The path of a repository's file inside the wheel."""
    relative = path.relative_to(ROOT).as_posix()
    return relative if relative.startswith("onnxpress/") else f"onnxpress/{relative}"


def imports(path: Path) -> Iterator[str]:
    """The names of all modules that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements() -> list[str]:
    return [*PROJECT["dependencies"], *chain.from_iterable(PROJECT["optional-dependencies"].values())]


def test_installs_every_folder_with_modules():
    setuptools = PYPROJECT["tool"]["setuptools"]
    folders = {path.parent for path in sources(*FOLDERS)}
    packages = {installed_as(folder / "x").removesuffix("/x").replace("/", "."): folder for folder in folders}
    assert sorted(setuptools["packages"]) == sorted(packages)
    assert setuptools["package-dir"] == {f"onnxpress.{folder}": folder for folder in FOLDERS[1:]}


def test_links_lead_static_tools_to_the_folders():
    for folder in FOLDERS[1:]:
        assert (ROOT / "onnxpress" / folder).readlink() == Path("..") / folder


def test_every_package_folder_has_an_init():
    missing = [path.parent for path in sources(*FOLDERS) if not (path.parent / "__init__.py").is_file()]
    assert not missing


@pytest.mark.parametrize("requirement", requirements())
def test_requirement_has_a_lower_bound(requirement):
    assert re.fullmatch(r"[\w.-]+>=[\d.]+", requirement)


def test_lower_bounds_are_written_as_constraints():
    script = ROOT / "scripts" / "lower_bounds.py"
    printed = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout.split()
    assert printed == sorted({requirement.replace(">=", "==") for requirement in requirements()})


def test_oldest_runtime_is_the_one_the_extras_require():
    oldest = ".".join(map(str, OLDEST))
    assert PROJECT["optional-dependencies"]["cpu"] == [f"onnxruntime>={oldest}"]
    assert PROJECT["optional-dependencies"]["gpu"] == [f"onnxruntime-gpu>={oldest}"]


def test_plain_install_leaves_the_runtime_alone():
    assert not [requirement for requirement in PROJECT["dependencies"] if requirement.startswith("onnxruntime")]


def test_installed_version_is_the_projects():
    assert version("onnxpress") == PROJECT["version"]


def test_changelog_tells_of_the_version():
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_import_is_declared():
    declared = {canonical(re.split(r"[>\[]", requirement)[0]) for requirement in requirements()}
    owners = packages_distributions()
    undeclared = {}
    for path in sources(*FOLDERS):
        for name in {module.split(".")[0] for module in imports(path)} - sys.stdlib_module_names - OPTIONAL_IMPORTS:
            if name != "onnxpress" and not declared & {canonical(owner) for owner in owners.get(name, [])}:
                undeclared[name] = str(path.relative_to(ROOT))
    assert not undeclared


def test_every_pass_is_registered_by_its_name():
    for path in sources("passes"):
        importlib.import_module(installed_as(path).removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    found = {each.name: f"{each.__module__}:{each.__name__}" for each in kinds(Pass) if not inspect.isabstract(each)}
    assert found.items() <= BUILT_IN.items()


def kinds(parent: type[Pass]) -> Iterator[type[Pass]]:
    """The classes of the project that derive from `parent`."""
    for child in parent.__subclasses__():
        yield from kinds(child)
        if child.__module__.startswith("onnxpress.passes."):  # what the search has of its own is in no recipe
            yield child


def test_kernels_know_arrays_only():
    allowed = {"numpy", "scipy", "sklearn", "threadpoolctl"} | sys.stdlib_module_names
    for path in sources("passes/kernels"):
        for module in imports(path):
            own = module.startswith("onnxpress.passes.kernels")
            assert own or module.split(".")[0] in allowed, f"{path.relative_to(ROOT)} imports {module}"


def test_no_module_imports_a_training_framework():
    for path in sources(*FOLDERS, "tests"):
        assert not {"torch", "tensorflow", "jax"} & {module.split(".")[0] for module in imports(path)}, path


def test_importing_onnxpress_loads_nothing_heavy():
    heavy = ["torch", "sklearn", "tensorly", "scipy", "matplotlib", "sympy", "onnxruntime"]
    code = f"import onnxpress, sys; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def build(step: str, source: Path, target: Path) -> Path:
    """Run one hook of the build backend, as pip does."""
    code = "import sys; from setuptools import build_meta as backend; print(getattr(backend, sys.argv[1])(sys.argv[2]))"
    command = [sys.executable, "-P", "-c", code, step, str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=True)
    return target / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> list[str]:
    """Names of the files in the wheel that is built from the source distribution."""
    tree, target = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tree / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    # by a command, because the option `filter` is not in every Python 3.11, and later ones warn where it is missing
    archive = build("build_sdist", tree, target)
    subprocess.run([sys.executable, "-m", "tarfile", "-e", archive, target], capture_output=True, check=True)
    with zipfile.ZipFile(build("build_wheel", target / f"onnxpress-{PROJECT['version']}", target)) as built:
        return built.namelist()


def test_wheel_has_every_module_once(wheel):
    modules = [name for name in wheel if name.endswith(".py")]
    assert sorted(modules) == sorted(installed_as(path) for path in sources(*FOLDERS))


def test_wheel_has_the_files_that_are_no_modules(wheel):
    others = {installed_as(path) for path in files(*FOLDERS) if path.suffix not in {".py", ".pyc", ".md"}}
    assert "onnxpress/py.typed" in others
    assert others <= set(wheel)
    assert f"onnxpress-{PROJECT['version']}.dist-info/licenses/LICENSE" in wheel
