"""One scenery for all frames (ours, not the paper's): while the camera moves, a place looks the same in every frame.

The shift of the latents moves the camera, but a small base model may still draw each frame's scenery anew. Here each
estimate of the clean clip is decoded, and every point of the scenery becomes its mean over all frames that show it, as
in MultiDiffusion (Bar-Tal et al., 2023), with the camera's path in place of overlapping windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from motionbooth_protocol.motion import Box, CameraPath
from torch import Tensor

from motionbooth.control.boxes import Grid, box_mask

WHOLLY_SEEN = 0.99
"""Least bilinear weight of scenery in a sample: less would mix in the subject, or what is beyond the frame's edge."""


@dataclass(frozen=True)
class Scenery:
    """`travel`: the camera's (dx right, dy down) for each frame, in shares of the frame. `cells` (F, h, w) bool: latent
    cells that show scenery, none next to a subject's box."""

    travel: tuple[tuple[float, float], ...]
    cells: Tensor


def scenery_of(camera: CameraPath, tracks: Sequence[Sequence[Box | None]], latent_size: Grid) -> Scenery:
    """Everything outside the boxes, grown by one cell."""
    frames = len(camera.offsets)
    boxes = box_mask(tracks, latent_size).any(dim=0) if tracks else torch.zeros(frames, *latent_size, dtype=torch.bool)
    grown = F.max_pool2d(boxes.float()[:, None], 3, stride=1, padding=1)[:, 0] > 0
    return Scenery(tuple((offset.dx, offset.dy) for offset in camera.offsets), ~grown)


def merge_scenery(frames: Tensor, scenery: Scenery) -> Tensor:
    """Frames (F, C, H, W) of one clip, each point of their scenery at its mean over the frames that show it."""
    height, width = frames.shape[-2:]
    travel = frames.new_tensor(scenery.travel)  # (F, 2)
    shown = F.interpolate(scenery.cells[:, None].to(frames), (height, width))  # (F, 1, H, W), nearest
    layers = torch.cat([frames, shown], dim=1)
    x = (torch.arange(width).to(frames) + 0.5) / width
    y = (torch.arange(height).to(frames) + 0.5) / height
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (H, W, 2), shares of the frame
    merged = []
    for own, frame, is_scenery in zip(travel, frames, shown, strict=True):
        moved = (own - travel)[:, None, None]  # where this frame's points are in every frame
        seen = F.grid_sample(layers, (places + moved) * 2 - 1, align_corners=False)
        weight = (seen[:, -1:] > WHOLLY_SEEN).to(frames)
        mean = (seen[:, :-1] * weight).sum(0) / weight.sum(0).clamp_min(1)
        merged.append(torch.where((is_scenery > 0) & (weight.sum(0) > 0), mean, frame))
    return torch.stack(merged)
