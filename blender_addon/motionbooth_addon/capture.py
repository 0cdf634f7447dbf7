"""Reads a shot from a scene: screen boxes of its subjects and the camera's path, at the model's frames.

Everything is evaluated in a temporary scene that holds only the cameras and the subjects, so a heavy scene costs
nothing; parents, constraints, drivers and armatures outside of it are still evaluated. The user's scene, its current
frame and its selection are not touched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import bpy
import numpy as np

from . import compat, projection
from ._protocol.errors import InvalidInput
from ._protocol.limits import MAX_FRAMES, MAX_SUBJECTS
from ._protocol.motion import Box, CameraPath, Shot, SubjectTrack, scene_times
from .concerns import Concern, camera_concerns, track_concerns
from .projection import Array, Edges, View

# Corners of a cube of 1 unit to each side, and its edges as pairs of corners that differ in one coordinate.
CUBE = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=float)
CUBE_EDGES = np.array([(a, b) for a in range(8) for b in (a + 1, a + 2, a + 4) if b < 8 and bin(a ^ b).count("1") == 1])


MESH_TYPES = {"MESH", "CURVE", "SURFACE", "FONT", "META"}
UNSEEN_TYPES = {"CAMERA", "LIGHT", "LIGHT_PROBE", "SPEAKER"}


@dataclass(frozen=True)
class Seen:
    """A subject at one moment: its box on screen, None where it is out of the frame, or `behind` the camera."""

    box: Box | None
    behind: bool = False


NOWHERE = Seen(None)


@dataclass(frozen=True)
class Motion:
    """What moves in a shot, at moments spread evenly over its frame range.

    moments: scene frames with fractions. sights: for each subject of the scene, at each moment. camera: its path there.
    concerns: what of the camera's move cannot be followed.
    """

    moments: list[float]
    sights: list[list[Seen]]
    camera: CameraPath
    concerns: list[Concern]


@dataclass(frozen=True)
class Reading:
    """A shot as the scene has it, and what the animator should know about it."""

    shot: Shot
    concerns: list[Concern] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """The concerns as sentences."""
        return [concern.sentence for concern in self.concerns]


def has_shot(scene: bpy.types.Scene) -> bool:
    """Does this scene have a subject to film?"""
    return len(scene.motionbooth.subjects) > 0


def read_shot(scene: bpy.types.Scene, model_frames: int) -> Reading:
    """Sample the scene at `model_frames` moments spread over its frame range. Raises InvalidInput."""
    check_scene(scene)
    motion = read_motion(scene, model_frames)
    settings = scene.motionbooth
    shot = Shot(
        name=settings.name or scene.name,
        frame_start=scene.frame_start,
        frame_end=scene.frame_end,
        fps=scene.render.fps / scene.render.fps_base,
        width=render_size(scene)[0],
        height=render_size(scene)[1],
        camera=motion.camera,
        subjects=[_track(subject, sights) for subject, sights in zip(settings.subjects, motion.sights, strict=True)],
    )
    return Reading(shot, concerns(scene, motion))


def read_motion(scene: bpy.types.Scene, frames: int) -> Motion:
    """Boxes and camera path at `frames` moments. A subject without an object is nowhere. Raises InvalidInput."""
    check_frame(scene)
    if not 2 <= frames <= MAX_FRAMES:
        raise InvalidInput(f"A shot is sampled at 2 to {MAX_FRAMES} model frames, got {frames}.")
    times = scene_times(scene.frame_start, scene.frame_end, frames)
    moments, every = _between(times)
    views, pan = _watch_camera(scene, moments)
    sights = _watch_subjects(scene, times, views[::every])
    camera, of_camera = _camera(scene.motionbooth, views, moments, every, pan[::every])
    return Motion(times, sights, camera, of_camera)


def concerns(scene: bpy.types.Scene, motion: Motion, every: int = 1) -> list[Concern]:
    """What a model cannot follow of the shot, where every `every`-th moment of `motion` is one of its frames."""
    of_subjects = [
        concern
        for subject, sights in zip(scene.motionbooth.subjects, motion.sights, strict=True)
        for concern in track_concerns(
            subject.name,
            [seen.box for seen in sights[::every]],
            [seen.behind for seen in sights[::every]],
            motion.moments[::every],
        )
    ]
    return motion.concerns + of_subjects


def render_size(scene: bpy.types.Scene) -> tuple[int, int]:
    """Width and height in pixels of the scene's finished frames."""
    share = scene.render.resolution_percentage / 100
    return max(4, int(scene.render.resolution_x * share)), max(4, int(scene.render.resolution_y * share))


def camera_at(scene: bpy.types.Scene, moment: float) -> bpy.types.Object:
    """The camera that a render of this frame uses: the last one bound to a marker, or else the scene's own."""
    bound = sorted(
        (m for m in scene.timeline_markers if m.camera and not m.camera.hide_render), key=lambda marker: marker.frame
    )
    begun = [marker for marker in bound if marker.frame <= math.floor(moment)]
    return begun[-1].camera if begun else bound[0].camera if bound else scene.camera


