"""Reads the motion of a shot in slices of time, so that Blender's main thread is never blocked for long."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import bpy
import msgspec
import numpy as np

from .._protocol.errors import InvalidInput
from .._protocol.limits import MAX_FRAMES
from .._protocol.motion import Box, CameraPath, scene_times
from .._protocol.text import Text
from . import framing, projection, scene_evaluation
from .dependencies import pan_playback_reason, playback_reason
from .geometry import (
    NOT_VISIBLE,
    Projection,
    is_deleted,
    objects_with_surface,
    project_objects,
    with_instanced_children,
)
from .projection import View
from .shot_warnings import ShotWarning, camera_warnings, cut_warning, plane_warning, playback_warning

CAMERA = "Camera"
STEPS_AT_ONCE = 500  # camera steps that are measured in one batch: a few milliseconds


class NeedsPlayback(InvalidInput):
    """The camera can only be read by playing the scene, and playback was not allowed."""


@dataclass(frozen=True)
class ReadMethod:
    """How the camera or a subject, identified by `name`, is read.

    playback_reason: why the scene has to be played for it; None if a temporary scene is enough.
    """

    name: str
    playback_reason: Text | None = None


@dataclass(frozen=True)
class Motion:
    """The motion of a shot, sampled evenly over its frame range.

    moments: the sampled scene frames, fractions included.
    projections: for each subject of the scene, its projection at each moment, in shares of the model's frame.
    camera: the camera path at the same moments, in shares of the model's frame.
    warnings: camera moves that the model cannot follow, and what was not read.
    frame: the model's frame in shares of the shot's frame.
    read_methods: how the camera and then each subject was read.
    incomplete: something needs playback and was not read.
    """

    moments: list[float]
    projections: list[list[Projection]]
    camera: CameraPath
    warnings: list[ShotWarning]
    frame: Box = framing.WHOLE
    read_methods: list[ReadMethod] = field(default_factory=list)
    incomplete: bool = False


@dataclass(frozen=True)
class _Phase:
    """`step_count` calls of `take_step` in the scene that `open` provides."""

    open: Callable[[bpy.types.Scene], AbstractContextManager[bpy.types.Scene]]
    take_step: Callable[[bpy.types.Scene, bpy.types.Scene, int], None]
    step_count: int


@dataclass(frozen=True)
class _CameraSample:
    """The active camera's view and name at one moment, and the value of the keyframed pan."""

    view: View
    camera: str
    pan: tuple[float, ...]


