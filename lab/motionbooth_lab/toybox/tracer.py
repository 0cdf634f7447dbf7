"""Batched rendering of solids by closed-form ray casting in torch, with the same result on GPU and CPU.

A solid is a list of `Part`s: balls, cubes and tapered cylinders, each with an affine transform, a color and a pattern.
x is right, y up, z toward the viewer, all within about -1..1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RGB = tuple[int, int, int]
Vector = tuple[float, float, float]
Shape = Literal["ball", "cube", "cone"]
Pattern = Literal["plain", "rings", "stripes", "dots", "two-tone", "patch"]

SHAPES: tuple[Shape, ...] = ("ball", "cube", "cone")
PATTERNS: tuple[Pattern, ...] = ("plain", "rings", "stripes", "dots", "two-tone", "patch")

SUPERSAMPLING = 2
FAR = 4.0
"""Rays start this far in front of the origin."""


@dataclass(frozen=True)
class Part:
    """One piece of a solid.

    `center`, `radii`: its position and its half extents along its own axes. `turn` (3, 3): its rotation. For a "cone"
    along its y axis, `taper` is the ratio of the upper radius to the lower one. `pattern` is drawn in `ink` over `rgb`,
    repeated `scale` times across the part.
    """

    shape: Shape
    center: Vector
    radii: Vector
    rgb: RGB
    turn: NDArray[np.float64] | None = None
    taper: float = 1.0
    pattern: Pattern = "plain"
    ink: RGB = (0, 0, 0)
    scale: float = 3.0


Solid = Sequence[Part]


def rotation(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> NDArray[np.float64]:
    """Rotation (3, 3) by roll about z, then pitch about x, then yaw about y, in radians."""
    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (yaw, pitch, roll))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def moved(solid: Solid, turn: NDArray[np.float64], scale: float = 1.0) -> list[Part]:
    """The solid rotated about the origin, then scaled."""
    return [
        replace(
            part,
            center=tuple(scale * (turn @ np.asarray(part.center))),
            radii=tuple(scale * np.asarray(part.radii)),
            turn=turn if part.turn is None else turn @ part.turn,
        )
        for part in solid
    ]


@torch.no_grad()
def render(
    solids: Sequence[Solid],
    size_px: int,
    device: torch.device | str = "cpu",
    turns: Sequence[NDArray[np.float64]] | None = None,
) -> Tensor:
    """Pictures (N, size, size, 4) uint8 of N solids seen from the front: RGB, not premultiplied, and coverage.

    The picture covers -1..1 in x and y. With `turns`, each solid is rendered in each of these T rotations about the
    origin: (N * T, size, size, 4), grouped by solid.
    """
    parts = _Packed.of(solids, torch.device(device))
    if turns is not None:
        parts = parts.turned(torch.as_tensor(np.asarray(turns, np.float32), device=device))
    side = size_px * SUPERSAMPLING
    ticks = (torch.arange(side, device=device) + 0.5) / side * 2 - 1
    y, x = torch.meshgrid(-ticks, ticks, indexing="ij")
    origin = torch.stack([x, y, torch.full_like(x, FAR)], -1).reshape(-1, 3)  # (pixels, 3)
    start = torch.einsum("npij,kj->npki", parts.inverse, origin) - parts.offset[:, :, None]  # (N, P, pixels, 3)
    way = -parts.inverse[..., 2][:, :, None]  # the rays go along -z
    depth = _depths(parts, start, way)  # (N, P, pixels)
    nearest, which = depth.min(1)
    hit = torch.isfinite(nearest)
    point = _at(start, which) + torch.where(hit, nearest, 0.0)[..., None] * _at(way.expand_as(start), which)
    rgb = _shaded(parts, which, point) * hit[..., None]
    picture = torch.cat([rgb, hit[..., None].float()], -1).reshape(-1, side, side, 4).permute(0, 3, 1, 2)
    small = torch.nn.functional.avg_pool2d(picture, SUPERSAMPLING)
    cover = small[:, 3:]
    small = torch.cat([small[:, :3] / cover.clamp_min(1e-3), cover], 1).clamp(0, 1)
    return (small * 255).round().byte().permute(0, 2, 3, 1)


@dataclass(frozen=True)
class _Packed:
    """N solids of up to P parts as tensors. Padding parts have size zero and are far behind."""

    inverse: Tensor  # (N, P, 3, 3): world to the part's unit space
    offset: Tensor  # (N, P, 3)
    shape: Tensor  # (N, P)
    taper: Tensor  # (N, P)
    rgb: Tensor  # (N, P, 3), 0..1
    ink: Tensor  # (N, P, 3)
    pattern: Tensor  # (N, P)
    scale: Tensor  # (N, P)

    @classmethod
    def of(cls, solids: Sequence[Solid], device: torch.device) -> "_Packed":
        absent = Part("ball", (0, 0, -1e3), (1e-3, 1e-3, 1e-3), (0, 0, 0))
        most = max(map(len, solids))
        rows = [[*solid, *[absent] * (most - len(solid))] for solid in solids]
        identity = np.eye(3)
        inverse = np.array(
            [
                [np.diag(1 / np.asarray(p.radii)) @ (identity if p.turn is None else p.turn).T for p in row]
                for row in rows
            ]
        )
        centers = np.array([[p.center for p in row] for row in rows])

        def tensor(values: object) -> Tensor:
            return torch.as_tensor(np.asarray(values, np.float32), device=device)

        return cls(
            tensor(inverse),
            tensor(np.einsum("npij,npj->npi", inverse, centers)),
            torch.tensor([[SHAPES.index(p.shape) for p in row] for row in rows], device=device),
            tensor([[p.taper for p in row] for row in rows]),
            tensor([[p.rgb for p in row] for row in rows]) / 255,
            tensor([[p.ink for p in row] for row in rows]) / 255,
            torch.tensor([[PATTERNS.index(p.pattern) for p in row] for row in rows], device=device),
            tensor([[p.scale for p in row] for row in rows]),
        )

    def turned(self, turns: Tensor) -> "_Packed":
        """The N solids in T rotations (T, 3, 3): N * T solids. Centers in unit space don't change: A R^T R c = A c."""
        several = {field.name: getattr(self, field.name).repeat_interleave(len(turns), 0) for field in fields(self)}
        inverse = torch.einsum("npij,tkj->ntpik", self.inverse, turns).flatten(0, 1)
        return _Packed(**(several | {"inverse": inverse}))


