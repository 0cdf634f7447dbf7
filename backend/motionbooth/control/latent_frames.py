"""A shot at a base's latent frames: the first one shows the clip's first frame, each further one a group of frames.

A base that encodes frames one by one has groups of one frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from motionbooth_protocol.motion import Box, CameraPath, Homography, Offset, invertible
from msgspec import structs
from torch import Tensor

from motionbooth.control.homography import Background, background_of

Track = Sequence[Box | None]  # one box for each frame


def groups(frames: int, temporal: int) -> list[range]:
    """The frames of each latent frame: the first alone, then `temporal` each. `frames` is 1 + a multiple of it."""
    return [range(1), *(range(first, first + temporal) for first in range(1, frames, temporal))]


def latent_camera(camera: CameraPath, temporal: int) -> CameraPath:
    """Where the camera is in the middle of each group."""
    offsets, background = camera.offsets, background_of(camera) if camera.homographies else None
    middles = [_middle(group, background) for group in groups(len(offsets), temporal)]
    travel = [Offset((offsets[a].dx + offsets[b].dx) / 2, (offsets[a].dy + offsets[b].dy) / 2) for a, b in middles]
    if background is None:
        return CameraPath(travel)
    parallax = camera.parallax
    if parallax is not None and background.infinity is not None:
        size = len(parallax.nearness) // len(parallax.infinity)
        nearness = b"".join(parallax.nearness[size * a : size * (a + 1)] for a, _ in middles)
        infinity = [_mean(background.infinity, a, b) for a, b in middles]
        parallax = structs.replace(parallax, infinity=infinity, nearness=nearness)
    return CameraPath(travel, [_mean(background.plane, a, b) for a, b in middles], parallax=parallax)


def _middle(group: range, background: Background | None) -> tuple[int, int]:
    """The two frames around the middle, or twice the first one if the camera turns too far to the other for a mean."""
    one, other = (group.start + group.stop - 1) // 2, (group.start + group.stop) // 2
    has_mean = background is None or invertible(_mean(background.plane, one, other))
    return one, other if has_mean else one


def _mean(maps: Tensor, one: int, other: int) -> Homography:
    return tuple(map(tuple, ((maps[one] + maps[other]) / 2).tolist()))  # type: ignore[return-value]


def latent_track(track: Track, temporal: int) -> list[Box | None]:
    """The mean of the boxes in each group; None if the subject is out of frame in the whole group."""
    return [mean_box([box for box in track[group.start : group.stop] if box]) for group in groups(len(track), temporal)]


def mean_box(boxes: Sequence[Box]) -> Box | None:
    """None for no boxes."""
    if not boxes:
        return None
    edges = zip(*((box.x1, box.y1, box.x2, box.y2) for box in boxes), strict=True)
    return Box(*(sum(edge) / len(boxes) for edge in edges))


def latent_cells(cells: Tensor, temporal: int) -> Tensor:
    """The cells that are set in all frames of each group: bool (F, h, w) -> (F', h, w)."""
    return torch.stack([cells[group.start : group.stop].all(dim=0) for group in groups(len(cells), temporal)])
