"""Camera control (paper, section 3.4): the latents themselves travel, against the camera, while the sampler runs.

A camera that goes to the right uncovers a strip at the right: content moves left by whole cells, and the strip takes
values from the same frame as it was before the move, cells outside all boxes only, so that no subject is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from motionbooth_protocol.motion import Box, CameraPath
from torch import Tensor

from motionbooth.control.boxes import Grid

Cells = tuple[int, int]  # the camera's travel (dx to the right, dy down) in latent cells
Pick = Callable[[Tensor, int], Tensor]
"""Which cells fill a hole: free (lines, length) bool, holes in each line -> their source indices (lines, holes).

Or (B, 1, lines, holes), others for each sample of the batch.
"""


def travel_in_cells(camera: CameraPath, done: float, latent_size: Grid) -> list[Cells]:
    """How far each frame's content has moved in all when the share `done` (0..1) of the shift is over.

    Exact targets, rounded once: sums of rounded increments lose cells.
    """
    height, width = latent_size
    return [(round(done * d.dx * width), round(done * d.dy * height)) for d in camera.offsets]


def rest_in_cells(camera: CameraPath, latent_size: Grid) -> list[tuple[float, float]]:
    """What `travel_in_cells` leaves over when the shift is over: each frame's (dx, dy), -0.5..0.5 of a cell."""
    height, width = latent_size
    whole = travel_in_cells(camera, 1.0, latent_size)
    return [(d.dx * width - x, d.dy * height - y) for d, (x, y) in zip(camera.offsets, whole, strict=True)]


def shift_by_phase(latents: Tensor, rests: Sequence[tuple[float, float]]) -> Tensor:
    """Move each frame of latents (B, C, F, h, w) by a part of a cell against the camera's (dx, dy).

    A shift of the phases of its Fourier transform: unlike interpolation it keeps white noise white, as the denoiser
    expects it. What leaves the frame on one side comes in on the other, half a cell at most.
    """
    height, width = latents.shape[-2:]
    dx, dy = torch.tensor(rests, device=latents.device, dtype=torch.float32).T[:, :, None, None]  # (F, 1, 1) each
    turns = dx * torch.fft.rfftfreq(width).to(dx) + dy * torch.fft.fftfreq(height).to(dy)[:, None]  # (F, h, w / 2 + 1)
    spectrum = torch.fft.rfft2(latents.float()) * torch.polar(torch.ones_like(turns), 2 * torch.pi * turns)
    return torch.fft.irfft2(spectrum, s=(height, width)).to(latents)


def boxes_under_way(
    boxes: Sequence[Box | None], camera: CameraPath, moved: Sequence[Cells], latent_size: Grid
) -> list[Box | None]:
    """Where a subject is now, that is to arrive at its screen box when the shift is over: B_f + (d_f - moved so far).

    A box None (out of frame at the end) stays None.
    """
    height, width = latent_size
    return [
        None if box is None else box.moved(d.dx - x / width, d.dy - y / height)
        for box, d, (x, y) in zip(boxes, camera.offsets, moved, strict=True)
    ]


def shift_latents(latents: Tensor, moves: Sequence[Cells], free: Tensor, pick: Pick) -> Tensor:
    """Move each frame's content by minus its (dx, dy) and fill what that uncovers.

    latents (B, C, F, h, w); `moves` and `free` (F, h, w, bool: cells that may be copied) have one entry a frame.
    """
    frames = [
        shift_frame(frame, dx, dy, allowed, pick)
        for frame, (dx, dy), allowed in zip(latents.unbind(dim=2), moves, free, strict=True)
    ]
    return torch.stack(frames, dim=2)


def shift_frame(before: Tensor, dx: int, dy: int, free: Tensor, pick: Pick) -> Tensor:
    """One frame (B, C, h, w) after the camera went `dx` cells to the right and `dy` down.

    A hole at the side takes from the row it continues, a hole above or below from its own column; a corner belongs to
    the latter. Rows are picked before columns.
    """
    after = before
    if dx:
        after = _slide(after, dx, _cells_for_holes(before, dx, free, pick))
    if dy:
        fill = _cells_for_holes(before.transpose(-1, -2), dy, free.transpose(0, 1), pick)
        after = _slide(after.transpose(-1, -2), dy, fill).transpose(-1, -2)
    return after


def _cells_for_holes(before: Tensor, move: int, free: Tensor, pick: Pick) -> Tensor:
    """(B, C, lines, abs(move)) values from the same lines of `before` (B, C, lines, length)."""
    holes = min(abs(move), before.shape[-1])
    source = pick(free, holes).to(before.device)  # (lines, holes) or (B, 1, lines, holes)
    return before.gather(-1, source.expand(*before.shape[:2], -1, -1))


def _slide(content: Tensor, move: int, fill: Tensor) -> Tensor:
    """Content to the left by `move` > 0 with the fill after it, or to the right with the fill before it."""
    kept = content.shape[-1] - fill.shape[-1]
    if move > 0:
        return torch.cat([content[..., content.shape[-1] - kept :], fill], dim=-1)
    return torch.cat([fill, content[..., :kept]], dim=-1)


def random_pick(*generators: torch.Generator) -> Pick:
    """Free cells of the line in random order, each once while they last, then again; any cell where none is free.

    One generator for the whole batch, or one for each of its samples.
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
