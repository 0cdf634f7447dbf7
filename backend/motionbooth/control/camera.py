"""Camera control (paper, section 3.4): the latents move against the camera while the sampler runs.

A camera that moves right uncovers a strip at the right: content moves left by whole cells, and the strip is filled with
values of the same frame before the move. They are taken from cells outside all boxes, so that no subject is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from motionbooth_protocol.motion import Box, CameraPath
from torch import Tensor

from motionbooth.control.boxes import Grid

Cells = tuple[int, int]  # the camera's travel (dx to the right, dy down) in latent cells
Pick = Callable[[Tensor, int], Tensor]
"""Chooses the cells that fill holes: (free, holes) -> source indices (lines, holes), or (B, 1, lines, holes) if each
sample has its own. `free`: bool (lines, length), the cells that may be copied. `holes`: their number in each line."""


def travel_in_cells(camera: CameraPath, done: float, latent_size: Grid, patch: int = 1) -> list[Cells]:
    """The total travel of each frame when the share `done` (0..1) of the shift is done, in multiples of `patch` cells.

    Exact targets, rounded once: sums of rounded increments lose cells.
    """
    height, width = latent_size[0] / patch, latent_size[1] / patch
    return [(patch * round(done * d.dx * width), patch * round(done * d.dy * height)) for d in camera.offsets]


def fraction_of_cell(camera: CameraPath, latent_size: Grid, patch: int = 1) -> list[tuple[float, float]]:
    """What `travel_in_cells` leaves over at the end of the shift: each frame's (dx, dy), at most half a patch."""
    height, width = latent_size
    whole = travel_in_cells(camera, 1.0, latent_size, patch)
    return [(d.dx * width - x, d.dy * height - y) for d, (x, y) in zip(camera.offsets, whole, strict=True)]


def shift_by_phase(latents: Tensor, fractions: Sequence[tuple[float, float]]) -> Tensor:
    """Move each frame of latents (B, C, F, h, w) by a fraction of a cell against the camera's (dx, dy).

    Shifts the phases of the frame's Fourier transform. Unlike interpolation, this keeps white noise white, as the
    denoiser expects it. What leaves the frame on one side enters on the other, half a patch at most.
    """
    height, width = latents.shape[-2:]
    dx, dy = torch.tensor(fractions, device=latents.device, dtype=torch.float32).T[:, :, None, None]  # (F, 1, 1) each
    turns = dx * torch.fft.rfftfreq(width).to(dx) + dy * torch.fft.fftfreq(height).to(dy)[:, None]  # (F, h, w / 2 + 1)
    spectrum = torch.fft.rfft2(latents.float()) * torch.polar(torch.ones_like(turns), 2 * torch.pi * turns)
    return torch.fft.irfft2(spectrum, s=(height, width)).to(latents)


def boxes_under_way(
    boxes: Sequence[Box | None], camera: CameraPath, moved: Sequence[Cells], latent_size: Grid
) -> list[Box | None]:
    """Where a subject is now if it is to be in its screen box at the end of the shift: B_f + (d_f - moved so far).

    A box that is None (out of frame at the end) stays None.
    """
    height, width = latent_size
    return [
        None if box is None else box.moved(d.dx - x / width, d.dy - y / height)
        for box, d, (x, y) in zip(boxes, camera.offsets, moved, strict=True)
    ]


def shift_latents(latents: Tensor, moves: Sequence[Cells], free: Tensor, pick: Pick) -> Tensor:
    """Move each frame's content by minus its (dx, dy) and fill the holes.

    latents (B, C, F, h, w). `moves`: one entry for each frame. `free`: bool (F, h, w), the cells that may be copied.
    """
    frames = [
        shift_frame(frame, dx, dy, allowed, pick)
        for frame, (dx, dy), allowed in zip(latents.unbind(dim=2), moves, free, strict=True)
    ]
    return torch.stack(frames, dim=2)


def shifted_cells(batch: int, moves: Sequence[Cells], free: Tensor, pick: Pick) -> Tensor:
    """Where each cell's content comes from in `shift_latents`: its index in the frame, (B, 1, F, h * w)."""
    cells = torch.arange(free[0].numel()).view(free[0].shape)
    return shift_latents(cells.expand(batch, 1, *free.shape), moves, free, pick).flatten(-2)


def gather_cells(latents: Tensor, source: Tensor) -> Tensor:
    """The latents (B, C, F, h, w) with the content of each cell taken from that of `source` (B, 1, F, h * w)."""
    content = latents.flatten(-2)
    return content.gather(-1, source.expand_as(content)).view_as(latents)


def move_with_memory(sampler: Any, latents: Tensor, move: Callable[[Tensor], Tensor]) -> Tensor:
    """The moved latents. What the sampler remembers of past steps, of their shape, moves alike (in place).

    A multistep sampler corrects the latents by the step before, and would undo a move of the latents alone.
    """

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(each) for each in value]
        return move(value) if isinstance(value, Tensor) and value.shape == latents.shape else value

    for name, value in list(vars(sampler).items()):
        setattr(sampler, name, moved(value))
    return move(latents)


def shift_frame(before: Tensor, dx: int, dy: int, free: Tensor, pick: Pick) -> Tensor:
    """One frame (B, C, h, w) after the camera moved `dx` cells right and `dy` down.

    A hole at the side is filled from its own row, a hole above or below from its own column; a corner counts as the
    latter. Rows are filled before columns.
    """
    after = before
    if dx:
        after = _slide(after, dx, _cells_for_holes(before, dx, free, pick))
    if dy:
        fill = _cells_for_holes(before.transpose(-1, -2), dy, free.transpose(0, 1), pick)
        after = _slide(after.transpose(-1, -2), dy, fill).transpose(-1, -2)
    return after


def _cells_for_holes(before: Tensor, move: int, free: Tensor, pick: Pick) -> Tensor:
    """Values (B, C, lines, abs(move)) from the same lines of `before` (B, C, lines, length)."""
    holes = min(abs(move), before.shape[-1])
    source = pick(free, holes).to(before.device)  # (lines, holes) or (B, 1, lines, holes)
    return before.gather(-1, source.expand(*before.shape[:2], -1, -1))


def _slide(content: Tensor, move: int, fill: Tensor) -> Tensor:
    """Content moved left if `move` > 0, with the fill after it; else moved right, with the fill before it."""
    kept = content.shape[-1] - fill.shape[-1]
    if move > 0:
        return torch.cat([content[..., content.shape[-1] - kept :], fill], dim=-1)
    return torch.cat([fill, content[..., :kept]], dim=-1)


def random_pick(*generators: torch.Generator) -> Pick:
    """Picks free cells of the line in random order, without repeats while they last; any cells if none is free.

    One generator for the whole batch, or one for each sample.
    """

    def pick(free: Tensor, holes: int) -> Tensor:
        picked = [_pick_cells(free, holes, generator) for generator in generators]
        return picked[0] if len(picked) == 1 else torch.stack(picked)[:, None]

    return pick


def _pick_cells(free: Tensor, holes: int, generator: torch.Generator) -> Tensor:
    lines, length = free.shape
    order = (torch.rand(lines, length, generator=generator) + free).argsort(dim=1, descending=True, stable=True)
    count = free.sum(dim=1, keepdim=True)
    count = torch.where(count == 0, length, count)
    return order.gather(1, torch.arange(holes).expand(lines, -1) % count)
