"""The viewport overlay: its switches, its draw handlers, and what each editor shows.

`WindowManager.motionbooth_overlay` turns it on; while it is off, no draw handler is installed.
"""

from __future__ import annotations

from typing import Any

import bpy
from bpy_extras.view3d_utils import location_3d_to_region_2d

from .. import compat
from ..capture import scene_evaluation, shot_cache, shots
from ..timeline.takes import active_take_motion
from . import gpu_drawing, shot_overlay, take_overlay
from .gpu_drawing import FrameRect

_handles: list[tuple[Any, str, Any]] = []  # space type, region type and handle


def is_on() -> bool:
    """Whether the draw handlers are installed."""
    return bool(_handles)


def switch(on: bool) -> None:
    """Install the draw handlers, or remove them and free everything that they keep."""
    if on == is_on() or bpy.app.background:
        return
    if on:
        for space, region, draw in (
            (bpy.types.SpaceView3D, "WINDOW", _draw_view),
            (bpy.types.SpaceSequenceEditor, "PREVIEW", _draw_preview),
        ):
            _handles.append((space, region, space.draw_handler_add(draw, (), region, "POST_PIXEL")))
    else:
        for space, region, handle in _handles:
            space.draw_handler_remove(handle, region)
        _handles.clear()
        shot_overlay.clear()
        take_overlay.clear()
        gpu_drawing.clear()


def _set_switch(_: bpy.types.WindowManager, on: bool) -> None:
    switch(on)
    shot_cache.redraw()


def register() -> None:
    bpy.types.WindowManager.motionbooth_overlay = bpy.props.BoolProperty(
        name="Overlay",
        description="Draw boxes, their paths and the camera path in the 3D view, and detected boxes over takes",
        get=lambda _: is_on(),
        set=_set_switch,
    )
    bpy.types.WindowManager.motionbooth_overlay_take = bpy.props.BoolProperty(
        name="Show Take",
        description="Draw the active take in the 3D view instead of the current shot: requested boxes in white, "
        "detected boxes in green",
        update=lambda _, __: shot_cache.redraw(),
    )
    bpy.types.VIEW3D_PT_overlay.append(_draw_switches)
    switch(True)


def unregister() -> None:
    switch(False)
    shot_cache.stop()
    bpy.types.VIEW3D_PT_overlay.remove(_draw_switches)
    del bpy.types.WindowManager.motionbooth_overlay_take
    del bpy.types.WindowManager.motionbooth_overlay


def _draw_switches(panel: bpy.types.Panel, context: bpy.types.Context) -> None:
    """In the 3D view's Overlays popover."""
    manager = context.window_manager
    panel.layout.label(text="MotionBooth")
    row = panel.layout.row()
    row.prop(manager, "motionbooth_overlay")
    part = row.row()
    part.enabled = manager.motionbooth_overlay
    part.prop(manager, "motionbooth_overlay_take")


def _draw_view() -> None:
    """In the 3D view: the shot or the active take in the camera view, else the background distance."""
    context = bpy.context
    scene, space = context.scene, context.space_data
    camera = scene.camera  # any object can be one
    if not space.overlay.show_overlays or not shots.has_shot(scene) or camera is None or camera.type != "CAMERA":
        return
    if context.region_data.view_perspective != "CAMERA":
        shot_overlay.draw_background_plane(context)
    elif not space.use_local_camera or space.camera == camera:
        rect = _camera_rect(context)
        take = active_take_motion(scene) if context.window_manager.motionbooth_overlay_take else None
        if take is not None:
            take_overlay.draw_take(scene, take, rect)
        else:
            shot_overlay.draw_shot(context, rect)


def _draw_preview() -> None:
    """In the sequencer's preview: the active take."""
    context = bpy.context
    scene = compat.sequencer_scene(context)
    if scene is None or not context.space_data.show_overlays or not shots.has_shot(scene):
        return
    take = active_take_motion(scene)
    if take is not None:
        width, height = scene_evaluation.render_size(scene)
        left, top = context.region.view2d.view_to_region(-width / 2, height / 2, clip=False)
        right, bottom = context.region.view2d.view_to_region(width / 2, -height / 2, clip=False)
        take_overlay.draw_take(scene, take, FrameRect(left, top, right - left, top - bottom))


def _camera_rect(context: bpy.types.Context) -> FrameRect:
    """The camera's frame in the region."""
    camera = context.scene.camera
    world, region, view = camera.matrix_world.normalized(), context.region, context.region_data
    right_top, _, left_bottom, _ = camera.data.view_frame(scene=context.scene)
    right, top = location_3d_to_region_2d(region, view, world @ right_top)
    left, bottom = location_3d_to_region_2d(region, view, world @ left_bottom)
    return FrameRect(left, top, right - left, top - bottom)
