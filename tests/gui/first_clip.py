"""A first clip with keys and mouse: from the zip to a strip on the timeline."""

from __future__ import annotations

import sys
from pathlib import Path

import bpy

sys.path.insert(0, str(Path(__file__).parent))  # of this Blender alone

import hands


def first_clip() -> hands.Steps:
    yield from hands.install()
    bpy.ops.wm.save_as_mainfile(filepath=str(hands.FOLDER / "shot.blend"))
    scene = bpy.context.scene
    scene.frame_end = 24
    yield from hands.open_tab("VIEW_3D")
    yield from hands.picture("tab")

    hands.point_at("VIEW_3D")
    hands.press("B", shift=True, alt=True)
    yield 0.5
    hands.seen["boxes"] = [subject.object.name for subject in scene.motionbooth.subjects]
    hands.seen["camera view"] = hands.area("VIEW_3D").spaces.active.region_3d.view_perspective
    hands.press("Z", ctrl=True)
    yield 0.5
    hands.seen["boxes after undo"] = len(bpy.context.scene.motionbooth.subjects)
    hands.press("B", shift=True, alt=True)
    yield 0.5

    subject = bpy.context.scene.motionbooth.subjects[0]
    subject.token, subject.class_word = "", "dog"
    hands.press("I")
    yield 0.5
    hands.seen["keyed"] = bpy.context.active_object.animation_data is not None
    bpy.ops.motionbooth.add_to_prompt()
    hands.press("F", shift=True, alt=True)
    yield 0.2
    hands.seen["jobs"] = len(hands.state().jobs)
    yield from hands.picture("generating")
    yield from hands.wait(lambda: len(bpy.context.scene.motionbooth.takes) == 1)
    yield 0.5
    yield from hands.picture("generated")
    hands.seen["strips"] = strips()
    hands.press("Z", ctrl=True)
    yield 0.5
    hands.seen["strips after undo"] = strips()
    hands.press("Z", ctrl=True, shift=True)
    yield 0.5
    hands.seen["strips after redo"] = strips()


def strips() -> list[str]:
    editor = bpy.context.scene.sequence_editor
    if editor is None:
        return []
    return [strip.name for strip in (editor.strips if hasattr(editor, "strips") else editor.sequences)]


hands.perform(first_clip)
