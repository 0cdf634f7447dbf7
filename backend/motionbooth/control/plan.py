"""What the controls do at each sampling step, worked out before the first one: plain data for the sampler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from motionbooth_protocol.motion import Box, CameraPath
from torch import Tensor

from motionbooth.control.boxes import BoxControl, Grid, box_mask
from motionbooth.control.camera import Cells, boxes_under_way, rest_in_cells, travel_in_cells
from motionbooth.control.prompt import PromptTokens
from motionbooth.control.scenery import Scenery, scenery_of
from motionbooth.control.settings import ControlSettings

LEAST_SEEN = 0.5  # of a box's visible part: with less of it in the frame, a subject forms at the edge and is cut off

Tracks = tuple[tuple[Box | None, ...], ...]  # boxes[subject][frame], shares of the frame as it is at that step


@dataclass(frozen=True)
class StepPlan:
    """One sampling step: first the latents move, then the UNet runs with the boxes.

    `moves`: cells for each frame, empty where nothing moves. `free` (F, h, w) bool: the cells that may fill the holes
    (outside all boxes, before the move). `rests`: the part of a cell for each frame, to move after that. `boxes`: the
    attention edit, None for none. `scenery`: what is merged in the estimate of the clean clip, None for nothing.
    """

    moves: tuple[Cells, ...] = ()
    free: Tensor | None = None
    rests: tuple[tuple[float, float], ...] = ()
    boxes: BoxControl | None = None
    scenery: Scenery | None = None


def plan_steps(
    settings: ControlSettings,
    steps: int,
    latent_size: Grid,
    camera: CameraPath,
    tracks: Sequence[Sequence[Box | None]] = (),
    tokens: PromptTokens | None = None,
) -> list[StepPlan]:
    """The controls of all `steps`. No `tracks`: no box control. A still camera: no shift."""
    first, last = _window(settings.shift_from, settings.shift_until, steps)
    amplified = amplified_steps(settings, steps, camera, tracks)
    plans = []
    screen = tuple(tuple(track) for track in tracks)
    moved = travel_in_cells(camera, 0.0, latent_size)
    merged = (
        range(last - 1, round(settings.merge_until * steps))
        if any(offset.dx or offset.dy for offset in camera.offsets)
        else ()
    )
    scenery = scenery_of(camera, screen, latent_size)
    for step in range(steps):
        before, moved = moved, travel_in_cells(camera, _done(step, first, last), latent_size)
        moves = tuple((x - x0, y - y0) for (x, y), (x0, y0) in zip(moved, before, strict=True))
        now = screen if step >= last - 1 else _under_way(screen, camera, moved, latent_size)
        boxes = None
        if now and tokens is not None:
            boxes = BoxControl(now, tokens, settings.alpha, amplify=step < amplified, suppress=settings.suppress)
        still = not any(x or y for x, y in moves)
        free = None if still else free_cells(_under_way(screen, camera, before, latent_size), latent_size, len(moves))
        rests = tuple(rest_in_cells(camera, latent_size)) if settings.shift_parts and step == last - 1 else ()
        rests = rests if any(x or y for x, y in rests) else ()
        plans.append(StepPlan(() if still else moves, free, rests, boxes, scenery if step in merged else None))
    return plans


def amplified_steps(
    settings: ControlSettings, steps: int, camera: CameraPath, tracks: Sequence[Sequence[Box | None]]
) -> int:
    """How many steps, from the first one on, amplify the boxes.

    The base's own window, as the paper has it. Where it ends while the camera still leads a box so far ahead that less
    than LEAST_SEEN of it is in the frame, too few cells of that frame were ever amplified to hold the subject: then
    the amplification goes on until the shift is over and every box is in its place.
    """
    first, last = _window(settings.shift_from, settings.shift_until, steps)
    amplified = round(settings.amplify_until * steps)
    ahead = 1 - _done(amplified - 1, first, last)  # the share of the shift that is still to come
    led = [
        (box, box.moved(ahead * d.dx, ahead * d.dy))
        for track in tracks
        for box, d in zip(track, camera.offsets, strict=True)
        if box is not None
    ]
    leaves = any(_seen_area(before) < LEAST_SEEN * _seen_area(box) for box, before in led)
    return last if leaves and settings.amplify_until else amplified


def _seen_area(box: Box) -> float:
    """Of the part inside the frame; 0 where there is none."""
    if not box.visible:
        return 0.0
    part = box.clipped()
    return (part.x2 - part.x1) * (part.y2 - part.y1)


def free_cells(tracks: Sequence[Sequence[Box | None]], latent_size: Grid, frames: int) -> Tensor:
    """Cells outside all boxes: bool (F, h, w)."""
    if not tracks:
        return torch.ones(frames, *latent_size, dtype=torch.bool)
    return ~box_mask(tracks, latent_size).any(dim=0)


def _window(start: float, stop: float, steps: int) -> tuple[int, int]:
    """First step, and the step after the last, of a window in shares; at least one step long."""
    first = min(round(start * steps), steps - 1)
    return first, max(round(stop * steps), first + 1)


def _done(step: int, first: int, last: int) -> float:
    """The share of the shift that is over once this step's latents have moved."""
    return min(max((step + 1 - first) / (last - first), 0.0), 1.0)


def _under_way(
    tracks: Sequence[Sequence[Box | None]], camera: CameraPath, moved: Sequence[Cells], latent_size: Grid
) -> Tracks:
    return tuple(tuple(boxes_under_way(track, camera, moved, latent_size)) for track in tracks)
