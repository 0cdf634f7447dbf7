"""Reads what moves in a shot, in slices of time, so that Blender's main thread is never held for long.

Between two slices nothing of Blender's data is kept but names; a scene that is edited meanwhile is read anew.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import bpy
import numpy as np

from .._protocol.errors import InvalidInput
from .._protocol.limits import MAX_FRAMES
from .._protocol.motion import Box, CameraPath, scene_times
from . import framing, projection, stages
from .dependence import why_drawn_pan_played, why_played
from .outlines import NOWHERE, Seen, look, needed, with_geometry
from .projection import View
from .shot_warnings import Concern, camera_concerns, cut_concern, unread_concern

CAMERA = "Camera"
PIECE = 500  # steps of the camera that are measured at once: a few milliseconds


class NeedsPlaying(InvalidInput):
    """The camera is only right when the scene is played."""


@dataclass(frozen=True)
class Way:
    """How the camera or a subject, by its `name`, was read: beside the scene, or by playing it, and why that."""

    name: str
    reason: str = ""  # "" beside the scene


@dataclass(frozen=True)
class Motion:
    """What moves in a shot, at moments spread evenly over its frame range, in shares of the model's frame.

    moments: scene frames with fractions. sights: for each subject of the scene, at each moment. camera: its path there.
    concerns: what of the camera's move cannot be followed, and what was not read. frame: where the model's frame lies,
    in shares of the shot's. ways: of the camera, then of each subject. unread: something has to be played for it.
    """

    moments: list[float]
    sights: list[list[Seen]]
    camera: CameraPath
    concerns: list[Concern]
    frame: Box = framing.WHOLE
    ways: list[Way] = field(default_factory=list)
    unread: bool = False


@dataclass(frozen=True)
class _Phase:
    """`count` steps in one stage: `open` it, `take` one step."""

    open: Callable[[bpy.types.Scene], AbstractContextManager[bpy.types.Scene]]
    take: Callable[[bpy.types.Scene, bpy.types.Scene, int], None]
    count: int


@dataclass(frozen=True)
class _Noted:
    """The camera at one moment, by its name, and the drawn pan."""

    view: View
    camera: str
    pan: tuple[float, ...]


class Reader:
    """One reading of a scene at `frames` moments for a model's frame of `aspect` (None: as the shot's).

    `play`: whether the scene may be played for what cannot be read beside it; else that is nowhere, and said. Raises
    InvalidInput.
    """

    def __init__(self, scene: bpy.types.Scene, frames: int, aspect: float | None = None, play: bool = True) -> None:
        if not 2 <= frames <= MAX_FRAMES:
            raise InvalidInput(f"A shot is sampled at 2 to {MAX_FRAMES} model frames, got {frames}.")
        settings = scene.motionbooth
        shape = stages.aspect(scene)
        self._frame = framing.model_frame(shape, aspect or shape, settings.framing)
        self._times = scene_times(scene.frame_start, scene.frame_end, frames)
        self._moments, self._every = _between(self._times)
        self._noted: dict[int, _Noted] = {}  # by the entry of `moments`
        self._measured: list[projection.Steps] = []
        self._sights = [[NOWHERE] * frames for _ in settings.subjects]
        self._ways = [self._way_of_camera(scene), *(_way(subject) for subject in settings.subjects)]
        self._played = [number for number, way in enumerate(self._ways[1:]) if way.reason or self._ways[0].reason]
        self._unread = bool(self._played or self._ways[0].reason) and not play
        if self._ways[0].reason and not play:
            raise NeedsPlaying(unread_concern("", self._ways[0].reason, scene.frame_start, scene.frame_end).sentence)
        self._played_to: int | None = None
        self._phases = self._plan(scene, play)
        self._done = 0  # steps of the first phase
        self._steps = sum(phase.count for phase in self._phases)
        self._left = self._steps

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        return 1 - self._left / self._steps if self._steps else 1.0

    @property
    def done(self) -> bool:
        """Whether all is read."""
        return not self._phases

    def go_on(self, scene: bpy.types.Scene, seconds: float = math.inf) -> None:
        """Read on for about so long."""
        ends = time.perf_counter() + seconds
        while self._phases:
            phase = self._phases[0]
            with phase.open(scene) as stage:
                while self._done < phase.count:
                    phase.take(scene, stage, self._done)
                    self._done += 1
                    self._left -= 1
                    if time.perf_counter() > ends:
                        break
            if self._done < phase.count:
                return
            self._phases.pop(0)
            self._done = 0

    def motion(self, scene: bpy.types.Scene) -> Motion:
        """What was read, once it is all there."""
        path, concerns = self._path(scene)
        unread = [
            unread_concern(way.name, way.reason, scene.frame_start, scene.frame_end)
            for way in self._ways[1:]
            if way.reason and self._unread
        ]
        return Motion(self._times, self._sights, path, concerns + unread, self._frame, self._ways, self._unread)

    # What there is to do

    def _way_of_camera(self, scene: bpy.types.Scene) -> Way:
        reason = why_played(camera for camera in stages.cameras_of(scene) if camera)
        if not reason and scene.motionbooth.camera_mode == "DRAWN":
            reason = why_drawn_pan_played(scene)
        return Way(CAMERA, reason)

    def _plan(self, scene: bpy.types.Scene, play: bool) -> list[_Phase]:
        camera_played = bool(self._ways[0].reason)
        phases = []
        if not camera_played:
            phases.append(_Phase(lambda s: stages.bare_scene(s, ()), self._take_camera, len(self._moments)))
        if len(self._played) < len(self._sights):
            phases.append(_Phase(self._bare, self._take_subjects, len(self._times)))
        if play and (self._played or camera_played):
            self._check_visible(scene)
            order = self._playing_order(stages.play_start(scene), self._moments if camera_played else self._times)
            phases.append(_Phase(self._play, lambda s, _, number: self._take_played(s, order[number]), len(order)))
        if scene.motionbooth.camera_mode == "MEASURED":
            phases.append(_Phase(nullcontext, self._measure, math.ceil((len(self._moments) - 1) / PIECE)))
        return phases

    def _check_visible(self, scene: bpy.types.Scene) -> None:
        for camera in stages.cameras_of(scene) if self._ways[0].reason else ():
            assert camera is not None
            stages.check_visible(scene, camera, self._ways[0].reason)
        for number in self._played:
            for part in _parts(scene, number):
                stages.check_visible(scene, part, self._ways[1 + number].reason or self._ways[0].reason)

    def _playing_order(self, start: int, moments: Sequence[float]) -> list[tuple[float, int | None]]:
        """Moments to evaluate, and which entry of `moments` each is: all whole frames first, as they are played.

        Between two frames a simulation is what its caches make of both, so the fractions come when these are there.
        """
        entry = {moment: number for number, moment in enumerate(moments)}
        whole = [(float(frame), entry.get(float(frame))) for frame in range(start, math.ceil(moments[-1]) + 1)]
        between = [(moment, number) for number, moment in enumerate(moments) if moment != math.floor(moment)]
        return [*whole, *between]

    def _bare(self, scene: bpy.types.Scene) -> AbstractContextManager[bpy.types.Scene]:
        light = [number for number in range(len(self._sights)) if number not in self._played]
        return stages.bare_scene(scene, set().union(*(needed(_parts(scene, number)) for number in light)))

    def _play(self, scene: bpy.types.Scene) -> AbstractContextManager[bpy.types.Scene]:
        return stages.played_scene(scene, self._played_to)

    # The steps

    def _take_camera(self, scene: bpy.types.Scene, bare: bpy.types.Scene, number: int) -> None:
        """Only cameras are evaluated, so many moments cost little."""
        bare.camera = stages.camera_at(scene, self._moments[number])
        self._note_camera(scene, bare, number, stages.at(bare, self._moments[number]))

    def _note_camera(
        self, scene: bpy.types.Scene, stage: bpy.types.Scene, number: int, depsgraph: bpy.types.Depsgraph
    ) -> None:
        camera = stages.camera_at(scene, self._moments[number])
        view = stages.view_of(scene, camera, depsgraph)
        pan = tuple(stage.evaluated_get(depsgraph).motionbooth.pan)
        self._noted[number] = _Noted(
            view if self._frame == framing.WHOLE else view.framed(self._frame), camera.name, pan
        )

    def _take_subjects(self, scene: bpy.types.Scene, bare: bpy.types.Scene, number: int) -> None:
        bare.camera = stages.camera_at(scene, self._times[number])
        depsgraph = stages.at(bare, self._times[number])
        for subject in range(len(self._sights)):
            if subject not in self._played:
                self._look(scene, subject, number, depsgraph)

    def _take_played(self, scene: bpy.types.Scene, step: tuple[float, int | None]) -> None:
        moment, number = step
        depsgraph = stages.at(scene, moment)
        if moment == math.floor(moment):
            self._played_to = int(moment)
        if number is None:
            return
        if self._ways[0].reason:
            self._note_camera(scene, scene, number, depsgraph)
            if number % self._every:
                return
            number //= self._every
        for subject in self._played:
            self._look(scene, subject, number, depsgraph)

    def _look(self, scene: bpy.types.Scene, subject: int, number: int, depsgraph: bpy.types.Depsgraph) -> None:
        view = self._noted[number * self._every].view
        self._sights[subject][number] = look(_parts(scene, subject), depsgraph, view)

    # The camera's path

    def _measure(self, scene: bpy.types.Scene, _: bpy.types.Scene, number: int) -> None:
        last = min((number + 1) * PIECE, len(self._moments) - 1)
        views = [self._noted[moment].view for moment in range(number * PIECE, last + 1)]
        self._measured.append(projection.measure_steps(views, scene.motionbooth.background_distance))

    def _path(self, scene: bpy.types.Scene) -> tuple[CameraPath, list[Concern]]:
        """Measured or drawn, and what it cannot carry over."""
        settings = scene.motionbooth
        names = [self._noted[number].camera for number in range(len(self._moments))]
        cuts = [number for number in range(1, len(names)) if names[number] != names[number - 1]]
        of_cuts = [cut_concern(names[number - 1], names[number], self._moments[number]) for number in cuts]
        if settings.camera_mode == "DRAWN":
            pan = [self._noted[number].pan for number in range(0, len(self._moments), self._every)]
            return projection.camera_path(np.array(pan) / framing.size(self._frame)), of_cuts
        measured = projection.add_up(self._measured, cuts)
        path = projection.camera_path(measured.offsets[:: self._every])
        return path, of_cuts + camera_concerns(measured, self._moments)


def _way(subject: bpy.types.PropertyGroup) -> Way:
    return Way(subject.name, why_played(with_geometry(subject.object)) if subject.object else "")


def _parts(scene: bpy.types.Scene, number: int) -> set[bpy.types.Object]:
    thing = scene.motionbooth.subjects[number].object
    return set(with_geometry(thing)) if thing else set()


def _between(times: Sequence[float]) -> tuple[list[float], int]:
    """The moments to look at: `times` and, evenly between them, as many as make steps of at most one scene frame.

    Returns the moments and how many of them there are for each of `times`.
    """
    every = max(1, math.ceil(times[1] - times[0]))
    dense = np.interp(np.arange((len(times) - 1) * every + 1) / every, range(len(times)), times)
    dense[::every] = times  # to the last bit
    return dense.tolist(), every