def check_scene(scene: bpy.types.Scene) -> None:
    """Raises InvalidInput for what can be seen without reading the scene's animation."""
    check_frame(scene)
    where = f'Scene "{scene.name}"'
    if not scene.motionbooth.subjects:
        raise InvalidInput(f"{where} has no subject; add one to its MotionBooth subjects and choose its object.")
    if len(scene.motionbooth.subjects) > MAX_SUBJECTS:
        raise InvalidInput(
            f"{where} has more than {MAX_SUBJECTS} subjects, the most that a shot may have; remove some."
        )
    names = set[str]()
    for subject in scene.motionbooth.subjects:
        _check_subject(subject, where)
        spelt = bpy.path.clean_name(subject.name).casefold()  # as its folder and its line in a report are found by it
        if spelt in names:
            raise InvalidInput(f'{where} has two subjects called "{subject.name}"; give each a name of its own.')
        names.add(spelt)


def check_frame(scene: bpy.types.Scene) -> None:
    """Raises InvalidInput where there is no range or no camera, whatever the subjects are."""
    where = f'Scene "{scene.name}"'
    if scene.frame_end <= scene.frame_start:
        raise InvalidInput(
            f"{where} has a frame range of one frame ({scene.frame_start}); set its end frame after its start frame."
        )
    for camera in _cameras(scene):
        _check_camera(camera, where)


def _check_camera(camera: bpy.types.Object | None, where: str) -> None:
    if camera is None or camera.type != "CAMERA":
        raise InvalidInput(f"{where} has no camera; add one and make it the active camera (Ctrl+Numpad 0).")
    if camera.data.type not in {"PERSP", "ORTHO"}:
        raise InvalidInput(
            f'Camera "{camera.name}" is of type {camera.data.type.lower()}; make it perspective or orthographic.'
        )
    _check_enabled(camera)


def _check_subject(subject: bpy.types.PropertyGroup, where: str) -> None:
    if not subject.name or not subject.class_word:
        raise InvalidInput(
            f'Subject "{subject.name}" of {where} needs a name and a class, the ordinary word for it (dog, car).'
        )
    if subject.object is None:
        raise InvalidInput(
            f'Subject "{subject.name}" of {where} has no object; choose the rectangle or object that shows where it is '
            "to be seen."
        )
    if subject.object.type in UNSEEN_TYPES:
        raise InvalidInput(
            f'Subject "{subject.name}" of {where} is the {subject.object.type.lower()} "{subject.object.name}", which '
            "has no shape; choose a mesh, a text, an empty or the like."
        )
    for part in with_geometry(subject.object):
        _check_enabled(part)


def _check_enabled(thing: bpy.types.Object) -> None:
    if thing.hide_viewport:
        raise InvalidInput(
            f'Object "{thing.name}" is disabled in viewports, so Blender does not animate it; enable it (the screen '
            "icon in the outliner) and hide it with the eye icon instead."
        )


def _cameras(scene: bpy.types.Scene) -> list[bpy.types.Object | None]:
    used = {camera_at(scene, moment) for moment in range(scene.frame_start, scene.frame_end + 1)}
    return sorted(used, key=lambda camera: camera.name if camera else "")


def _between(times: Sequence[float]) -> tuple[list[float], int]:
    """The moments to look at: `times` and, evenly between them, as many as make steps of at most one scene frame.

    Returns the moments and how many of them there are for each of `times`.
    """
    every = max(1, math.ceil(times[1] - times[0]))
    dense = np.interp(np.arange((len(times) - 1) * every + 1) / every, range(len(times)), times)
    return dense.tolist(), every


@contextmanager
def _bare_scene(scene: bpy.types.Scene, things: set[bpy.types.Object]) -> Iterator[bpy.types.Scene]:
    """A scene with the cameras of `scene`, `things` and nothing else, in its time; gone afterwards."""
    bare = bpy.data.scenes.new(".motionbooth")
    try:
        for name in ("fps", "fps_base", "frame_map_old", "frame_map_new", "use_simplify", "simplify_subdivision"):
            setattr(bare.render, name, getattr(scene.render, name))
        bare.motionbooth.pan = scene.motionbooth.pan
        compat.share_action(scene, bare)  # the keyframed pan
        for thing in things.union(_cameras(scene)):
            bare.collection.objects.link(thing)
        yield bare
    finally:
        bpy.data.scenes.remove(bare)


def _watch_camera(scene: bpy.types.Scene, moments: list[float]) -> tuple[list[View], list[tuple[float, ...]]]:
    """The camera and the drawn pan at each moment. Only cameras are evaluated, so many moments cost little."""
    views: list[View] = []
    pan: list[tuple[float, ...]] = []
    with _bare_scene(scene, set()) as bare:
        for moment in moments:
            bare.camera = camera_at(scene, moment)
            depsgraph = _at(bare, moment)
            views.append(view_of(scene, bare.camera, depsgraph))
            pan.append(tuple(bare.evaluated_get(depsgraph).motionbooth.pan))
    return views, pan


