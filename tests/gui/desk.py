"""What changes on the screen, and how large and readable it is: a light scene, Generate, previews, a double click, a
backend that dies.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import bpy

sys.path.insert(0, str(Path(__file__).parent))  # of this Blender alone

import hands


def desk() -> hands.Steps:
    yield from hands.install(connect=False)
    bpy.ops.wm.save_as_mainfile(filepath=str(hands.FOLDER / "shot.blend"))
    bpy.context.scene.frame_end = 24
    yield from hands.open_tab("VIEW_3D")
    yield from hands.picture("nothing_yet")
    yield from start_with_a_double_click()
    yield from light_scene()
    yield from generate()
    yield from die()


def start_with_a_double_click() -> hands.Steps:
    """On the button itself, and again wherever the panel has what comes in its place."""
    side = hands.region("VIEW_3D", "UI")
    x, y = side.x + side.width // 2, side.y + side.height - START
    preferences = bpy.context.preferences.addons[hands.MODULE].preferences
    preferences.backend_command = hands.TASK["drawing_backend"]
    yield 0.5
    hands.click(x, y)
    yield 0.4
    hands.seen["link after a click"] = hands.state().connection
    for _ in range(3):
        hands.click(x, y)
        yield 0.4
    yield from hands.wait(lambda: hands.state().connection == "CONNECTED")
    for _ in range(3):
        hands.click(x, y)
        yield 0.4
    yield 2
    hands.seen["link after more clicks"] = hands.state().connection
    yield from hands.picture("started_by_clicks")
    with in_view():
        bpy.ops.motionbooth.stop_local_backend("INVOKE_DEFAULT")
    yield 1
    yield from hands.picture("stop_asks")
    hands.press("ESC")
    yield 1
    hands.seen["link after Esc"] = hands.state().connection


START = 65  # pixels from the sidebar's upper edge to the middle of Start Local Backend


def light_scene() -> hands.Steps:
    """White ground and sky, and a box with a white name on it."""
    scene = bpy.context.scene
    bpy.data.objects.remove(bpy.data.objects["Cube"])
    bpy.ops.mesh.primitive_plane_add(size=100)
    shading = hands.area("VIEW_3D").spaces.active.shading
    shading.light, shading.color_type, shading.single_color = "FLAT", "SINGLE", (1, 1, 1)
    shading.background_type, shading.background_color = "VIEWPORT", (1, 1, 1)
    hands.point_at("VIEW_3D")
    hands.press("B", shift=True, alt=True)
    yield 0.5
    subject = scene.motionbooth.subjects[0]
    subject.name, subject.token, subject.class_word = "Rex", "", "dog"
    subject.color = (1, 1, 1)
    subject.object.location.x = -1
    subject.object.keyframe_insert("location", frame=1)
    subject.object.location.x = 1
    subject.object.keyframe_insert("location", frame=24)
    shot_cache = hands.module("capture.shot_cache")
    yield from hands.wait(lambda: shot_cache.get(bpy.context.scene).motion is not None)
    yield 1.5
    yield from hands.picture("light")
    overlay = hands.module("drawing.overlay")
    with in_view():
        rect = overlay._camera_rect(bpy.context)
    region = hands.region("VIEW_3D", "WINDOW")
    label = hands.module("drawing.shot_overlay")._drawings[scene.name].labels[0]
    x, y = rect.at((label.box.x1, label.box.y1))
    hands.seen["label"] = [region.x + x, hands.window().height - (region.y + y + 6)]


def generate() -> hands.Steps:
    """A minute's clip: what is on the screen before and right after, then the preview."""
    scene = bpy.context.scene
    yield from hands.picture("before_generate")
    scene.motionbooth.prompt = "a dog on the grass"
    scene.motionbooth.random_seed, scene.motionbooth.seed = False, 999
    hands.point_at("VIEW_3D")
    hands.press("F", shift=True, alt=True)
    yield 0.3
    hands.seen["jobs at once"] = [(row.name, row.state) for row in hands.state().jobs]
    hands.seen["chosen"] = hands.state().active_job
    yield from hands.picture("after_generate")
    yield from hands.wait(lambda: hands.state().jobs[0].picture)
    side = hands.region("VIEW_3D", "UI")
    for _ in range(2):  # the panel grows by the picture as it comes
        yield 1
        with bpy.context.temp_override(window=hands.window(), area=hands.area("VIEW_3D"), region=side):
            bpy.ops.view2d.scroll_down(page=True)
    yield from hands.picture("preview")
    row = hands.state().jobs[0]
    panel = hands.module("panels.jobs")
    hands.point_at("VIEW_3D")
    with in_view():
        bpy.ops.motionbooth.view_image("INVOKE_DEFAULT", path=row.picture, shape=panel.frame_shape(row))
    yield 1
    yield from hands.picture("preview_large")
    hands.press("ESC")
    yield 0.5
    with bpy.context.temp_override(window=hands.window(), area=hands.area("VIEW_3D"), region=side):
        bpy.ops.view2d.scroll_up(page=True)


def die() -> hands.Steps:
    """The backend is killed in the middle of it."""
    yield from hands.wait(lambda: hands.state().jobs[0].stage == "sampling")
    yield from hands.picture("alive")
    controller = hands.module("jobs.controller").job_controller()
    os.kill(int((controller.backend.local.home / "backend.pid").read_text()), signal.SIGKILL)
    yield from hands.wait(lambda: hands.state().connection == "DISCONNECTED")
    hands.press("F", shift=True, alt=True)
    yield 0.5
    hands.seen["stages when dead"] = [row.stage for row in hands.state().jobs]
    yield from hands.picture("dead")


def in_view() -> Any:
    return bpy.context.temp_override(
        window=hands.window(), area=hands.area("VIEW_3D"), region=hands.region("VIEW_3D", "WINDOW")
    )


hands.perform(desk)
