"""A shot at a base's latent frames: the first one shows the clip's first frame, each further one a group of frames.

A base that encodes frames one by one has groups of one frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from motionbooth_protocol.motion import Box, CameraPath, Homography, Offset, Parallax, invertible
from msgspec import structs
from torch import Tensor

from motionbooth.control.homography import background_of, homographies

Track = Sequence[Box | None]  # one box for each frame


def groups(frames: int, temporal: int) -> list[range]:
    """The frames of each latent frame: the first alone, then `temporal` each. `frames` is 1 + a multiple of it."""
    return [range(1), *(range(first, first + temporal) for first in range(1, frames, temporal))]


def latent_camera(camera: CameraPath, temporal: int) -> CameraPath:
    """Where the camera is in the middle of each group."""
    offsets = camera.offsets
    middles = [
        ((group.start + group.stop - 1) // 2, (group.start + group.stop) // 2)
        for group in groups(len(offsets), temporal)
    ]
    return CameraPath(
        [
            Offset((offsets[one].dx + offsets[other].dx) / 2, (offsets[one].dy + offsets[other].dy) / 2)
            for one, other in middles
        ],
        _in_the_middle(camera, middles) if camera.homographies else [],
        parallax=None if camera.parallax is None else _parallax_in_the_middle(camera, camera.parallax, middles),
    )


def _in_the_middle(camera: CameraPath, middles: Sequence[tuple[int, int]]) -> list[Homography]:
    """Between two frames each; the first one's if the camera turns too far from it to the other for a mean."""
    maps = homographies(camera)
    means: list[Homography] = [tuple(map(tuple, ((maps[a] + maps[b]) / 2).tolist())) for a, b in middles]  # type: ignore[misc]
    return [mean if invertible(mean) else camera.homographies[a] for mean, (a, _) in zip(means, middles, strict=True)]


def _parallax_in_the_middle(camera: CameraPath, parallax: Parallax, middles: Sequence[tuple[int, int]]) -> Parallax:
    """With the nearness of the frame before the middle, and all homographies scaled as `_in_the_middle`'s."""
    background = background_of(camera)
    assert background.infinity is not None
    size = len(parallax.nearness) // len(parallax.infinity)
    nearness = b"".join(parallax.nearness[size * a : size * (a + 1)] for a, _ in middles)
    means = [tuple(map(tuple, ((background.infinity[a] + background.infinity[b]) / 2).tolist())) for a, b in middles]
    return structs.replace(parallax, infinity=means, nearness=nearness)


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
