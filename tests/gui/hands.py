"""Runs inside a desktop Blender: the mouse, the keyboard and the eyes of a person, for the scenarios of this folder.

    blender --factory-startup --enable-event-simulate -P SCENARIO.py -- FOLDER

FOLDER/task.json has `zip`, the extension, `connection`, a running backend's, and `drawing_backend`, the program of
one. What is seen goes to FOLDER: pictures, and seen.json at the end.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import bpy

FOLDER = Path(sys.argv[-1])
TASK = json.loads((FOLDER / "task.json").read_text())
MODULE = "bl_ext.user_default.motionbooth"
LONGEST_WAIT = 120.0

Steps = Generator[float, None, None]  # yields the seconds to let Blender go on
seen: dict[str, Any] = {}
_mouse = (0, 0)  # where it is: every event has to say so


def perform(scenario: Callable[[], Steps]) -> None:
    """Run a scenario from a timer, so that the window stays alive; Blender ends with it."""
    bpy.context.preferences.view.show_splash = False
    steps = scenario()

    def step() -> float | None:
        try:
            return next(steps)
        except StopIteration:
            pass
        except BaseException:
            seen["error"] = traceback.format_exc()
            _take_picture("error")
        (FOLDER / "seen.json").write_text(json.dumps(seen))
        os._exit(0)

    bpy.app.timers.register(step, first_interval=2, persistent=True)


def install(connect: bool = True) -> Steps:
    """As from Preferences > Get Extensions > Install from Disk, with the backend's connection file chosen."""
    bpy.ops.extensions.package_install_files(filepath=TASK["zip"], repo="user_default", enable_on_install=True)
    yield 0.5
    if not connect:
        return
    preferences = bpy.context.preferences.addons[MODULE].preferences
    preferences.connection_file = TASK["connection"]
    yield 0.5
    yield from wait(lambda: state().connection == "CONNECTED")


def module(name: str) -> Any:
    """A module of the installed extension."""
    return importlib.import_module(f"{MODULE}.{name}")


def alias_package() -> None:
    """Make the installed extension importable as `motionbooth_addon`, the name by which the demo's script knows it."""
    for name, imported in list(sys.modules.items()):
        if name == MODULE or name.startswith(f"{MODULE}."):
            sys.modules[f"motionbooth_addon{name.removeprefix(MODULE)}"] = imported


def wait(until: Callable[[], object]) -> Steps:
    waited = 0.0
    while not until():
        if waited > LONGEST_WAIT:
            raise TimeoutError("it does not happen")
        yield 0.2
        waited += 0.2


def state() -> Any:
    return bpy.context.window_manager.motionbooth


def window() -> Any:
    return bpy.context.window_manager.windows[0]


def area(kind: str) -> Any:
    return next(area for area in window().screen.areas if area.type == kind)


def region(kind: str, part: str) -> Any:
    return next(region for region in area(kind).regions if region.type == part)


def move(x: float, y: float) -> None:
    global _mouse
    _mouse = (int(x), int(y))
    _event("MOUSEMOVE", "NOTHING")


def click(x: float, y: float) -> None:
    move(x, y)
    press("LEFTMOUSE")


def point_at(kind: str) -> None:
    """Move the mouse into an editor, beside its center, so that keys go there."""
    middle = region(kind, "WINDOW")
    move(middle.x + middle.width // 3, middle.y + middle.height // 3)


def press(key: str, **held: bool) -> None:
    _event(key, "PRESS", **held)
    _event(key, "RELEASE", **held)


def _event(kind: str, value: str, **held: bool) -> None:
    window().event_simulate(type=kind, value=value, x=_mouse[0], y=_mouse[1], **held)


def press_button(kind: str, label: str) -> Steps:
    """Run an operator with F3, Blender's search, which finds menu entries."""
    point_at(kind)
    press("F3")
    yield 0.5
    for letter in label:
        key = "SPACE" if letter == " " else letter.upper()
        window().event_simulate(type=key, value="PRESS", unicode=letter, x=_mouse[0], y=_mouse[1])
        window().event_simulate(type=key, value="RELEASE", x=_mouse[0], y=_mouse[1])
    yield 0.5
    press("RET")
    yield 0.5


def open_tab(kind: str) -> Steps:
    """Show the sidebar and click down its tabs until ours is open."""
    area(kind).spaces.active.show_region_ui = True
    yield 1
    side = region(kind, "UI")
    for below in range(20, side.height, 25):
        click(side.x + side.width - 8, side.y + side.height - below)
        yield 0.3
        if side.active_panel_category == "MotionBooth":
            return
    raise LookupError("the sidebar has no tab MotionBooth")


def picture(name: str) -> Steps:
    """Take a picture of the whole window, after the panels' animations have finished."""
    for shown in window().screen.areas:
        shown.tag_redraw()
    yield 0.6
    _take_picture(name)


def _take_picture(name: str) -> None:
    path = str(FOLDER / f"{name}.png")
    if shutil.which("import"):  # of ImageMagick: a virtual screen gives Blender's own screenshot nothing but black
        subprocess.run(["import", "-window", "root", path], check=True)
    else:
        with bpy.context.temp_override(window=window()):
            bpy.ops.screen.screenshot(filepath=path)
