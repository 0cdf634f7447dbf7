"""Subjects: pictures chosen in the file browser and trained on, a 3-D object trained on, both undone and used."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import bpy

sys.path.insert(0, str(Path(__file__).parent))  # of this Blender alone

import hands


def subjects() -> hands.Steps:
    yield from hands.install()
    bpy.context.preferences.view.filebrowser_display_type = "SCREEN"  # not a second window
    bpy.ops.wm.save_as_mainfile(filepath=str(hands.FOLDER / "shot.blend"))
    folder = make_pictures()
    yield from hands.open_tab("VIEW_3D")
    hands.point_at("VIEW_3D")
    hands.press("B", shift=True, alt=True)
    yield 0.5
    subject().name, subject().class_word = "Rex", "toy"
    hands.seen["may train before"] = bpy.ops.motionbooth.train_subject.poll()

    with in_view():
        bpy.ops.motionbooth.choose_training_images("INVOKE_DEFAULT")
    yield 1
    browser = hands.area("FILE_BROWSER")
    browser.spaces.active.params.directory = bytes(folder)
    yield 3
    hands.seen["display"] = browser.spaces.active.params.display_type
    yield from hands.picture("file_browser")
    middle = next(region for region in browser.regions if region.type == "WINDOW")
    hands.move(middle.x + middle.width // 2, middle.y + middle.height // 3)
    hands.press("RET")
    yield 2
    hands.seen["pictures"] = subject().training_images
    yield from hands.picture("pictures")
    hands.point_at("VIEW_3D")
    hands.press("Z", ctrl=True)
    yield 0.5
    hands.seen["pictures after undo"] = subject().training_images
    hands.press("Z", ctrl=True, shift=True)
    yield 0.5

    yield from hands.press_button("VIEW_3D", "Train Subject")
    yield from hands.wait(lambda: subject().weights)
    yield 1
    hands.seen["jobs"] = [(row.name, row.state) for row in hands.state().jobs]
    hands.seen["trained"] = [(row.name, Path(row.picture).is_file()) for row in hands.state().trained]
    yield from hands.picture("trained_on_pictures")

    bpy.context.view_layer.objects.active = bpy.data.objects["Cube"]
    bpy.data.objects["Cube"].select_set(True)
    bpy.ops.motionbooth.use_selected_object()
    bpy.ops.ed.undo_push(message="Subject")
    subject().class_word = "cube"
    hands.point_at("VIEW_3D")
    yield from hands.press_button("VIEW_3D", "Train Subject")
    yield from hands.wait(
        lambda: any(row.stage == "rendering pictures" and row.factor > 0 for row in hands.state().jobs)
    )
    yield from hands.picture("rendering_pictures")
    yield from hands.wait(lambda: subject().weights)
    yield 1
    hands.seen["states"] = [row.state for row in hands.state().jobs]
    yield from hands.picture("trained_on_object")


def subject() -> Any:
    shot = bpy.context.scene.motionbooth
    return shot.subjects[shot.active_subject]


def make_pictures() -> Path:
    """Three pictures, of which one has a mask."""
    folder = hands.FOLDER / "toys"
    folder.mkdir()
    for name, color in (
        ("rex1", (0.8, 0.1, 0.1)), ("rex1_mask", (1, 1, 1)), ("rex2", (0.1, 0.6, 0.1)), ("rex3", (0.1, 0.2, 0.9)),
    ):  # fmt: skip
        image = bpy.data.images.new(name, 64, 64)
        image.pixels = [*color, 1.0] * (64 * 64)
        image.filepath_raw, image.file_format = str(folder / f"{name}.png"), "PNG"
        image.save()
        bpy.data.images.remove(image)
    return folder


def in_view() -> Any:
    return bpy.context.temp_override(
        window=hands.window(), area=hands.area("VIEW_3D"), region=hands.region("VIEW_3D", "WINDOW")
    )


hands.perform(subjects)
