"""Every text that the extension shows: from Blender's own description of its classes, and from its sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parents[2] / "blender_addon" / "motionbooth_addon"
# What becomes a sentence in front of a person: calls by their name, and which of their arguments it is.
SENTENCES = {
    "InvalidInput": 0, "NotFound": 0, "OutOfSpace": 0, "refuse": 1, "report": 1, "show_notice": 0, "show_connection": 1,
    "sentence": 1, "told": 0,
}  # fmt: skip
NOT_SHOWN = {"name", "uid", "job_id", "filter_glob", "filter_folder", "filter_image", "display_type", "directory"}
LAYOUT = {"label", "operator", "prop", "menu", "progress", "prop_search"}
FIELD = re.compile(r"\{\w*\}")
ELSEWHERE = {"runner.py", "generate_file.py", "generate_shots.py", "blender_command.py"}  # without a window


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
    """(context, text) of what panels and sentences say; {} stands for what is filled in."""
    for source in sorted(SOURCES.rglob("*.py")):
        if source.name in ELSEWHERE or "_protocol" in source.parts:
            continue
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call):
                yield from _of_call(node)


def all_of_sources() -> set[str]:
    """Every text in the sources, whatever it is for; {} stands for what is filled in."""
    files = [source for source in SOURCES.rglob("*.py") if "german" not in source.parts]
    files.append(SOURCES / "_protocol" / "wording.py")  # the contract is a link here, and not walked through
    nodes = [node for source in files for node in ast.walk(ast.parse(source.read_text()))]
    return {text for node in nodes if isinstance(node, ast.expr) for text in _texts(node)}


def _of_call(call: ast.Call) -> Iterator[tuple[str, str]]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    words = {keyword.arg: keyword.value for keyword in call.keywords}
    if name in LAYOUT and "text" in words:
        plain = words.get("translate")
        if not (isinstance(plain, ast.Constant) and plain.value is False):
            for text in _texts(words["text"]):
                yield ("Operator" if name == "operator" else "*"), text
    place = SENTENCES.get(name, -1)
    if 0 <= place < len(call.args):
        for text in _texts(call.args[place]):
            yield "*", text


def _texts(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)):
            yield FIELD.sub("{}", text)
        case ast.JoinedStr(values=parts):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)
            yield FIELD.sub("{}", text)
        case ast.IfExp(body=one, orelse=other):
            yield from _texts(one)
            yield from _texts(other)
        case ast.Call(func=ast.Name(id="told"), args=[inner, *_]):
            yield from _texts(inner)