def _watch_subjects(scene: bpy.types.Scene, times: list[float], views: list[View]) -> list[list[Seen]]:
    """What is seen of each subject at each moment."""
    things = [subject.object for subject in scene.motionbooth.subjects]
    parts = [set(with_geometry(thing)) if thing else set() for thing in things]
    sights: list[list[Seen]] = [[] for _ in parts]
    with _bare_scene(scene, set().union(*map(_needed, parts))) as bare:
        for moment, view in zip(times, views, strict=True):
            bare.camera = camera_at(scene, moment)
            depsgraph = _at(bare, moment)
            for of_subject, track in zip(parts, sights, strict=True):
                track.append(look(of_subject, depsgraph, view))
    return sights


def _at(bare: bpy.types.Scene, moment: float) -> bpy.types.Depsgraph:
    whole = math.floor(moment)
    bare.frame_set(whole, subframe=moment - whole)
    return bare.view_layers[0].depsgraph


def view_of(scene: bpy.types.Scene, camera: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> View:
    width, height = render_size(scene)
    seeing = camera.evaluated_get(depsgraph)
    matrix = seeing.calc_matrix_camera(
        depsgraph, x=width, y=height, scale_x=scene.render.pixel_aspect_x, scale_y=scene.render.pixel_aspect_y
    )
    # A camera's scale does not scale its picture.
    return View(np.array(seeing.matrix_world.normalized().inverted()), np.array(matrix))


def with_geometry(thing: bpy.types.Object) -> list[bpy.types.Object]:
    """The object itself; for an empty or an armature with children, which have no surface, everything beneath it."""
    beneath = [child for child in thing.children_recursive if child.type not in UNSEEN_TYPES | {"EMPTY", "ARMATURE"}]
    plain = thing.type == "ARMATURE" or (thing.type == "EMPTY" and thing.instance_type != "COLLECTION")
    return beneath if plain and beneath else [thing]


def _needed(parts: set[bpy.types.Object]) -> set[bpy.types.Object]:
    """What has to be in a scene for these to look as they do: an object set on vertices or faces is their child."""
    instancers = [part for part in parts if part.instance_type in {"VERTS", "FACES"}]
    return parts.union(child for part in instancers for child in part.children_recursive)


def look(parts: set[bpy.types.Object], depsgraph: bpy.types.Depsgraph, view: View) -> Seen:
    """Where the camera sees the objects' evaluated geometry, instances included."""
    points, edges, count = [], [], 0
    for instance in depsgraph.object_instances:
        owner = instance.parent if instance.is_instance else instance.object
        if owner is None or owner.original not in parts:
            continue
        corners, joints = _outline(instance.object)
        world = np.array(instance.matrix_world)
        points.append(corners @ world[:3, :3].T + world[:3, 3])
        edges.append(joints + count)
        count += len(corners)
    if not count:
        return NOWHERE
    box = projection.screen_box(np.concatenate(points), np.concatenate(edges), view)
    return Seen(box, box is None and projection.is_behind(np.concatenate(points), view))


def _outline(shape: bpy.types.Object) -> tuple[Array, Edges]:
    """An evaluated object's points (N, 3) in its own space and the edges (E, 2) between them.

    Every vertex of what has or becomes a mesh; the drawn size of an empty; the cheaper bounding box of the rest
    (hair, volumes, grease pencil, lattices, armatures).
    """
    if shape.type == "EMPTY":
        instancer = shape.instance_type == "COLLECTION"
        return (CUBE[:0], CUBE_EDGES[:0]) if instancer else (CUBE * shape.empty_display_size, CUBE_EDGES)
    if shape.type not in MESH_TYPES:
        corners = np.array(shape.bound_box)
        low, high = corners.min(axis=0), corners.max(axis=0)
        return (low + high) / 2 + CUBE * (high - low) / 2, CUBE_EDGES
    mesh = shape.to_mesh()
    corners = np.empty(3 * len(mesh.vertices), dtype=np.float32)
    joints = np.empty(2 * len(mesh.edges), dtype=np.int32)
    mesh.vertices.foreach_get("co", corners)
    mesh.edges.foreach_get("vertices", joints)
    shape.to_mesh_clear()
    return corners.reshape(-1, 3).astype(float), joints.reshape(-1, 2)


def _camera(
    settings: bpy.types.PropertyGroup, views: list[View], moments: list[float], every: int, pan: list[tuple[float, ...]]
) -> tuple[CameraPath, list[Concern]]:
    """The shot's camera path, measured or drawn, and what it cannot carry over."""
    if settings.camera_mode == "DRAWN":
        return projection.camera_path(np.array(pan)), []
    measured = projection.travel(views, settings.background_distance)
    return projection.camera_path(measured.offsets[::every]), camera_concerns(measured, moments)


def _track(subject: bpy.types.PropertyGroup, sights: list[Seen]) -> SubjectTrack:
    boxes = [seen.box for seen in sights]
    if not any(boxes):
        raise InvalidInput(
            f'Subject "{subject.name}" is outside the camera\'s view in every frame of the shot; move '
            f'"{subject.object.name}" or the camera so that it is seen.'
        )
    return SubjectTrack(
        name=subject.name,
        token=subject.token,
        class_word=subject.class_word,
        weights=subject.weights or None,
        boxes=boxes,
    )
