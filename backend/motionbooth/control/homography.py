"""Camera control beyond pans (ours; the paper's shift is a pan): whole cells follow a homography of the background.

Each step of the shift takes a further share of every frame's homography, and each cell takes the content of the cell
nearest to where it comes from. What a cell holds is tracked, so that the rounding of the steps does not add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from motionbooth_protocol.motion import Box, CameraPath
from torch import Tensor

from motionbooth.control.boxes import Grid
from motionbooth.control.camera import Pick

FAR = 100.0
"""Shares of the frame: where points behind the camera are put, and no point is farther away."""

SAME = 6
"""Decimals of a cell: between two equally near ones, the last bits of a processor must not decide."""

NEIGHBORS = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2))  # (9, 2): dx, dy


def homographies(camera: CameraPath) -> Tensor:
    """From frame 0 to each frame, scaled to a determinant of 1: (F, 3, 3) float64."""
    maps = torch.tensor(camera.homographies, dtype=torch.float64)
    return maps / torch.linalg.det(maps)[:, None, None] ** (1 / 3)


def part_of(maps: Tensor, done: float) -> Tensor:
    """The share `done` (0..1) of homographies (F, 3, 3)."""
    return torch.lerp(torch.eye(3).to(maps), maps, done)


def inverse(maps: Tensor) -> Tensor:
    """The inverse of homographies (F, 3, 3) up to a factor. What a singular one would map is behind the camera."""
    a, b, c = maps.unbind(dim=-2)
    return torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], dim=-1)


def mapped(points: Tensor, maps: Tensor) -> Tensor:
    """Points (N, 2) or (F, N, 2) through homographies (F, 3, 3): (F, N, 2), FAR away if they are behind the camera."""
    x, y, w = (points @ maps[:, :, :2].mT + maps[:, None, :, 2]).unbind(dim=-1)
    shown = torch.stack([x / w, y / w], dim=-1).clamp(-FAR, FAR)
    return torch.where((w > 1e-9)[..., None], shown, FAR)


def cell_centers(size: Grid) -> Tensor:
    """(h * w, 2): x, y of the centers of the cells of a frame, in shares of it; float64."""
    height, width = size
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([(x + 0.5).double() / width, (y + 0.5).double() / height], dim=-1).flatten(0, 1)


def boxes_under_way(boxes: Sequence[Box | None], maps: Tensor, done: float) -> list[Box | None]:
    """The bounds of what is in a screen box at the end of the shift, when the share `done` of it is done.

    A box that is None stays None, and one that is partly behind the camera becomes None.
    """
    ways = part_of(maps, done) @ inverse(maps)
    return [None if box is None else _bounds(box, way[None]) for box, way in zip(boxes, ways, strict=True)]


def _bounds(box: Box, way: Tensor) -> Box | None:
    corners = torch.tensor([(x, y) for x in (box.x1, box.x2) for y in (box.y1, box.y2)], dtype=torch.float64)
    (x1, y1), (x2, y2) = (edge.tolist() for edge in mapped(corners, way)[0].aminmax(dim=0))
    return None if max(x2, y2) >= FAR or x1 >= x2 or y1 >= y2 else Box(x1, y1, x2, y2)


def source_cells(maps: Tensor, shares: Sequence[float], latent_size: Grid, patch: int = 1) -> Iterator[Tensor]:
    """Where each cell's content comes from as the shift reaches each of `shares`: index in its frame, -1 for a hole.

    Yields (F, h * w) int64 each. Patches of `patch` x `patch` cells move as a whole.
    """
    grid = (latent_size[0] // patch, latent_size[1] // patch)
    size = torch.tensor([grid[1], grid[0]])  # x, y
    own = cell_centers(grid)
    held = own.expand(len(maps), -1, -1)  # where the content of each cell was at first
    earlier = part_of(maps, 0.0)
    for share in shares:
        wanted = mapped(own, inverse(part_of(maps, share)))
        place = (mapped(wanted, earlier) * size).round(decimals=SAME)
        near = place.floor().long()[:, :, None] + NEIGHBORS  # (F, N, 9, 2)
        there = ((near >= 0) & (near < size)).all(dim=-1)
        index = (near[..., 1] * grid[1] + near[..., 0]).where(there, 0)
        found = held.gather(1, index.flatten(1)[..., None].expand(-1, -1, 2)).view(near.shape)
        distance = ((found - wanted[:, :, None]) * size).square().sum(dim=-1).masked_fill(~there, torch.inf)
        best = distance.round(decimals=SAME).argmin(dim=-1, keepdim=True)
        nearest = found.gather(2, best[..., None].expand(-1, -1, 1, 2))[:, :, 0]
        # Off by the rounding at most, which is of the first frame's cells or, where they have shrunk, of this frame's.
        off = ((nearest - wanted) * size).norm(dim=-1).minimum((mapped(nearest, earlier) * size - place).norm(dim=-1))
        shown = ((place >= 0) & (place < size)).all(dim=-1) & (off <= 1)
        held = torch.where(shown[..., None], nearest, wanted)
        earlier = part_of(maps, share)
        yield _cells_of_patches(index.gather(-1, best)[..., 0].where(shown, -1), grid, patch)


def _cells_of_patches(source: Tensor, grid: Grid, patch: int) -> Tensor:
    """Sources of patches (F, h / patch * w / patch) as those of their cells (F, h * w)."""
    row, column = torch.arange(grid[0] * patch)[:, None], torch.arange(grid[1] * patch)
    from_patch = source[:, row // patch * grid[1] + column // patch]  # (F, h, w)
    rows, columns = from_patch // grid[1] * patch + row % patch, from_patch % grid[1] * patch + column % patch
    return torch.where(from_patch < 0, -1, rows * grid[1] * patch + columns).flatten(1)


def cells_ahead(maps: Tensor, done: float, latent_size: Grid) -> Tensor:
    """Where each cell's content will be at the end of the shift: index in its frame, (F, h * w), -1 for outside."""
    size = torch.tensor([latent_size[1], latent_size[0]])
    end = mapped(cell_centers(latent_size), maps @ inverse(part_of(maps, done))) * size
    end = end.round(decimals=SAME).floor().long()
    return (end[..., 1] * latent_size[1] + end[..., 0]).where(((end >= 0) & (end < size)).all(dim=-1), -1)


def filled(source: Tensor, free: Tensor, pick: Pick) -> Tensor:
    """Sources (F, h * w) whose holes take from the free cells (F, h, w) of their frames: (B or 1, 1, F, h * w)."""
    frames = []
    for cells, allowed in zip(source, free, strict=True):
        hole = cells < 0
        picked = pick(allowed.reshape(1, -1), int(hole.sum())).flatten(1)  # (B or 1, holes)
        frames.append(cells.repeat(len(picked), 1).masked_scatter(hole.expand(len(picked), -1), picked))
    return torch.stack(frames, dim=1)[:, None]
