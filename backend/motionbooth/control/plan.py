"""What the controls do at each sampling step, computed before the first one: plain data for the sampler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from motionbooth_protocol.motion import Box, CameraPath
from msgspec import structs
from torch import Tensor

from motionbooth.control import homography
from motionbooth.control.boxes import BoxControl, Grid, box_mask
from motionbooth.control.camera import Cells, boxes_under_way, fraction_of_cell, travel_in_cells
from motionbooth.control.guide import GuideControl
from motionbooth.control.latent_frames import latent_camera, latent_track
from motionbooth.control.prompt import PromptTokens
from motionbooth.control.scenery import Scenery, scenery_of
from motionbooth.control.settings import ControlSettings

MIN_VISIBLE = 0.5
"""If less than this share of a box's visible area is in the frame, a subject forms at the edge and is cut off."""

Tracks = tuple[tuple[Box | None, ...], ...]  # boxes[subject][frame], shares of the frame as it is at that step


@dataclass(frozen=True)
class Warp:
    """How cells move in a step: their indices in their frames, (F, h * w) int64."""

    source: Tensor
    """Where each cell's content comes from; -1 for a hole."""
    ahead: Tensor
    """Where each cell's content will be at the end of the shift; -1 if outside the frame."""


@dataclass(frozen=True)
class StepPlan:
    """One sampling step: first the latents move, then the network runs with the boxes."""

    moves: tuple[Cells, ...] = ()
    """The camera's travel in this step, in whole cells, for each frame; empty if no frame moves."""
    free: Tensor | None = None
    """The cells that may fill the holes: bool (F, h, w), those outside all boxes before the move."""
    fractions: tuple[tuple[float, float], ...] = ()
    """The remaining fraction of a cell (dx, dy) for each frame, moved after `moves`; empty for none."""
    boxes: BoxControl | None = None
    """The attention edit; None for none."""
    scenery: Scenery | None = None
    """The scenery that is merged in the estimate of the clean clip; None for none."""
    guide: GuideControl | None = None
    """The guide that replaces parts of the estimate of the clean clip; None for none."""
    warp: Warp | None = None
    """How the cells move if the camera does more than pan, instead of `moves`; None for none, or if all have moved."""


def plan_steps(
    settings: ControlSettings,
    steps: int,
    latent_size: Grid,
    camera: CameraPath,
    tracks: Sequence[Sequence[Box | None]] = (),
    tokens: PromptTokens | None = None,
    *,
    patch: int = 1,
    temporal: int = 1,
) -> list[StepPlan]:
    """The controls of all `steps`, whose windows are shares of the steps. No `tracks`: no box control. A still camera:
    no shift.

    `tracks`: each subject's boxes in the finished frames. `tokens`: where each subject is in the prompt. `patch` and
    `temporal`: as in Base.
    """
    scenery = scenery_of(camera, tracks, latent_size, temporal)
    camera = latent_camera(camera, temporal)
    screen = tuple(tuple(latent_track(track, temporal)) for track in tracks)
    first, last = _window(settings.shift_from, settings.shift_until, steps)
    amplified = amplified_steps(settings, steps, camera, screen)
    shares = [_done(step, first, last) for step in range(steps)]  # of the shift
    warps = _warps(camera, shares, latent_size, patch) if camera.homographies and camera.moves else {}
    moved = travel_in_cells(camera, 0.0, latent_size, patch)
    merging = range(last - 1, round(settings.merge_until * steps)) if camera.moves else range(0)
    plans = []
    for step in range(steps):
        before, moved = moved, travel_in_cells(camera, shares[step], latent_size, patch)
        boxes = screen if step >= last - 1 else _under_way(screen, camera, shares[step], latent_size, patch)
        edit = None
        if boxes and tokens is not None:
            edit = BoxControl(
                boxes,
                tokens,
                settings.alpha,
                amplify=step < amplified,
                suppress=settings.suppress,
                soft_edges=settings.soft_edges,
                tied=step < round(settings.tie_until * steps),
            )
        moves = tuple((x - x0, y - y0) for (x, y), (x0, y0) in zip(moved, before, strict=True))
        pans = not warps and any(x or y for x, y in moves)
        free = None
        if pans or (warps and first <= step < last):
            earlier = shares[step - 1] if step else 0.0
            free = free_cells(_under_way(screen, camera, earlier, latent_size, patch), latent_size, len(moves))
        fractions = _fractions(settings, camera, latent_size, patch) if step == last - 1 and not warps else ()
        plans.append(
            StepPlan(
                moves if pans else (),
                free,
                fractions,
                edit,
                scenery if step in merging else None,
                warp=warps.get(step),
            )
        )
    return plans


