"""Where a shot is evaluated: in a temporary scene with its cameras and subjects alone, or in the scene itself, played.

The temporary scene costs nothing in a heavy scene and leaves the user's frame alone. Playing is for what the temporary
scene cannot have (dependence.py): each frame from the first on, in order, as Blender's own Play does it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import bpy
import numpy as np

from .. import compat
from .._protocol.errors import InvalidInput
from .projection import View


def render_size(scene: bpy.types.Scene) -> tuple[int, int]:
    """Width and height in pixels of the scene's finished frames."""
    share = scene.render.resolution_percentage / 100
    return max(4, int(scene.render.resolution_x * share)), max(4, int(scene.render.resolution_y * share))


def aspect(scene: bpy.types.Scene) -> float:
    """Width / height of the finished frames as they are shown."""
    render = scene.render
    return render.resolution_x * render.pixel_aspect_x / (render.resolution_y * render.pixel_aspect_y)


def camera_at(scene: bpy.types.Scene, moment: float) -> bpy.types.Object:
    """The camera that a render of this frame uses: the last one bound to a marker, or else the scene's own."""
    bound = _bound_markers(scene)
    begun = [marker for marker in bound if marker.frame <= math.floor(moment)]
    return begun[-1].camera if begun else bound[0].camera if bound else scene.camera


def cameras_of(scene: bpy.types.Scene) -> list[bpy.types.Object | None]:
    """All that are used in its range, by name."""
    cuts = [marker for marker in _bound_markers(scene) if scene.frame_start < marker.frame <= scene.frame_end]
    used = {camera_at(scene, scene.frame_start), *(camera_at(scene, marker.frame) for marker in cuts)}
    return sorted(used, key=lambda camera: camera.name if camera else "")


def _bound_markers(scene: bpy.types.Scene) -> list[bpy.types.TimelineMarker]:
    bound = [marker for marker in scene.timeline_markers if marker.camera and not marker.camera.hide_render]
    return sorted(bound, key=lambda marker: marker.frame)


def view_of(scene: bpy.types.Scene, camera: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> View:
    width, height = render_size(scene)
    seeing = camera.evaluated_get(depsgraph)
    matrix = seeing.calc_matrix_camera(
        depsgraph, x=width, y=height, scale_x=scene.render.pixel_aspect_x, scale_y=scene.render.pixel_aspect_y
    )
    # A camera's scale does not scale its picture.
    return View(np.array(seeing.matrix_world.normalized().inverted()), np.array(matrix))


def at(stage: bpy.types.Scene, moment: float) -> bpy.types.Depsgraph:
    """The stage evaluated at a frame with its fraction."""
    whole = math.floor(moment)
    stage.frame_set(whole, subframe=moment - whole)
    return _layer(stage).depsgraph


def _layer(stage: bpy.types.Scene) -> bpy.types.ViewLayer:
    """The view layer that a window shows of it, or its first."""
    context = bpy.context
    return context.view_layer if context.scene == stage else stage.view_layers[0]


@contextmanager
def bare_scene(scene: bpy.types.Scene, things: Iterable[bpy.types.Object]) -> Iterator[bpy.types.Scene]:
    """A scene with the cameras of `scene`, `things` and nothing else, in its time; gone afterwards."""
    bare = bpy.data.scenes.new(".motionbooth")
    try:
        for name in ("fps", "fps_base", "frame_map_old", "frame_map_new", "use_simplify", "simplify_subdivision"):
            setattr(bare.render, name, getattr(scene.render, name))
        bare.motionbooth.pan = scene.motionbooth.pan
        compat.share_action(scene, bare)  # the keyframed pan
        for thing in {*things, *cameras_of(scene)}:
            bare.collection.objects.link(thing)
        yield bare
    finally:
        bpy.data.scenes.remove(bare)


@contextmanager
def played_scene(scene: bpy.types.Scene, played_to: int | None) -> Iterator[bpy.types.Scene]:
    """The scene itself, to be played on from frame `played_to`; at the user's frame again afterwards.

    What is simulated is kept by Blender in its caches as after Play: baked ones are only read.
    """
    frame, subframe = scene.frame_current, scene.frame_subframe
    try:
        if played_to is not None:
            scene.frame_set(played_to)  # from the caches: a simulation goes on from the frame before only
        yield scene
    finally:
        scene.frame_set(frame, subframe=subframe)


def check_visible(scene: bpy.types.Scene, thing: bpy.types.Object, reason: str) -> None:
    """Raises InvalidInput for what Blender does not evaluate in the scene because it is hidden there."""
    if not thing.visible_get(view_layer=_layer(scene)):
        raise InvalidInput(
            f'Object "{thing.name}" is hidden and has to be read by playing the scene ({reason}), where Blender does '
            f"not evaluate what is hidden; show it, or bake it to keyframes from frame {scene.frame_start} to "
            f"{scene.frame_end}."
        )


def play_start(scene: bpy.types.Scene) -> int:
    """The frame at which playing must begin: the first of the range, or of a simulation that begins before it."""
    world = scene.rigidbody_world
    caches = [world.point_cache] if world is not None and world.point_cache is not None else []
    for thing in scene.objects:
        for holder in (*thing.modifiers, *thing.particle_systems):
            if (cache := getattr(holder, "point_cache", None)) is not None:
                caches.append(cache)
    return min(scene.frame_start, *(cache.frame_start for cache in caches)) if caches else scene.frame_start
