"""The camera view shows what the framing adds to a shot and cuts off."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import bpy

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # of this Blender alone
sys.path.insert(0, str(HERE.parents[1] / "lab" / "motionbooth_lab"))

import hands  # noqa: E402


def look_at_framings() -> hands.Steps:
    yield from hands.install()
    shot_cache = hands.module("capture.shot_cache")
    hands.alias_package()
    demo = importlib.import_module("make_demo_scene")
    for thing in list(bpy.data.objects):
        bpy.data.objects.remove(thing)
    scene = bpy.context.scene
    demo.make_scene(scene)
    scene.render.resolution_x, scene.render.resolution_y = 1920, 800
    with in_view():
        bpy.ops.view3d.view_camera()
    scene.frame_set(20)
    for framing in ("FIT", "CROP"):
        scene.motionbooth.framing = framing
        yield from hands.wait(lambda framing=framing: is_read(shot_cache, framing))
        yield 1
        yield from hands.picture(f"framing_{framing.lower()}")
        hands.seen[framing] = report(shot_cache)


def is_read(shot_cache: Any, framing: str) -> bool:
    """Whether the shot has been read with this framing: the cache notices the new setting at its next tick only."""
    cache = shot_cache.get(bpy.context.scene)
    return not cache.outdated and cache.motion is not None and (cache.motion.frame.y1 < 0) == (framing == "FIT")


def report(shot_cache: Any) -> dict[str, Any]:
    """The model's frame, and how many triangles and lines are drawn for it."""
    scene = bpy.context.scene
    drawn = hands.module("drawing.shot_overlay")._drawings[scene.name].framing
    return {
        "frame": list(shot_cache.get(scene).motion.frame.as_tuple()),
        "shaded": drawn._triangles is not None,
        "outlined": drawn._lines is not None,
    }


def in_view() -> Any:
    return bpy.context.temp_override(
        window=hands.window(), area=hands.area("VIEW_3D"), region=hands.region("VIEW_3D", "WINDOW")
    )


hands.perform(look_at_framings)
