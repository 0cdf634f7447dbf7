"""Three takes of the demo's shot, shown in the sequencer."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import bpy

sys.path.insert(0, str(Path(__file__).parent))  # of this Blender alone

import hands

MAKE_DEMO = Path(__file__).parents[2] / "lab" / "motionbooth_lab" / "make_demo_scene.py"


def takes() -> hands.Steps:
    yield from hands.install()
    shot = make_scene()
    view = hands.area("VIEW_3D")
    view.spaces.active.region_3d.view_perspective = "CAMERA"
    yield from hands.open_tab("VIEW_3D")
    use_trained_subject(shot)
    shot.take_count = 3
    yield 2
    yield from hands.picture("panel")

    view.ui_type = "SEQUENCE_EDITOR"
    view.spaces.active.view_type = "SEQUENCER_PREVIEW"
    yield from hands.open_tab("SEQUENCE_EDITOR")
    hands.point_at("SEQUENCE_EDITOR")
    hands.press("F", shift=True, alt=True)
    yield from hands.wait(lambda: any(row.stage == "sampling" and row.factor >= 0.5 for row in hands.state().jobs))
    yield 0.2
    hands.seen["states while generating"] = [row.state for row in hands.state().jobs]
    yield from hands.picture("jobs")

    yield from hands.wait(lambda: len(bpy.context.scene.motionbooth.takes) == 3)
    bpy.context.scene.frame_set(20)
    hands.seen["mutes"] = [strip.mute for strip in strips()]
    hands.seen["channels"] = [strip.channel for strip in strips()]
    yield 1
    for name, column, row in (("star", STAR, 1), ("swap", SHOW, 0), ("compare", COMPARE, 2)):
        yield from click_take(column, row)
        yield 1
        hands.seen[name] = told()
        yield from hands.picture({"star": "sequencer"}.get(name, name))
    hands.point_at("SEQUENCE_EDITOR")
    for name in ("compare undone", "swap undone", "star undone"):
        hands.press("Z", ctrl=True)
        yield 1
        hands.seen[name] = told()
    yield from use_elsewhere(view)


def use_elsewhere(view: Any) -> hands.Steps:
    """The active take as an image sequence and as a camera background."""
    yield from hands.press_button("SEQUENCE_EDITOR", "To Image Sequence")
    yield from hands.wait(lambda: len(strips()) == 4)
    yield 1
    hands.seen["pictures"] = [(strip.type, strip.mute, strip.frame_final_duration) for strip in strips()[2:]]
    yield from hands.picture("image_sequence")
    view.ui_type = "VIEW_3D"
    yield 1
    bpy.ops.motionbooth.take_as_background()
    yield from hands.picture("camera_background")
    camera = bpy.context.scene.camera.data
    hands.seen["camera"] = [camera.show_background_images, len(camera.background_images)]


# Where things are in the list of takes: pixels from the sidebar's right edge, and from its upper edge to the first row.
STAR, SHOW, COMPARE = 340, 150, 58
FIRST_ROW, ROW_HEIGHT = 300, 21
PREVIEW = 341  # further down, where the chosen job has a picture


def click_take(column: int, row: int) -> hands.Steps:
    side = hands.region("SEQUENCE_EDITOR", "UI")
    jobs = hands.state().jobs
    down = FIRST_ROW + row * ROW_HEIGHT + (PREVIEW if jobs[hands.state().active_job].picture else 0)
    hands.move(side.x + side.width - column, side.y + side.height - down)
    yield 0.3
    hands.press("LEFTMOUSE")


def told() -> dict[str, Any]:
    shot = bpy.context.scene.motionbooth
    return {
        "starred": [take.starred for take in shot.takes],
        "muted": [strip.mute for strip in strips()],
        "cropped": [strip.crop.max_x for strip in strips()],
    }


def make_scene() -> Any:
    """The demo's scene, made by its script."""
    hands.alias_package()
    bpy.data.batch_remove(list(bpy.data.objects))
    runpy.run_path(str(MAKE_DEMO), run_name="demo")["make_scene"](bpy.context.scene)
    bpy.ops.wm.save_as_mainfile(filepath=str(hands.FOLDER / "shot.blend"))
    return bpy.context.scene.motionbooth


def use_trained_subject(shot: Any) -> None:
    """Use the trained subject if the backend has it, else the model's own knowledge."""
    trained = next((row for row in hands.state().trained if row.name == "Imp"), None)
    if trained is not None:
        bpy.ops.motionbooth.use_trained(weights=trained.weights)
    else:
        shot.subjects[0].token, shot.prompt = "", "a toy on the grass"


def strips() -> list[Any]:
    editor = bpy.context.scene.sequence_editor
    return list(editor.strips if hasattr(editor, "strips") else editor.sequences)


hands.perform(takes)