def _depths(parts: _Packed, start: Tensor, way: Tensor) -> Tensor:
    """Distance at which each ray enters each part (N, P, pixels), infinite if it misses."""
    depth = start.new_full(start.shape[:3], torch.inf)
    for number, enter in enumerate((_enter_ball, _enter_cube, _enter_cone)):
        chosen = parts.shape == number
        if chosen.any():
            depth[chosen] = enter(start[chosen], way[chosen], parts.taper[chosen][:, None])
    return depth


def _enter_ball(start: Tensor, way: Tensor, _: Tensor) -> Tensor:
    a, b, c = way.square().sum(-1), (start * way).sum(-1), start.square().sum(-1) - 1
    inside = b * b - a * c
    return torch.where(inside > 0, (-b - inside.clamp_min(0).sqrt()) / a, torch.inf)


def _enter_cube(start: Tensor, way: Tensor, _: Tensor) -> Tensor:
    way = torch.where(way.abs() < 1e-6, 1e-6, way)
    low, high = (-1 - start) / way, (1 - start) / way
    first, last = torch.minimum(low, high).amax(-1), torch.maximum(low, high).amin(-1)
    return torch.where(first < last, first, torch.inf)


def _enter_cone(start: Tensor, way: Tensor, taper: Tensor) -> Tensor:
    """x^2 + z^2 = r(y)^2 with r(y) = m + s y, from 1 at y = -1 to `taper` at y = 1, and both caps."""
    slope, middle = (taper - 1) / 2, (taper + 1) / 2
    x, y, z = start.unbind(-1)
    dx, dy, dz = way.unbind(-1)
    radius = middle + slope * y
    a = dx * dx + dz * dz - (slope * dy).square()
    a = torch.where(a.abs() < 1e-6, 1e-6, a)
    b = x * dx + z * dz - radius * slope * dy
    c = x * x + z * z - radius.square()
    inside = b * b - a * c
    side = (-b - inside.clamp_min(0).sqrt()) / a
    height = y + side * dy
    best = torch.where((inside > 0) & (height.abs() <= 1), side, torch.inf)
    safe = torch.where(dy.abs() < 1e-6, 1e-6, dy)
    for level, limit in ((-1.0, torch.ones_like(taper)), (1.0, taper)):
        cap = (level - y) / safe
        within = (x + cap * dx).square() + (z + cap * dz).square() <= limit.square()
        best = torch.where(within & (cap < best), cap, best)
    return best


