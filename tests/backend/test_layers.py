"""The packages of the backend import each other in one direction only, and a server starts without torch."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import motionbooth
import pytest

ROOT = Path(motionbooth.__file__).parent
MODULES = {path: ".".join(path.relative_to(ROOT.parent).with_suffix("").parts) for path in ROOT.rglob("*.py")}


def package(module: str) -> str:
    """The package of the backend that a module belongs to; for a module beside the packages, the module itself."""
    return module.removeprefix("motionbooth.").split(".")[0]


def imported(path: Path) -> set[str]:
    """The backend's packages that a file imports, inside its functions, too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            raise AssertionError(f"{path} has a relative import")
    return {package(name) for name in names if name.startswith("motionbooth.")}


def graph(modules: dict[Path, str]) -> dict[str, set[str]]:
    """Each package with the packages that it imports."""
    found: dict[str, set[str]] = {package(module): set() for module in modules.values()}
    for path, module in modules.items():
        found[package(module)] |= imported(path) - {package(module)}
    return found


def test_no_two_packages_import_each_other_even_by_way_of_others() -> None:
    found = graph(MODULES)
    assert {"generation", "models", "control"} <= found["finetuning"], "imports are seen"
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("package", ["pictures", "control"])
def test_the_lowest_packages_import_no_other(package: str) -> None:
    assert graph(MODULES)[package] == set()


def test_the_server_and_the_command_line_start_without_torch() -> None:
    """The server's own process has no model, and a command answers at once; `ray` is another package to install."""
    started = [
        module for module in MODULES.values() if package(module) in ("server", "cli") and "ray" not in module.split("_")
    ]
    code = "import importlib, sys; [*map(importlib.import_module, sys.argv[1:])]; print('torch' in sys.modules)"
    names = [name for name in started if not name.endswith("__main__")]
    ran = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert len(names) > 20
    assert ran.stdout.strip() == "False"
