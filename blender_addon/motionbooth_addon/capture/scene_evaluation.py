"""Evaluates a shot at a frame, in a temporary scene or by playing the scene itself.

The temporary scene links only cameras and subjects, so it is fast however heavy the scene is, and it leaves the current
frame alone. Playback is for what does not work there (see dependencies.py): it evaluates each frame from the first on,
in order, as Blender's own playback does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import bpy
import numpy as np

from .. import compat
from .._protocol.errors import InvalidInput
from .._protocol.text import Text
from .projection import View


def render_size(scene: bpy.types.Scene) -> tuple[int, int]:
    """Width and height in pixels of the scene's rendered frames."""
    share = scene.render.resolution_percentage
    return max(4, scene.render.resolution_x * share // 100), max(4, scene.render.resolution_y * share // 100)


def aspect_ratio(scene: bpy.types.Scene) -> float:
    """Width / height of the rendered frames as displayed."""
    render = scene.render
    return render.resolution_x * render.pixel_aspect_x / (render.resolution_y * render.pixel_aspect_y)


def camera_at(scene: bpy.types.Scene, moment: float) -> bpy.types.Object:
    """The camera that a render of this frame uses: the last one bound to a marker, or the scene's active camera."""
    bound = _bound_markers(scene)
    begun = [marker for marker in bound if marker.frame <= math.floor(moment)]
    return begun[-1].camera if begun else bound[0].camera if bound else scene.camera


def cameras_of(scene: bpy.types.Scene) -> list[bpy.types.Object | None]:
    """All cameras that are used in the scene's frame range, sorted by name."""
    cuts = [marker for marker in _bound_markers(scene) if scene.frame_start < marker.frame <= scene.frame_end]
    used = {camera_at(scene, scene.frame_start), *(camera_at(scene, marker.frame) for marker in cuts)}
    return sorted(used, key=lambda camera: camera.name if camera else "")


def _bound_markers(scene: bpy.types.Scene) -> list[bpy.types.TimelineMarker]:
    bound = [marker for marker in scene.timeline_markers if marker.camera and not marker.camera.hide_render]
    return sorted(bound, key=lambda marker: marker.frame)


def view_of(scene: bpy.types.Scene, camera: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> View:
    """The view of an evaluated camera. Raises InvalidInput."""
    width, height = render_size(scene)
    evaluated = camera.evaluated_get(depsgraph)
    matrix = evaluated.calc_matrix_camera(
        depsgraph, x=width, y=height, scale_x=scene.render.pixel_aspect_x, scale_y=scene.render.pixel_aspect_y
    )
    try:
        world_to_view = evaluated.matrix_world.normalized().inverted()  # scaling a camera does not scale its picture
    except ValueError:
        raise InvalidInput(
            'Camera "{camera}" is scaled to zero, so it shows nothing. Set its scale, and its parents\', to 1.',
            camera=camera.name,
        ) from None
    return View(np.array(world_to_view), np.array(matrix))


def evaluate_at(scene: bpy.types.Scene, moment: float) -> bpy.types.Depsgraph:
    """Evaluate the scene at a frame, fraction included."""
    whole = math.floor(moment)
    scene.frame_set(whole, subframe=moment - whole)
    return view_layer_of(scene).depsgraph


def view_layer_of(scene: bpy.types.Scene) -> bpy.types.ViewLayer:
    """The view layer that the window shows, or the scene's first."""
    context = bpy.context
    return context.view_layer if context.scene == scene else scene.view_layers[0]


@contextmanager
def temporary_scene(scene: bpy.types.Scene, objects: Iterable[bpy.types.Object]) -> Iterator[bpy.types.Scene]:
    """A scene with the frame rate of `scene`, its cameras and `objects` only; it is removed afterwards."""
    temporary = bpy.data.scenes.new(".motionbooth")
    try:
        for name in ("fps", "fps_base", "frame_map_old", "frame_map_new", "use_simplify", "simplify_subdivision"):
            setattr(temporary.render, name, getattr(scene.render, name))
        temporary.motionbooth.pan = scene.motionbooth.pan
        compat.share_action(scene, temporary)  # for the keyframed pan
        for linked in {*objects, *cameras_of(scene)}:
            temporary.collection.objects.link(linked)
        yield temporary
    finally:
        bpy.data.scenes.remove(temporary)


@contextmanager
def played_scene(scene: bpy.types.Scene, played_to: int | None) -> Iterator[bpy.types.Scene]:
    """The scene itself, for playback from its start (None) or on from frame `played_to`.

    The current frame is restored afterwards. Blender writes simulations to its caches as in normal playback; baked
    caches are only read.
    """
    frame, subframe = scene.frame_current, scene.frame_subframe
    try:
        if played_to is not None:
            scene.frame_set(played_to)  # from the caches: a simulation continues only from the frame before
        yield scene
    finally:
        scene.frame_set(frame, subframe=subframe)


def check_visible(scene: bpy.types.Scene, checked: bpy.types.Object, reason: Text | None) -> None:
    """Raises InvalidInput for an object that Blender does not evaluate in the scene because it is hidden."""
    if not checked.visible_get(view_layer=view_layer_of(scene)):
        raise InvalidInput(
            'Object "{object}" needs playback ({reason}), but is hidden, and Blender does not evaluate hidden '
            "objects. Show it, or bake it to keyframes from frame {start} to {end}.",
            object=checked.name,
            reason=reason,
            start=scene.frame_start,
            end=scene.frame_end,
        )


def playback_start(scene: bpy.types.Scene) -> int:
    """The frame at which playback must start: the scene's first frame, or that of a simulation which starts earlier."""
    world = scene.rigidbody_world
    caches = [world.point_cache] if world is not None and world.point_cache is not None else []
    for simulated in scene.objects:
        for holder in (*simulated.modifiers, *simulated.particle_systems):
            if (cache := getattr(holder, "point_cache", None)) is not None:
                caches.append(cache)
    return min(scene.frame_start, *(cache.frame_start for cache in caches)) if caches else scene.frame_start
