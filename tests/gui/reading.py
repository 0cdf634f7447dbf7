"""A long shot, read in slices, and a falling body, read with playback: each is read once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import bpy

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # of this Blender alone

import hands  # noqa: E402

LONG_SHOT = 4000


def look_at_readings() -> hands.Steps:
    yield from hands.install()
    shot_cache = hands.module("capture.shot_cache")
    scene = bpy.context.scene
    cube = bpy.data.objects["Cube"]
    scene.frame_end = LONG_SHOT
    for frame, x in ((1, -1.0), (LONG_SHOT, 1.0)):
        cube.location.x = x
        cube.keyframe_insert("location", frame=frame)
    subject = scene.motionbooth.subjects.add()
    subject.name, subject.class_word, subject.object = "Cube", "box", cube
    yield from hands.open_tab("VIEW_3D")  # whose panels ask for the reading
    yield from read(shot_cache, "long")

    scene = bpy.context.scene
    scene.frame_end = 40
    bpy.data.objects["Cube"].animation_data_clear()
    with bpy.context.temp_override(object=bpy.data.objects["Cube"]):
        bpy.ops.rigidbody.object_add()
    scene.frame_set(9)
    yield 2
    yield from read(shot_cache, "unplayed")
    yield from hands.picture("not_read")
    shot_cache.read_by_playing(bpy.context.scene)
    yield from read(shot_cache, "played")
    yield from hands.picture("read_by_playing")
    hands.seen["frame"] = bpy.context.scene.frame_current


def read(shot_cache: Any, name: str) -> hands.Steps:
    """Wait for the reading, and report it and the number of readings in the next two seconds."""
    yield from hands.wait(lambda: not shot_cache.get(bpy.context.scene).outdated)
    known = shot_cache.get(bpy.context.scene)
    version = known.version
    boxes = [projection.box for projection in known.motion.projections[0] if projection.box is not None]
    falls = boxes[-1].center[1] - boxes[0].center[1] if boxes else 0.0
    hands.seen[name] = {"incomplete": known.motion.incomplete, "last": known.motion.moments[-1], "falls": falls}
    yield 2
    hands.seen[name]["again"] = shot_cache.get(bpy.context.scene).version - version


hands.perform(look_at_readings)
