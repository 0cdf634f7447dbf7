"""A new user with the extension and nothing else: the local backend is started, and a first clip made by the model that
comes with it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import bpy

sys.path.insert(0, str(Path(__file__).parent))  # of this Blender alone

import hands


def start() -> hands.Steps:
    yield from hands.install(connect=False)
    bpy.context.scene.frame_end = 24
    yield from hands.open_tab("VIEW_3D")
    yield from hands.picture("start")
    hands.seen["link before"] = hands.state().connection
    yield from hands.press_button("VIEW_3D", "Start Local Backend")
    hands.seen["link at once"] = hands.state().connection
    yield from hands.wait(lambda: hands.state().connection == "CONNECTED")
    yield 0.5
    yield from hands.picture("started")

    hands.point_at("VIEW_3D")
    hands.press("B", shift=True, alt=True)
    yield 0.5
    hands.press("I")
    yield 0.3
    subject = bpy.context.scene.motionbooth.subjects[0]
    hands.seen["keyed"] = subject.object.animation_data is not None
    subject.token, subject.class_word = "", "dog"
    bpy.context.scene.motionbooth.prompt = "a dog on the grass"
    yield 0.5
    yield from hands.picture("ready")
    hands.point_at("VIEW_3D")
    hands.press("F", shift=True, alt=True)
    yield from hands.wait(lambda: hands.state().jobs and hands.state().jobs[0].picture)
    yield 0.3
    yield from hands.picture("previewed")
    yield from hands.wait(lambda: len(bpy.context.scene.motionbooth.takes) == 1)
    yield 0.5
    hands.seen["takes"] = [take.name for take in bpy.context.scene.motionbooth.takes]
    yield from hands.picture("first_take")
    bpy.ops.motionbooth.stop_local_backend()
    yield from hands.wait(lambda: hands.state().connection == "NONE")


hands.perform(start)
