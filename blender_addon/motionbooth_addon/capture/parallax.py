"""How near the scenery is at each of the model's frames, by rays that are cast through a coarse grid of the frame."""

from __future__ import annotations

from collections.abc import Sequence

import bpy
import msgspec
import numpy as np

from .._protocol.motion import MAX_COLUMNS, MAX_NEARNESS, MAX_ROWS, CameraPath, Parallax
from . import projection, scene_evaluation
from .dependencies import playback_reason
from .projection import MAX_COORDINATE, Array

FLAT = 0.01  # if no nearness differs more from 1, the background is flat


def with_parallax(scene: bpy.types.Scene, camera: CameraPath, times: Sequence[float]) -> CameraPath:
    """The path with the depth of the scene's geometry at the model's frames, without the subjects.

    Where a ray meets nothing, there is the flat background. Unchanged if all is as near as that, if the camera's poses
    are not known, or if the camera reaches the background. What needs playback, such as a simulation, is left out.
    """
    if not camera.poses:
        return camera
    to_world = np.array([pose.to_world for pose in camera.poses])
    turn, position = to_world[:, :, :3], to_world[:, :, 3] / scene.unit_settings.scale_length
    to_frame = np.array([[(p.focal[0], 0, p.center[0]), (0, p.focal[1], p.center[1]), (0, 0, 1)] for p in camera.poses])
    plane, infinity = _homographies(turn, position, to_frame, scene.motionbooth.background_distance)
    if projection.unusable(plane) or np.abs(infinity).max() > MAX_COORDINATE:
        return camera
    points = np.stack(np.meshgrid(_centers(MAX_COLUMNS), _centers(MAX_ROWS)), axis=-1).reshape(-1, 2)
    rays = np.insert(points, 2, 1.0, axis=1) @ np.linalg.inv(to_frame).swapaxes(1, 2)  # camera space, z = 1
    depths = _depths(scene, times, position, rays @ turn.swapaxes(1, 2), position[0], turn[0, :, 2])
    nearest = scene.motionbooth.background_distance / MAX_NEARNESS
    nearness = scene.motionbooth.background_distance / np.maximum(depths, nearest)
    nearness[np.isnan(depths)] = 1.0
    if np.abs(nearness - 1).max() <= FLAT:
        return camera
    grid = nearness.astype("<f2").tobytes()
    as_homographies = [[projection.as_homography(matrix) for matrix in maps] for maps in (plane, infinity)]
    parallax = Parallax(as_homographies[1], MAX_ROWS, MAX_COLUMNS, grid)
    return msgspec.structs.replace(camera, homographies=as_homographies[0], parallax=parallax)


def _centers(count: int) -> Array:
    return (np.arange(count) + 0.5) / count


def _homographies(turn: Array, position: Array, to_frame: Array, distance: float) -> tuple[Array, Array]:
    """(F, 3, 3): from frame 0 to each, of points at `distance` in frame 0, scaled to determinant 1, and of points
    infinitely far away, scaled by the same."""
    back = turn.swapaxes(1, 2)
    rotation, travel = back @ turn[0], (back @ (position[0] - position)[:, :, None])[:, :, 0]
    toward = travel[:, :, None] * np.array([0, 0, 1 / distance])
    plane, infinity = (to_frame @ maps @ np.linalg.inv(to_frame[0]) for maps in (rotation + toward, rotation))
    scale = np.cbrt(np.abs(np.linalg.det(plane)))[:, None, None]
    plane, infinity = plane / np.where(scale > 0, scale, np.nan), infinity / np.where(scale > 0, scale, np.nan)
    plane[0] = infinity[0] = np.eye(3)
    return plane, infinity


def _depths(
    scene: bpy.types.Scene, times: Sequence[float], origins: Array, rays: Array, first: Array, ahead: Array
) -> Array:
    """(F, N): how far ahead of the first camera the rays (F, N, 3) of each frame meet something; NaN for nothing."""
    found = np.full(rays.shape[:2], np.nan)
    with scene_evaluation.temporary_scene(scene, _scenery(scene)) as temporary:
        for frame, (moment, origin) in enumerate(zip(times, origins, strict=True)):
            depsgraph = scene_evaluation.evaluate_at(temporary, moment)
            for index, ray in enumerate(rays[frame]):
                hit, place, *_ = temporary.ray_cast(depsgraph, origin, ray)
                if hit:
                    found[frame, index] = (np.array(place) - first) @ ahead
    return found


def _scenery(scene: bpy.types.Scene) -> set[bpy.types.Object]:
    """What the scene renders, without the subjects, their parts, and what needs playback."""
    proxies = [thing for subject in scene.motionbooth.subjects for thing in (subject.object, subject.training_object)]
    subjects = {part for proxy in proxies if proxy for part in (proxy, *proxy.children_recursive)}
    layer = scene_evaluation.view_layer_of(scene)
    shown = {thing for thing in scene.objects if not thing.hide_render and thing.visible_get(view_layer=layer)}
    scenery = shown - subjects - {camera for camera in scene_evaluation.cameras_of(scene) if camera}
    return {thing for thing in scenery if not playback_reason([thing])}
