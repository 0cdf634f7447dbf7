"""Panels are drawn in a window only; what they refer to by name is checked here."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth_addon import thumbnails, ui_state  # noqa: E402
from motionbooth_addon.panels import jobs, shot  # noqa: E402
from motionbooth_addon.turntable.turntable import write_png  # noqa: E402
from motionbooth_protocol.connection import written_at  # noqa: E402
from motionbooth_protocol.jobs import JobState  # noqa: E402
from motionbooth_protocol.picture_files import pictures_with_masks  # noqa: E402

SOURCES = Path(shot.__file__).parents[1]


def icons_in_the_sources() -> set[str]:
    """The strings that are given as `icon=`, conditional ones included."""
    files = [
        *SOURCES.glob("*.py"),
        *(file for room in ("panels", "operators") for file in SOURCES.glob(f"{room}/*.py")),
    ]
    calls = [node for file in files for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    given = [keyword.value for call in calls for keyword in call.keywords if keyword.arg == "icon"]
    return {icon for value in given for icon in _strings(value)}


def _strings(value: ast.expr) -> Iterator[str]:
    match value:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp(body=one, orelse=other):
            yield from _strings(one)
            yield from _strings(other)


def test_every_icon_is_one_of_blenders(registered: Any) -> None:
    known = set(bpy.types.UILayout.bl_rna.functions["label"].parameters["icon"].enum_items.keys())
    tables = {icon for _, icon in shot._CONNECTIONS.values()} | set(jobs._SYMBOLS.values())
    used = icons_in_the_sources()
    assert len(used) > 10
    assert (used | tables) - known == set()


def test_panels_know_every_state(registered: Any) -> None:
    connections = ui_state.MotionBoothState.bl_rna.properties["connection"].enum_items.keys()
    assert set(shot._CONNECTIONS) == set(connections)
    assert set(jobs._SYMBOLS) == set(JobState)


def test_a_folder_of_images_is_listed_again_only_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A panel is drawn at each movement of the mouse, and 5,000 files take 60 ms."""
    listed = []
    monkeypatch.setattr(
        shot, "pictures_with_masks", lambda folder: listed.append(folder) or pictures_with_masks(folder)
    )

    def shown() -> list[str]:
        return [image.name for image, _ in shot._first_images(str(tmp_path), written_at(tmp_path))]

    (tmp_path / "a.png").touch()
    assert shown() == shown() == ["a.png"]
    assert len(listed) == 1
    (tmp_path / "b.png").touch()
    os.utime(tmp_path, ns=(0, 1))
    assert shown() == ["a.png", "b.png"]


def test_an_image_that_no_panel_shows_any_more_is_freed(registered: Any, tmp_path: Path) -> None:
    """A job has a preview every few steps."""
    first, second = tmp_path / "1.png", tmp_path / "2.png"
    for path in (first, second):
        write_png(path, np.zeros((8, 24, 3), np.uint8))
    kept = thumbnails.load_large("other job", str(first))
    for path in (first, second, second):
        shown = thumbnails.load_large("job", str(path), 1.0)
    assert [name.rpartition("/")[2][:5] for name in thumbnails._icons] == ["1.png", "2.png", "2.png", "2.png"]
    assert sorted(kept + shown) == sorted(thumbnails._icons[name].icon_id for name in thumbnails._icons)
    assert thumbnails.large_icons("job", str(second), 1.0) == shown
