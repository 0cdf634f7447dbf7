"""The packages of the extension import each other in one direction only, as those of the backend do."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import motionbooth_addon
import pytest

ROOT = Path(motionbooth_addon.__file__).parent


def imported(path: Path) -> set[str]:
    """The packages, and the modules beside them, that a file imports when it is loaded."""
    own = path.relative_to(ROOT).parts
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level == len(own):  # relative to the extension itself
            names |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return names - {"_protocol", "__package__", own[0]}


def test_no_two_packages_import_each_other_even_by_way_of_others() -> None:
    found: dict[str, set[str]] = {}
    for path in ROOT.rglob("*.py"):
        package = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if package != "_protocol":
            found[package] = found.get(package, set()) | imported(path)
    assert {"capture", "timeline", "ui_state"} <= found["jobs"], "imports are seen"
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' <- '.join(error.args[1])}")