def _at(values: Tensor, which: Tensor) -> Tensor:
    """values (N, P, pixels, 3) of the part `which` (N, pixels) -> (N, pixels, 3)."""
    return values.gather(1, which[:, None, :, None].expand(-1, 1, -1, 3))[:, 0]


def _own(values: Tensor, which: Tensor) -> Tensor:
    """values (N, P, ...) of the part `which` (N, pixels) -> (N, pixels, ...)."""
    index = which.reshape(*which.shape, *[1] * (values.dim() - 2)).expand(*which.shape, *values.shape[2:])
    return values.gather(1, index)


def _shaded(parts: _Packed, which: Tensor, point: Tensor) -> Tensor:
    """Colors (N, pixels, 3), 0..1, of hits at `point` (N, pixels, 3) in the unit space of the part `which`."""
    shape, taper = _own(parts.shape, which), _own(parts.taper, which)
    normal = _unit_normals(point, shape, taper)
    normal = torch.einsum("npji,npj->npi", _own(parts.inverse, which), normal)  # to the world: A^T n
    normal = normal / normal.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    light = point.new_tensor([0.42, 0.64, 0.64])
    lit = (normal @ light).clamp_min(0)
    facing = normal[..., 2].clamp(0, 1)
    shade = 0.42 + 0.10 * normal[..., 1] + 0.52 * lit
    shade = shade * (0.62 + 0.38 * facing.sqrt())
    gleam = 0.22 * lit.pow(24)
    return (_surface(parts, which, point) * shade[..., None] + gleam[..., None]).clamp(0, 1)


def _unit_normals(point: Tensor, shape: Tensor, taper: Tensor) -> Tensor:
    x, y, z = point.unbind(-1)
    largest = point.abs().amax(-1, keepdim=True)
    cube = torch.where(point.abs() >= largest - 1e-4, point.sign(), 0.0)
    slope = (taper - 1) / 2
    around = torch.stack([x, -slope * (slope * y + (taper + 1) / 2), z], -1)
    cap = torch.stack([torch.zeros_like(y), y.sign(), torch.zeros_like(y)], -1)
    cone = torch.where((y.abs() > 0.999)[..., None], cap, around)
    kind = shape[..., None]
    return torch.where(kind == 0, point, torch.where(kind == 1, cube, cone))


def _surface(parts: _Packed, which: Tensor, point: Tensor) -> Tensor:
    """The color of the part or its pattern at each hit."""
    pattern, scale = _own(parts.pattern, which), _own(parts.scale, which)
    x, y, z = point.unbind(-1)
    dots = point * scale[..., None] / 2
    dots = (dots - dots.round()).norm(dim=-1) < 0.36
    inked = (
        ((pattern == 1) & ((y * scale / 2).frac().abs().sub(0.5).abs() < 0.22))
        | ((pattern == 2) & ((torch.atan2(x, z) * scale / 3.14).frac().abs().sub(0.5).abs() < 0.22))
        | ((pattern == 3) & dots)
        | ((pattern == 4) & (y > 0.1))
        | ((pattern == 5) & (z > 0.35) & ((x / 0.7).square() + ((y + 0.1) / 0.75).square() < 1))
    )
    return torch.where(inked[..., None], _own(parts.ink, which), _own(parts.rgb, which))
