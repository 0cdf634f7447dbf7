"""Camera control beyond pans (ours; the paper's shift is a pan): whole cells follow a homography of the background.

Each step of the shift takes a further share of every frame's homography, and each cell takes the content of the cell
nearest to where it comes from. What a cell holds is tracked, so that the rounding of the steps does not add up. If the
background is not flat, each cell has a homography of its own, by how near its content is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
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

ROUNDS = 8
"""How often the nearness of a moving cell is looked up where it ends. Two layers need two, a slope some more."""

SAME_LAYER = 0.02
"""Shares of the frame, half a cell of toybox: two nearnesses are one layer if the move takes them no farther apart."""


@dataclass(frozen=True)
class Background:
    """Where points of frame 0 are in each frame: float64 homographies (F, 3, 3), those of the plane of determinant 1.

    Nearness, as in the contract, is 1 on the plane.
    """

    plane: Tensor
    infinity: Tensor | None = None
    nearness: Tensor | None = None
    """(F, rows, columns): how near is what each frame shows. None, as `infinity`: the background is flat."""

    def of_frames(self, frames: slice) -> Background:
        """That of some of the frames."""
        infinity, nearness = (None if each is None else each[frames] for each in (self.infinity, self.nearness))
        return Background(self.plane[frames], infinity, nearness)

    def shown_nearness(self, points: Tensor, done: float = 1.0) -> Tensor:
        """How near is what is at points (N, 2) or (F, N, 2) of each frame when the share `done` of the move is done.

        (F, N), or (F, 1) ones for a flat background. Exact at the end. Before it, it is looked up where the point ends,
        beginning with the nearest, which hides the rest.
        """
        if self.nearness is None:
            return torch.ones(len(self.plane), 1).to(self.plane)
        if done == 1:
            return self._sampled(points)
        near = self.nearness.amax(dim=(1, 2))[:, None].expand(-1, points.shape[-2])
        for _ in range(ROUNDS):
            maps = self.maps(near)
            near = self._sampled(mapped(mapped(points, inverse(part_of(maps, done))), maps))
        return near

    def _sampled(self, points: Tensor) -> Tensor:
        assert self.nearness is not None
        frames, rows, columns = self.nearness.shape
        size = torch.tensor([columns, rows])
        column, row = torch.minimum((points * size).floor().long().clamp_min(0), size - 1).unbind(dim=-1)
        return self.nearness.flatten(1).gather(1, (row * columns + column).expand(frames, -1))

    def maps(self, near: Tensor) -> Tensor:
        """The homographies of points of some nearness (F, N): (F, N, 3, 3), or (F, 1, 3, 3) for a flat background."""
        if self.infinity is None:
            return self.plane[:, None]
        return torch.lerp(self.infinity[:, None], self.plane[:, None], near[..., None, None])

    def same_layer(self, points: Tensor, one: Tensor, other: Tensor) -> Tensor:
        """Whether points (F, N, 2) of frame 0 end at the same place with one nearness (F, N) as with another."""
        if self.nearness is None:
            return torch.ones(points.shape[:-1], dtype=torch.bool)
        apart = mapped(points, self.maps(one)) - mapped(points, self.maps(other))
        return (apart.abs() <= SAME_LAYER).all(dim=-1)


def background_of(camera: CameraPath) -> Background:
    """The background of a camera that does more than pan."""
    plane = torch.tensor(camera.homographies, dtype=torch.float64)
    scale = torch.linalg.det(plane)[:, None, None] ** (1 / 3)
    if camera.parallax is None:
        return Background(plane / scale)
    infinity = torch.tensor(camera.parallax.infinity, dtype=torch.float64)
    values = torch.from_numpy(np.frombuffer(camera.parallax.nearness, "<f2").astype(np.float64))
    nearness = values.view(-1, camera.parallax.rows, camera.parallax.columns)
    return Background(plane / scale, infinity / scale, nearness)


def homographies(camera: CameraPath) -> Tensor:
    """From frame 0 to each frame, scaled to a determinant of 1: (F, 3, 3) float64."""
    return background_of(camera).plane


def part_of(maps: Tensor, done: float) -> Tensor:
    """The share `done` (0..1) of homographies (..., 3, 3)."""
    return torch.lerp(torch.eye(3).to(maps), maps, done)


def inverse(maps: Tensor) -> Tensor:
    """The inverse of homographies (..., 3, 3) up to a factor. What a singular one would map is behind the camera."""
    a, b, c = maps.unbind(dim=-2)
    return torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], dim=-1)


def mapped(points: Tensor, maps: Tensor) -> Tensor:
    """Points (N, 2) or (F, N, 2) through homographies (F, 3, 3) or (F, N or 1, 3, 3): (F, N, 2).

    Those behind the camera are FAR away.
    """
    maps = maps if maps.dim() == 4 else maps[:, None]
    x, y = points[..., None, 0], points[..., None, 1]
    x, y, w = (maps[..., 0] * x + maps[..., 1] * y + maps[..., 2]).unbind(dim=-1)
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


def source_cells(
    background: Background, shares: Sequence[float], latent_size: Grid, patch: int = 1
) -> Iterator[Tensor]:
    """Where each cell's content comes from as the shift reaches each of `shares`: index in its frame, -1 for a hole.

    Yields (F, h * w) int64 each. Patches of `patch` x `patch` cells move as a whole.
    """
    grid = (latent_size[0] // patch, latent_size[1] // patch)
    size = torch.tensor([grid[1], grid[0]])  # x, y
    own, frames = cell_centers(grid), len(background.plane)
    held = own.expand(frames, -1, -1)  # where the content of each cell was at first
    layer = background.shown_nearness(own)[:1].expand(frames, len(own))  # how near it was
    done = 0.0
    for share in shares:
        near = background.shown_nearness(own, share)
        maps = background.maps(near)
        wanted, earlier = mapped(own, inverse(part_of(maps, share))), part_of(maps, done)
        place = (mapped(wanted, earlier) * size).round(decimals=SAME)
        around = place.floor().long()[:, :, None] + NEIGHBORS  # (F, N, 9, 2)
        index = (around[..., 1] * grid[1] + around[..., 0]).clamp(0, len(own) - 1)
        found = held.gather(1, index.flatten(1)[..., None].expand(-1, -1, 2)).view(around.shape)
        there = ((around >= 0) & (around < size)).all(dim=-1)
        of_cell, of_content = near[..., None].expand(index.shape).flatten(1), layer.gather(1, index.flatten(1))
        there &= background.same_layer(found.flatten(1, 2), of_cell, of_content).view(index.shape)
        distance = ((found - wanted[:, :, None]) * size).square().sum(dim=-1).masked_fill(~there, torch.inf)
        best = distance.round(decimals=SAME).argmin(dim=-1, keepdim=True)
        nearest = found.gather(2, best[..., None].expand(-1, -1, 1, 2))[:, :, 0]
        # Off by the rounding at most, which is of the first frame's cells or, where they have shrunk, of this frame's.
        off = ((nearest - wanted) * size).norm(dim=-1).minimum((mapped(nearest, earlier) * size - place).norm(dim=-1))
        shown = ((place >= 0) & (place < size)).all(dim=-1) & there.any(dim=-1) & (off <= 1)
        held, layer = torch.where(shown[..., None], nearest, wanted), near.expand_as(layer)
        done = share
        yield _cells_of_patches(index.gather(-1, best)[..., 0].where(shown, -1), grid, patch)


def _cells_of_patches(source: Tensor, grid: Grid, patch: int) -> Tensor:
    """Sources of patches (F, h / patch * w / patch) as those of their cells (F, h * w)."""
    row, column = torch.arange(grid[0] * patch)[:, None], torch.arange(grid[1] * patch)
    from_patch = source[:, row // patch * grid[1] + column // patch]  # (F, h, w)
    rows, columns = from_patch // grid[1] * patch + row % patch, from_patch % grid[1] * patch + column % patch
    return torch.where(from_patch < 0, -1, rows * grid[1] * patch + columns).flatten(1)


def cells_ahead(background: Background, done: float, latent_size: Grid) -> Tensor:
    """Where each cell's content will be at the end of the shift: index in its frame, (F, h * w), -1 for outside."""
    size, own = torch.tensor([latent_size[1], latent_size[0]]), cell_centers(latent_size)
    maps = background.maps(background.shown_nearness(own, done))
    end = mapped(mapped(own, inverse(part_of(maps, done))), maps) * size
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
