"""Scenery merging (ours, not the paper's): while the camera moves, the scenery looks the same in all frames.

The latent shift moves the camera, but a small base may still generate each frame's scenery differently. So each
estimate of the clean clip is decoded, and every point of the scenery is replaced by its mean over all frames that show
it, as in MultiDiffusion (Bar-Tal et al., 2023) with the camera's path instead of overlapping windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from motionbooth_protocol.motion import Box, CameraPath
from torch import Tensor

from motionbooth.control.boxes import Grid, box_mask
from motionbooth.control.homography import Background, background_of, inverse, mapped
from motionbooth.control.latent_frames import latent_cells

MIN_WEIGHT = 0.99
"""Smallest bilinear weight of scenery in a sample; below, the subject or the frame's border would be mixed in."""


@dataclass(frozen=True)
class Scenery:
    """The camera's path and what is scenery in each frame."""

    travel: tuple[tuple[float, float], ...]
    """The camera's (dx right, dy down) for each frame, in shares of the frame."""
    cells: Tensor
    """bool (F, h, w): cells that show scenery; those next to a subject's box do not count."""
    temporal: int = 1
    """As in Base."""
    background: Background | None = None
    """Where frame 0's points are, if the camera does more than pan; it takes precedence over `travel`."""

    @property
    def latent_cells(self) -> Tensor:
        """bool (F', h, w): cells that show scenery in all frames of a latent frame."""
        return latent_cells(self.cells, self.temporal)


def scenery_of(
    camera: CameraPath, tracks: Sequence[Sequence[Box | None]], latent_size: Grid, temporal: int = 1
) -> Scenery:
    """Everything outside the boxes; each box is grown by one cell."""
    frames = len(camera.offsets)
    boxes = box_mask(tracks, latent_size).any(dim=0) if tracks else torch.zeros(frames, *latent_size, dtype=torch.bool)
    grown = F.max_pool2d(boxes.float()[:, None], 3, stride=1, padding=1)[:, 0] > 0
    travel = tuple((offset.dx, offset.dy) for offset in camera.offsets)
    return Scenery(travel, ~grown, temporal, background_of(camera) if camera.homographies else None)


def merge_scenery(frames: Tensor, scenery: Scenery) -> Tensor:
    """Frames (F, C, H, W) of one clip, each point of the scenery replaced by its mean over the frames that show it.

    Computed and returned in float32: half precision cannot tell neighboring pixels of a wide frame apart.
    """
    frames = frames.float()
    height, width = frames.shape[-2:]
    travel = frames.new_tensor(scenery.travel)  # (F, 2)
    shown = F.interpolate(scenery.cells[:, None].to(frames), (height, width))  # (F, 1, H, W), nearest
    layers = torch.cat([frames, shown], dim=1)
    x = (torch.arange(width).to(frames) + 0.5) / width
    y = (torch.arange(height).to(frames) + 0.5) / height
    points = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (H, W, 2), shares of the frame
    merged = []
    for index, (frame, is_scenery) in enumerate(zip(frames, shown, strict=True)):
        same: Tensor | bool = True
        if scenery.background is None:
            places = points + (travel[index] - travel)[:, None, None]
        else:
            places, same = _places(scenery.background, index, points.flatten(0, 1))
            places, same = places.unflatten(1, (height, width)), same.unflatten(1, (height, width))[:, None]
        # `places` (F, H, W, 2): where this frame's points are in every frame
        seen = F.grid_sample(layers, places * 2 - 1, align_corners=False)
        weight = ((seen[:, -1:] > MIN_WEIGHT) & same).to(frames)
        mean = (seen[:, :-1] * weight).sum(0) / weight.sum(0).clamp_min(1)
        merged.append(torch.where((is_scenery > 0) & (weight.sum(0) > 0), mean, frame))
    return torch.stack(merged)


def _places(background: Background, frame: int, points: Tensor) -> tuple[Tensor, Tensor]:
    """Where points (N, 2) of a frame are in all frames, (F, N, 2), and whether they can be seen there, bool (F, N)."""
    exact = points.to(background.plane)
    near = background.shown_nearness(exact)[frame : frame + 1]
    maps = background.maps(near.expand(len(background.plane), -1))
    places = mapped(points, (maps @ inverse(maps[frame])).to(points))
    first = mapped(exact, inverse(maps[frame])[None]).expand(places.shape)
    same = background.same_layer(first, near, background.shown_nearness(places.to(exact)))
    return places, same.to(points.device)
