"""Every text that the extension shows: from Blender's own description of its classes, and from its sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from motionbooth_protocol.text import fields

SOURCES = Path(__file__).parents[2] / "blender_addon" / "motionbooth_addon"
# Calls whose argument of this position is shown to a person.
SHOWN = {
    "InvalidInput": 0, "NotFound": 0, "NotAuthorized": 0, "Unreachable": 0, "OutOfSpace": 0, "Damaged": 0,
    "JobFailed": 0, "_Stopped": 0, "Canceled": 0, "Conflict": 0, "OverLimit": 0, "Busy": 0, "VersionMismatch": 0,
    "MotionBoothError": 0, "ValueError": 0, "Text": 0, "of": 0, "translate": 0, "refuse": 1, "report": 1,
    "show_notice": 0, "inform": 0, "show_connection": 1, "sentence": 1,
}  # fmt: skip
NOT_SHOWN = {"name", "uid", "job_id", "filter_glob", "filter_folder", "filter_image", "display_type", "directory"}
LAYOUT = {"label", "operator", "prop", "menu", "progress", "prop_search"}
ELSEWHERE = {"generate_file.py", "blender_command.py"}  # only the texts of command line options
FOR_PROGRAMS = {"codec.py", "text.py"}  # of the contract
BACKEND = Path(__file__).parents[2] / "backend" / "motionbooth"
# Parts of the backend whose texts are for its owner or for who works without Blender.
FOR_ITS_OWNER = {
    "bench", "cli", "doctor", "demo.py", "evaluation", "finetuning/clip_folder.py", "finetuning/recipes.py",
    "finetuning/tensorboard.py", "generation/script.py", "jobs/local_training.py", "jobs/takes.py",
    "pictures/folder.py", "pictures/training_set.py", "progress/display.py", "server/auth.py",
    "server/devices.py", "server/keys.py", "server/metrics.py", "server/sandbox.py", "server/serve.py",
    "server/task.py", "server/web.py",
}  # fmt: skip


def of_blender(classes: tuple[type, ...]) -> Iterator[tuple[str, str]]:
    """(context, text) of what operators, panels, menus and properties are called, and of their descriptions."""
    import bpy

    for cls in classes:
        operator = issubclass(cls, bpy.types.Operator)
        if operator or issubclass(cls, bpy.types.Panel | bpy.types.Menu):
            yield ("Operator" if operator else "*"), cls.bl_label  # type: ignore[attr-defined]
        if operator:
            yield "*", cls.__doc__ or ""
        if operator or issubclass(cls, bpy.types.PropertyGroup | bpy.types.AddonPreferences):
            yield from _of_properties(cls.bl_rna, set(getattr(cls, "__annotations__", {})) - NOT_SHOWN)  # type: ignore[attr-defined]


def _of_properties(rna: Any, own: set[str]) -> Iterator[tuple[str, str]]:
    for name in own & set(rna.properties.keys()):
        described = rna.properties[name]
        if described.is_hidden or described.name == name:  # without a name of its own it is in no panel
            continue
        yield "*", described.name
        yield "*", described.description
        if described.type == "ENUM":
            for item in described.enum_items:
                yield "*", item.name
                yield "*", item.description


def of_sources() -> Iterator[tuple[str, str]]:
    """(context, text) of panels, notices and errors of the extension and of the contract, whose errors it shows."""
    for source in sorted(_sources()):
        if source.name not in ELSEWHERE | FOR_PROGRAMS:
            yield from _of_file(source)


def of_backend() -> set[str]:
    """The texts of a backend's errors and notes that the extension may have to show."""
    others = [BACKEND / part for part in FOR_ITS_OWNER]
    assert all(part.exists() for part in others)
    sources = [path for path in BACKEND.rglob("*.py") if not {path, *path.parents} & set(others)]
    return {text for source in sources for _, text in _of_file(source)}


def _of_file(source: Path) -> Iterator[tuple[str, str]]:
    """Arguments of the calls in SHOWN, and every template."""
    tree = ast.parse(source.read_text())
    docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from _of_call(node)
        elif isinstance(node, ast.Constant) and node not in docstrings and fields(str(node.value)):
            yield "*", node.value


def all_of_sources() -> set[str]:
    """Every string in the sources of the extension and of the contract, whatever it is for."""
    nodes = [node for source in _sources() for node in ast.walk(ast.parse(source.read_text()))]
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def _sources() -> list[Path]:
    own = [source for source in SOURCES.rglob("*.py") if not {"_protocol", "german"} & set(source.parts)]
    return [*own, *(SOURCES / "_protocol").glob("*.py")]  # a link here, and not walked through


def _of_call(call: ast.Call) -> Iterator[tuple[str, str]]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    words = {keyword.arg: keyword.value for keyword in call.keywords}
    if name in LAYOUT and "text" in words:
        plain = words.get("translate")
        if not (isinstance(plain, ast.Constant) and plain.value is False):
            for text in _texts(words["text"]):
                yield ("Operator" if name == "operator" else "*"), text
    place = SHOWN.get(name, -1)
    if 0 <= place < len(call.args):
        for text in _texts(call.args[place]):
            yield "*", text


def _texts(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp(body=one, orelse=other):
            yield from _texts(one)
            yield from _texts(other)
        case ast.BoolOp(values=values):
            for value in values:
                yield from _texts(value)
