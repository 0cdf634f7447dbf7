"""Ties across frames (DiTraj, 2509.21839): in self-attention, a subject's tokens are where its mean box is.

Rotary embeddings make tokens attend most to tokens at the same place of other frames. A subject that moves is elsewhere
there. Tokens inside its box get the position that they have relative to the box, placed in the mean of its boxes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from torch import Tensor

from motionbooth.control.boxes import AttentionControl, BoxControl, Grid, box_mask
from motionbooth.control.latent_frames import mean_box


def install_ties(rope: WanRotaryPosEmbed, control: AttentionControl) -> None:
    """Change the embeddings of `rope` while `control` has subjects that are tied."""
    rope.register_forward_hook(partial(_tied, control))


def _tied(control: AttentionControl, rope: WanRotaryPosEmbed, given: Any, embeddings: Any) -> Any:
    """The embeddings (cos, sin), each (1, F*cells, 1, D), or one for each sample of the batch."""
    edits = control.active
    if not any(edit is not None and edit.tied for edit in edits):
        return embeddings
    _, _, frames, height, width = given[0].shape
    grid = height // rope.patch_size[1], width // rope.patch_size[2]
    edits = edits[:1] if all(edit == edits[0] for edit in edits) else edits
    moved = [_embeddings_of(edit, rope, frames, grid, *embeddings) for edit in edits]
    return tuple(torch.cat(parts) for parts in zip(*moved, strict=True))


def _embeddings_of(
    edit: BoxControl | None, rope: WanRotaryPosEmbed, frames: int, grid: Grid, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor]:
    if edit is None or not edit.tied:
        return cos, sin
    inside, rows, columns = (each.reshape(1, -1, 1, 1).to(cos.device) for each in tied_positions(edit, frames, grid))
    once = torch.atan2(rope.freqs_sin[1], rope.freqs_cos[1])  # the angles of position 1, all below pi
    _, down, across = once.split([rope.t_dim, rope.h_dim, rope.w_dim])
    angles = torch.cat([rows * down, columns * across], dim=-1)

    def moved(plain: Tensor, places: Tensor) -> Tensor:
        return torch.where(inside, torch.cat([plain[..., : rope.t_dim], places.to(plain)], dim=-1), plain)

    return moved(cos, angles.cos()), moved(sin, angles.sin())


def tied_positions(edit: BoxControl, frames: int, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """Which tokens are inside a box: bool (F, h, w), and their rows and columns, fractions of tokens: (F, h, w)."""
    height, width = grid
    down, across = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    rows, columns = (each.repeat(frames, 1, 1) for each in (down, across))
    masks = box_mask(edit.boxes, grid)
    for track, mask in zip(edit.boxes, masks, strict=True):
        mean = mean_box([box for box in track if box is not None])
        for frame, box in enumerate(track):
            if box is None or mean is None:
                continue
            own = mask[frame]
            rows[frame][own] = _placed(down[own], (box.y1, box.y2), (mean.y1, mean.y2), height)
            columns[frame][own] = _placed(across[own], (box.x1, box.x2), (mean.x1, mean.x2), width)
    return masks.any(dim=0), rows, columns


def _placed(cells: Tensor, box: tuple[float, float], mean: tuple[float, float], size: int) -> Tensor:
    """Where cells in a row of `size` are if the box becomes the mean box; the middle of cell i is at i + 0.5."""
    share = ((cells + 0.5) / size - box[0]) / (box[1] - box[0])
    return (mean[0] + share * (mean[1] - mean[0])) * size - 0.5