class ShotReader:
    """Reads a scene once, at `frames` moments, for a model's frame with the given aspect ratio.

    Between two calls of `advance` it keeps names and numbers only, no Blender data. If the scene is edited in between,
    start again with a new reader.

    aspect: width / height of the model's frame; None for the shot's own.
    allow_playback: whether the scene may be played for whatever cannot be read in a temporary scene. If it may not,
        such subjects are reported as not visible and the motion as incomplete.
    Raises NeedsPlayback if the camera needs playback and may not have it, InvalidInput for a shot that cannot be read.
    """

    def __init__(
        self, scene: bpy.types.Scene, frames: int, aspect: float | None = None, allow_playback: bool = True
    ) -> None:
        if not 2 <= frames <= MAX_FRAMES:
            raise InvalidInput("A shot has 2 to {most} model frames, not {frames}.", most=MAX_FRAMES, frames=frames)
        settings = scene.motionbooth
        shot_aspect = scene_evaluation.aspect_ratio(scene)
        self._frame = framing.model_frame(shot_aspect, aspect or shot_aspect, settings.framing)
        self._times = scene_times(scene.frame_start, scene.frame_end, frames)
        # The camera is sampled more densely: `_stride` moments for each model frame.
        self._moments, self._stride = _dense_moments(self._times)
        self._camera_samples: dict[int, _CameraSample] = {}  # by index into `_moments`
        self._camera_steps: list[projection.Steps] = []
        self._projections = [[NOT_VISIBLE] * frames for _ in settings.subjects]
        self._deleted = [is_deleted(subject) for subject in settings.subjects]
        self._camera_method = _camera_method(scene)
        self._subject_methods = [_subject_method(subject) for subject in settings.subjects]
        # If the camera needs playback, every subject is projected during playback, too.
        self._played_subjects = [
            index
            for index, method in enumerate(self._subject_methods)
            if method.playback_reason or self._camera_method.playback_reason
        ]
        self._incomplete = bool(self._played_subjects) and not allow_playback
        if (reason := self._camera_method.playback_reason) and not allow_playback:
            raise NeedsPlayback(playback_warning("", reason, scene.frame_start, scene.frame_end).sentence)
        self._parts: dict[int, set[bpy.types.Object]] = {}  # of each subject, during one call of `advance`
        self._played_to: int | None = None
        self._phases = self._plan(scene, allow_playback)
        self._phase_steps_done = 0
        self._steps_total = sum(phase.step_count for phase in self._phases)
        self._steps_left = self._steps_total

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        return 1 - self._steps_left / self._steps_total if self._steps_total else 1.0

    @property
    def done(self) -> bool:
        """Whether everything has been read."""
        return not self._phases

    def advance(self, scene: bpy.types.Scene, seconds: float = math.inf) -> None:
        """Continue reading for about `seconds`."""
        deadline = time.perf_counter() + seconds
        try:
            while self._phases and self._advance_phase(scene, deadline):
                self._phases.pop(0)
                self._phase_steps_done = 0
        finally:
            self._parts.clear()

    def _advance_phase(self, scene: bpy.types.Scene, deadline: float) -> bool:
        """Continue the first phase; returns whether it is done."""
        phase = self._phases[0]
        with phase.open(scene) as evaluated_scene:
            while self._phase_steps_done < phase.step_count:
                phase.take_step(scene, evaluated_scene, self._phase_steps_done)
                self._phase_steps_done += 1
                self._steps_left -= 1
                if time.perf_counter() > deadline:
                    break
        return self._phase_steps_done == phase.step_count

    def motion(self, scene: bpy.types.Scene) -> Motion:
        """The result; call it once `done` is true."""
        path, warnings = self._camera_path(scene)
        if self._incomplete:
            warnings += [
                playback_warning(method.name, method.playback_reason, scene.frame_start, scene.frame_end)
                for method in self._subject_methods
                if method.playback_reason
            ]
        methods = [self._camera_method, *self._subject_methods]
        return Motion(self._times, self._projections, path, warnings, self._frame, methods, self._incomplete)

    # The phases

    def _plan(self, scene: bpy.types.Scene, allow_playback: bool) -> list[_Phase]:
        camera_played = bool(self._camera_method.playback_reason)
        phases = []
        if not camera_played:
            phases.append(
                _Phase(lambda s: scene_evaluation.temporary_scene(s, ()), self._take_camera_step, len(self._moments))
            )
        if len(self._played_subjects) < len(self._projections):
            phases.append(_Phase(self._open_subject_scene, self._take_subject_step, len(self._times)))
        if allow_playback and (self._played_subjects or camera_played):
            self._check_visible(scene)
            first_frame = scene_evaluation.playback_start(scene)
            order = self._playback_order(first_frame, self._moments if camera_played else self._times)
            phases.append(
                _Phase(
                    lambda s: scene_evaluation.played_scene(s, self._played_to),
                    lambda s, _, index: self._take_playback_step(s, *order[index]),
                    len(order),
                )
            )
        if scene.motionbooth.camera_mode == "MEASURED":
            batches = math.ceil((len(self._moments) - 1) / STEPS_AT_ONCE)
            phases.append(_Phase(nullcontext, self._measure_camera, batches))
        return phases

    def _check_visible(self, scene: bpy.types.Scene) -> None:
        camera_reason = self._camera_method.playback_reason
        for camera in scene_evaluation.cameras_of(scene) if camera_reason else ():
            assert camera is not None
            scene_evaluation.check_visible(scene, camera, camera_reason)
        for index in self._played_subjects:
            for part in _parts(scene, index):
                reason = self._subject_methods[index].playback_reason or camera_reason
                scene_evaluation.check_visible(scene, part, reason)

    def _playback_order(self, first_frame: int, moments: Sequence[float]) -> list[tuple[float, int | None]]:
        """The moments to evaluate, each with its index in `moments`: first all whole frames in order, as in playback.

        Between two frames Blender interpolates a simulation from its caches, so fractions come after both frames.
        """
        indices = {moment: index for index, moment in enumerate(moments)}
        whole = [(float(frame), indices.get(float(frame))) for frame in range(first_frame, math.ceil(moments[-1]) + 1)]
        fractions = [(moment, index) for index, moment in enumerate(moments) if moment != math.floor(moment)]
        return [*whole, *fractions]

    def _open_subject_scene(self, scene: bpy.types.Scene) -> AbstractContextManager[bpy.types.Scene]:
        indices = [index for index in range(len(self._projections)) if index not in self._played_subjects]
        parts = set().union(*(with_instanced_children(_parts(scene, index)) for index in indices))
        return scene_evaluation.temporary_scene(scene, parts)

    # The steps of each phase

    def _take_camera_step(self, scene: bpy.types.Scene, temporary: bpy.types.Scene, index: int) -> None:
        # Only cameras are evaluated here, so the dense moments cost little.
        temporary.camera = scene_evaluation.camera_at(scene, self._moments[index])
        depsgraph = scene_evaluation.evaluate_at(temporary, self._moments[index])
        self._sample_camera(scene, temporary, index, depsgraph)

    def _sample_camera(
        self, scene: bpy.types.Scene, evaluated_scene: bpy.types.Scene, index: int, depsgraph: bpy.types.Depsgraph
    ) -> None:
        camera = scene_evaluation.camera_at(scene, self._moments[index])
        view = scene_evaluation.view_of(scene, camera, depsgraph)
        if self._frame != framing.WHOLE:
            view = view.framed(self._frame)
        pan = tuple(evaluated_scene.evaluated_get(depsgraph).motionbooth.pan)
        self._camera_samples[index] = _CameraSample(view, camera.name, pan)

    def _take_subject_step(self, scene: bpy.types.Scene, temporary: bpy.types.Scene, index: int) -> None:
        temporary.camera = scene_evaluation.camera_at(scene, self._times[index])
        depsgraph = scene_evaluation.evaluate_at(temporary, self._times[index])
        for subject in range(len(self._projections)):
            if subject not in self._played_subjects:
                self._project(scene, subject, index, depsgraph)

    def _take_playback_step(self, scene: bpy.types.Scene, moment: float, index: int | None) -> None:
        depsgraph = scene_evaluation.evaluate_at(scene, moment)
        if moment == math.floor(moment):
            self._played_to = int(moment)
        if index is None:
            return
        if self._camera_method.playback_reason:  # `index` counts the dense moments
            self._sample_camera(scene, scene, index, depsgraph)
            if index % self._stride:
                return
            index //= self._stride
        for subject in self._played_subjects:
            self._project(scene, subject, index, depsgraph)

    def _project(self, scene: bpy.types.Scene, subject: int, index: int, depsgraph: bpy.types.Depsgraph) -> None:
        if self._deleted[subject]:
            return
        if subject not in self._parts:
            self._parts[subject] = _parts(scene, subject)
        view = self._camera_samples[index * self._stride].view
        self._projections[subject][index] = project_objects(self._parts[subject], depsgraph, view)

    # The camera path

    def _measure_camera(self, scene: bpy.types.Scene, _: bpy.types.Scene, batch: int) -> None:
        last = min((batch + 1) * STEPS_AT_ONCE, len(self._moments) - 1)
        views = [self._camera_samples[index].view for index in range(batch * STEPS_AT_ONCE, last + 1)]
        self._camera_steps.append(projection.measure_steps(views, scene.motionbooth.background_distance))

    def _camera_path(self, scene: bpy.types.Scene) -> tuple[CameraPath, list[ShotWarning]]:
        """The measured or keyframed path, and the camera moves that it cannot represent."""
        settings = scene.motionbooth
        names = [self._camera_samples[index].camera for index in range(len(self._moments))]
        cuts = [index for index in range(1, len(names)) if names[index] != names[index - 1]]
        warnings = [cut_warning(names[index - 1], names[index], self._moments[index]) for index in cuts]
        if settings.camera_mode == "KEYFRAMED":
            pan = [self._camera_samples[index].pan for index in range(0, len(self._moments), self._stride)]
            return projection.camera_path(np.array(pan) / framing.size(self._frame)), warnings
        travel = projection.accumulate(self._camera_steps, cuts)
        warnings += camera_warnings(travel, self._moments, flat=not settings.use_parallax)
        offsets = travel.offsets[:: self._stride]
        if cuts or travel.cuts:
            return projection.camera_path(offsets), warnings
        views = [self._camera_samples[index].view for index in range(0, len(self._moments), self._stride)]
        homographies = projection.background_homographies(views, settings.background_distance)
        if reached := projection.unusable(homographies):
            warnings.append(plane_warning([self._times[index] for index in reached]))
            path = projection.camera_path(offsets)
        else:
            path = projection.camera_path(offsets, homographies)
        poses = projection.camera_poses(views, scene.unit_settings.scale_length)
        return msgspec.structs.replace(path, poses=poses), warnings


def _camera_method(scene: bpy.types.Scene) -> ReadMethod:
    reason = playback_reason(camera for camera in scene_evaluation.cameras_of(scene) if camera)
    if not reason and scene.motionbooth.camera_mode == "KEYFRAMED":
        reason = pan_playback_reason(scene)
    return ReadMethod(CAMERA, reason)


def _subject_method(subject: bpy.types.PropertyGroup) -> ReadMethod:
    return ReadMethod(subject.name, playback_reason(objects_with_surface(subject.object)) if subject.object else None)


def _parts(scene: bpy.types.Scene, subject: int) -> set[bpy.types.Object]:
    proxy = scene.motionbooth.subjects[subject].object
    return set(objects_with_surface(proxy)) if proxy else set()


def _dense_moments(times: Sequence[float]) -> tuple[list[float], int]:
    """`times` with as many moments evenly between them as it takes to have steps of at most one scene frame.

    Returns the moments and how many of them there are for each of `times`.
    """
    stride = max(1, math.ceil(times[1] - times[0]))
    dense = np.interp(np.arange((len(times) - 1) * stride + 1) / stride, range(len(times)), times)
    dense[::stride] = times  # exactly, without the rounding of the interpolation
    return dense.tolist(), stride
