"""The overlay and the gizmo: shown, timed, dragged and switched off."""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import bpy

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # of this Blender alone
sys.path.insert(0, str(HERE.parents[1] / "lab" / "motionbooth_lab"))

import hands  # noqa: E402

LONG_SHOT, REDRAWS = 250, 40


def look_at_it() -> hands.Steps:
    yield from hands.install()
    overlay, shot_cache, shots = map(hands.module, ("drawing.overlay", "capture.shot_cache", "capture.shots"))
    scene = meadow()
    with in_view():
        bpy.ops.view3d.view_camera()
        bpy.ops.ed.undo_push(message="Meadow")
    scene.frame_set(20)
    yield from hands.wait(lambda: shot_cache.get(bpy.context.scene).motion is not None)
    yield 1
    yield from hands.picture("overlay")

    yield from drag_the_cage(overlay, shots, shot_cache)
    bpy.context.scene.frame_set(20)
    yield from show_a_take()

    bpy.context.scene.frame_end = LONG_SHOT
    for number in range(3):
        copy_subject(bpy.context.scene, number)
    hands.seen["subjects"] = len(bpy.context.scene.motionbooth.subjects)
    version = shot_cache.get(bpy.context.scene).version
    yield from hands.wait(lambda: (cache := shot_cache.get(bpy.context.scene)).version > version and not cache.outdated)
    hands.seen["overlay_ms"] = time_redraws(overlay)
    manager = bpy.context.window_manager
    manager.motionbooth_overlay = False
    yield 0.5
    hands.seen["handlers when off"] = len(overlay._handles)
    manager.motionbooth_overlay = True
    hands.seen["handlers when on"] = len(overlay._handles)


def meadow() -> Any:
    """The demo's scene with a second subject, a ball that rolls across it."""
    hands.alias_package()
    demo = importlib.import_module("make_demo_scene")
    for thing in list(bpy.data.objects):
        bpy.data.objects.remove(thing)
    scene = bpy.context.scene
    demo.make_scene(scene)
    ball = demo.add_part(scene, "Ball", (0.1, 0.2, 0.9), demo.ball((0, 0, 0), (0.8, 0.8, 0.8)))
    for frame, x in ((1, 6.0), (24, 2.0), (48, -1.0)):
        ball.location = (x, 1, 0.8)
        ball.keyframe_insert("location", frame=frame)
    subject = scene.motionbooth.subjects.add()
    subject.name, subject.class_word, subject.object, subject.color = "Ball", "ball", ball, (0.1, 0.6, 1.0)
    return scene


def copy_subject(scene: Any, number: int) -> None:
    first = scene.motionbooth.subjects[0].object
    copy = first.copy()
    copy.animation_data.action = first.animation_data.action.copy()
    copy.delta_location = (0.3 * number, 0.1, 0)
    scene.collection.objects.link(copy)
    subject = scene.motionbooth.subjects.add()
    subject.name, subject.class_word, subject.object = f"Copy {number}", "toy", copy


def in_view() -> Any:
    return bpy.context.temp_override(
        window=hands.window(), area=hands.area("VIEW_3D"), region=hands.region("VIEW_3D", "WINDOW")
    )


def drag_the_cage(overlay: Any, shots: Any, shot_cache: Any) -> hands.Steps:
    """Drag the center to the upper right, then the lower right corner outward, then undo both."""
    bpy.context.scene.motionbooth.active_subject = 0
    bpy.context.scene.tool_settings.use_keyframe_insert_auto = True
    hands.seen["box"] = box_now(shots)
    for name, corner in (("moved", (0.5, 0.5)), ("scaled", (1.0, 1.0))):
        x1, y1, x2, y2 = box_now(shots)
        start = on_screen(overlay, (x1 + (x2 - x1) * corner[0], y1 + (y2 - y1) * corner[1]))
        hands.move(*start)
        yield from hands.wait(lambda: not shot_cache.get(bpy.context.scene).outdated)
        yield 1
        hands.move(start[0] + 1, start[1])  # once more, for a slow machine: the cage must have seen the mouse
        yield 1
        hands.move(*start)
        yield 0.5
        if name == "scaled":
            yield from hands.picture("cage")
        hands._event("LEFTMOUSE", "PRESS")
        for step in (10, 30, 60):
            yield 1
            hands.move(start[0] + step, start[1] - step / 2)
        yield 1
        hands._event("LEFTMOUSE", "RELEASE")
        yield 2
        hands.seen[name] = box_now(shots)
    hands.seen["share of 60 pixels"] = 60 / frame_on_screen(overlay).width
    for name in ("scaling undone", "all undone"):
        hands.press("Z", ctrl=True)
        yield 2
        hands.seen[name] = box_now(shots)


def show_a_take() -> hands.Steps:
    """Show a take whose subjects are close to their boxes."""
    scene = bpy.context.scene
    msgspec = importlib.import_module("msgspec")
    shot = hands.module("capture.shots").read_shot(scene, 8).shot
    spec = hands.module("jobs.specs").generate_spec(scene.motionbooth, shot, 1)
    clip = hands.FOLDER / "clip.mp4"
    subjects = [
        {
            "name": track.name,
            "iou": 0.71,
            "center_error": 0.028,
            "found_share": 1.0,
            "frames": [{"found": box.moved(0.02, 0.03).as_tuple()} if box else {} for box in track.boxes],
        }
        for track in shot.subjects
    ]
    report = {"subjects": subjects, "flow_error_px": 0.42}
    hands.module("timeline.take_motion").report_path(clip).write_bytes(msgspec.json.encode(report))
    take = scene.motionbooth.takes.add()
    take.name, take.clip_path, take.settings = "Hop take 1", str(clip), msgspec.json.encode(spec).decode()
    bpy.context.window_manager.motionbooth_overlay_take = True
    yield 2
    yield from hands.picture("take")
    bpy.context.window_manager.motionbooth_overlay_take = False
    scene.motionbooth.takes.clear()


def box_now(shots: Any) -> list[float]:
    """The first subject's box at frame 20, as it would be sent."""
    scene = bpy.context.scene
    return list(shots.read_motion(scene, 48).projections[0][19].box.as_tuple())


def frame_on_screen(overlay: Any) -> Any:
    with in_view():
        return overlay._camera_rect(bpy.context)


def on_screen(overlay: Any, share: tuple[float, float]) -> tuple[float, float]:
    """A point of the frame in the window's pixels."""
    x, y = frame_on_screen(overlay).at(share)
    region = hands.region("VIEW_3D", "WINDOW")
    return region.x + x, region.y + y


def time_redraws(overlay: Any) -> float:
    """Milliseconds that Blender waits for the overlay in a redraw, half of them on a new frame; the median."""
    took: list[float] = []
    plain = overlay._draw_view

    def timed() -> None:
        began = time.perf_counter()
        plain()
        took.append(1000 * (time.perf_counter() - began))

    overlay.switch(False)
    overlay._draw_view = timed
    overlay.switch(True)
    for number in range(REDRAWS):
        if number % 2:
            bpy.context.scene.frame_set(1 + number * 6)
        with in_view():
            bpy.ops.wm.redraw_timer(type="DRAW", iterations=1)
    overlay.switch(False)
    overlay._draw_view = plain
    overlay.switch(True)
    return statistics.median(took[4:])


hands.perform(look_at_it)
