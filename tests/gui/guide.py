"""The scene as guide: rendered by another Blender, kept while the scene stays as it is, rendered again on demand."""

from __future__ import annotations

import sys
from pathlib import Path

import bpy

sys.path.insert(0, str(Path(__file__).parent))  # of this Blender alone

import hands


def guide() -> hands.Steps:
    yield from hands.install()
    bpy.ops.wm.save_as_mainfile(filepath=str(hands.FOLDER / "shot.blend"))
    show_only_the_guides_panels()
    scene = bpy.context.scene
    scene.frame_end = 24
    yield from hands.open_tab("VIEW_3D")
    bpy.ops.motionbooth.use_selected_object()
    settings = scene.motionbooth
    settings.subjects[0].token, settings.subjects[0].class_word = "", "cube"
    bpy.ops.motionbooth.add_to_prompt()
    settings.use_guide = True
    yield 1

    yield from generated(1)
    yield from hands.picture("guide")
    yield 7  # without anything to draw
    yield from generated(2)
    bpy.data.objects["Cube"].location.z += 0.5
    yield from generated(3)
    bpy.ops.motionbooth.render_guide_again()
    yield from generated(4)


def show_only_the_guides_panels() -> None:
    """With its own open, and what is above it closed, so that a picture has it all."""
    panels = hands.module("panels.shot")
    for name in ("backend", "subjects", "camera"):
        bpy.utils.unregister_class(getattr(panels, f"MOTIONBOOTH_PT_{name}"))
    bpy.utils.unregister_class(panels.MOTIONBOOTH_PT_guide)
    panels.MOTIONBOOTH_PT_guide.bl_options = set()
    bpy.utils.register_class(panels.MOTIONBOOTH_PT_guide)


def generated(count: int) -> hands.Steps:
    """Generate a take, and note where its guide is."""
    hands.point_at("VIEW_3D")
    hands.press("F", shift=True, alt=True)
    yield from hands.wait(lambda: len(bpy.context.scene.motionbooth.takes) == count)
    last = hands.module("operators.jobs").last_guide(bpy.context.scene)
    hands.seen.setdefault("guides", []).append(Path(last.folder).name)
    hands.seen.setdefault("files", []).append(sorted(file.name for file in Path(last.folder).glob("*.png")))
    yield 0.5


hands.perform(guide)
