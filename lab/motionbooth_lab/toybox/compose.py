"""Compose scenes to pixels, boxes and masks from a bank's sprites and textures, on the bank's device."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from motionbooth_lab.toybox.backgrounds import CANVAS_PX
from motionbooth_lab.toybox.bank import Bank
from motionbooth_lab.toybox.draw import HEIGHT_PX, WIDTH_PX
from motionbooth_lab.toybox.scenes import Scenes

SUPERSAMPLING = 2


@dataclass(frozen=True)
class Composed:
    """Composed scenes.

    pixels (B*F, 3, H, W) in -1..1. cover (B*F, 1, H, W): the subject's coverage, 0..1. boxes (B, F, 4): its bounds x1
    y1 x2 y2 as shares of the frame; all 0 if there is no subject.
    """

    pixels: Tensor
    cover: Tensor
    boxes: Tensor


@torch.no_grad()
def compose(scenes: Scenes, bank: Bank) -> Composed:
    """Compose the scenes."""
    device = bank.sprites.device
    ground = _ground(scenes, bank, device)  # (B*F, 3, H, W), 0..1
    subject = _subjects(scenes, bank, device)  # (B*F, 4, H, W)
    cover = subject[:, 3:]
    pixels = ground * (1 - cover) + subject[:, :3]
    return Composed(pixels * 2 - 1, cover, _bounds(cover[:, 0]).reshape(*scenes.sprite.shape, 4))


def _tensor(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)


def _pixel_grid(scale: int, device: torch.device) -> Tensor:
    """x and y of the pixel centers (H*scale, W*scale, 2), in frame pixels."""
    x = (torch.arange(WIDTH_PX * scale, device=device) + 0.5) / scale
    y = (torch.arange(HEIGHT_PX * scale, device=device) + 0.5) / scale
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def _turned(points: Tensor, angle: Tensor) -> Tensor:
    """Points (..., 2) rotated by -angle, broadcast from the left."""
    cos, sin = angle.cos(), angle.sin()
    x, y = points.unbind(-1)
    return torch.stack([cos * x + sin * y, cos * y - sin * x], -1)


def _ground(scenes: Scenes, bank: Bank, device: torch.device) -> Tensor:
    count, frames = scenes.sprite.shape
    chosen = bank.textures[_tensor(scenes.place, device), _tensor(scenes.texture, device)].float() / 255
    middle = torch.tensor([WIDTH_PX / 2, HEIGHT_PX / 2], device=device)
    zoom, roll = (_tensor(each, device)[:, :, None, None] for each in (scenes.zoom, scenes.roll))
    points = _turned((_pixel_grid(1, device) - middle)[None, None] / zoom[..., None], roll) + middle
    where = _tensor(scenes.corner[:, None] + scenes.camera, device)
    points = points + where[:, :, None, None]  # (B, F, H, W, 2) on the texture
    grid = (points / CANVAS_PX * 2 - 1).reshape(count, frames * HEIGHT_PX, WIDTH_PX, 2)
    seen = F.grid_sample(chosen, grid, padding_mode="reflection", align_corners=False)
    seen = seen.reshape(count, 3, frames, HEIGHT_PX, WIDTH_PX).transpose(1, 2).flatten(0, 1)
    gain = _tensor(scenes.gain, device).repeat_interleave(frames)[:, None, None, None]
    return (seen * gain).clamp(0, 1)


def _subjects(scenes: Scenes, bank: Bank, device: torch.device) -> Tensor:
    index = _tensor(scenes.sprite.reshape(-1), device)
    sprites = bank.sprites[index.clamp_min(0)].float() / 255 * (index >= 0)[:, None, None, None]
    center, half = (
        _tensor(scenes.center, device).reshape(-1, 1, 1, 2),
        _tensor(scenes.half, device).reshape(-1, 1, 1, 1),
    )
    lean = _tensor(scenes.lean, device).reshape(-1, 1, 1)
    grid = _turned((_pixel_grid(SUPERSAMPLING, device)[None] - center) / half, lean)
    flip = _tensor(scenes.flip, device).repeat_interleave(scenes.sprite.shape[1])
    grid = grid * torch.stack([1 - 2 * flip.float(), torch.ones_like(flip, dtype=torch.float)], -1)[:, None, None]
    large = F.grid_sample(sprites, grid, padding_mode="zeros", align_corners=False)
    return F.avg_pool2d(large, SUPERSAMPLING)


def _bounds(cover: Tensor) -> Tensor:
    """Bounds (N, 4) of the coverage (N, H, W)."""
    height, width = cover.shape[1:]
    solid = cover > 0.5
    edges = []
    for along, size in ((solid.any(1), width), (solid.any(2), height)):
        ticks = torch.arange(size, device=cover.device)
        low = torch.where(along, ticks, size).amin(1)
        high = torch.where(along, ticks + 1, 0).amax(1)
        edges.append((low.clamp(max=size) / size, high / size))
    (x1, x2), (y1, y2) = edges
    some = solid.flatten(1).any(1)
    return torch.stack([x1, y1, x2, y2], 1) * some[:, None]