def _warps(camera: CameraPath, shares: Sequence[float], latent_size: Grid, patch: int) -> dict[int, Warp]:
    """The warps of the steps up to the end of the shift. `shares`: of the shift that each step ends with."""
    background = homography.background_of(camera)
    until = shares.index(1.0) + 1
    sources = homography.source_cells(background, shares[:until], latent_size, patch)
    return {
        step: Warp(source, homography.cells_ahead(background, share, latent_size))
        for step, (source, share) in enumerate(zip(sources, shares, strict=False))
    }


def windows_in_steps(settings: ControlSettings, noise_levels: Sequence[float]) -> ControlSettings:
    """The settings with their windows as shares of the steps, if they were shares of the noise.

    `noise_levels`: the standard deviation (0..1) of the noise in the latents at each step.
    """
    if settings.windows == "steps":
        return settings
    names = ("amplify_until", "shift_from", "shift_until", "merge_until", "tie_until")
    shares = {name: sum(1 - level < getattr(settings, name) for level in noise_levels) for name in names}
    in_steps = {name: steps / len(noise_levels) for name, steps in shares.items()}
    return structs.replace(settings, windows="steps", **in_steps)


def _fractions(
    settings: ControlSettings, camera: CameraPath, latent_size: Grid, patch: int
) -> tuple[tuple[float, float], ...]:
    """What the shift by whole cells leaves over; empty if the settings leave it out or nothing is left over."""
    fractions = tuple(fraction_of_cell(camera, latent_size, patch)) if settings.subcell_shift else ()
    return fractions if any(x or y for x, y in fractions) else ()


def amplified_steps(
    settings: ControlSettings, steps: int, camera: CameraPath, tracks: Sequence[Sequence[Box | None]]
) -> int:
    """The number of steps, from the first, in which the boxes are amplified.

    This is the base's own window, as in the paper, with one exception: at the end of the window the shift may still
    have so far to go that less than MIN_VISIBLE of a box is in the frame. Too few cells of that frame were then ever
    amplified to hold the subject, so the amplification continues to the end of the shift, when every box is in place.
    """
    first, last = _window(settings.shift_from, settings.shift_until, steps)
    amplified = round(settings.amplify_until * steps)
    ahead = 1 - _done(amplified - 1, first, last)  # the share of the shift that is still to come
    pairs = [
        (box, moved)
        for track in tracks
        for box, moved in zip(track, _displaced(track, camera, ahead), strict=True)
        if box is not None
    ]
    leaves = any(_visible_area(moved) < MIN_VISIBLE * _visible_area(box) for box, moved in pairs)
    return last if leaves and settings.amplify_until else amplified


def _displaced(track: Sequence[Box | None], camera: CameraPath, ahead: float) -> Sequence[Box | None]:
    """Where the boxes are while the share `ahead` of the shift is still to come."""
    if camera.homographies:
        return homography.boxes_under_way(track, homography.homographies(camera), 1 - ahead)
    pairs = zip(track, camera.offsets, strict=True)
    return [None if box is None else box.moved(ahead * d.dx, ahead * d.dy) for box, d in pairs]


def _visible_area(box: Box | None) -> float:
    """Area of the part inside the frame, in frames; 0 for a box outside."""
    if box is None or not box.visible:
        return 0.0
    part = box.clipped()
    return (part.x2 - part.x1) * (part.y2 - part.y1)


def free_cells(tracks: Sequence[Sequence[Box | None]], latent_size: Grid, frames: int) -> Tensor:
    """Cells outside all boxes: bool (F, h, w)."""
    if not tracks:
        return torch.ones(frames, *latent_size, dtype=torch.bool)
    return ~box_mask(tracks, latent_size).any(dim=0)


def _window(start: float, stop: float, steps: int) -> tuple[int, int]:
    """The first step of a window given in shares, and the step after its last; at least one step long."""
    first = min(round(start * steps), steps - 1)
    return first, max(round(stop * steps), first + 1)


def _done(step: int, first: int, last: int) -> float:
    """The share of the shift that is done after the move of this step."""
    return min(max((step + 1 - first) / (last - first), 0.0), 1.0)


def _under_way(
    tracks: Sequence[Sequence[Box | None]], camera: CameraPath, done: float, latent_size: Grid, patch: int
) -> Tracks:
    """Where the boxes are when the share `done` of the shift is done."""
    if camera.homographies:
        maps = homography.homographies(camera)
        return tuple(tuple(homography.boxes_under_way(track, maps, done)) for track in tracks)
    moved = travel_in_cells(camera, done, latent_size, patch)
    return tuple(tuple(boxes_under_way(track, camera, moved, latent_size)) for track in tracks)
