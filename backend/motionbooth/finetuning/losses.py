"""The three losses of subject learning (paper, section 3.2, equations 3 to 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from motionbooth.control.boxes import Grid


def mask_cells(masks: Tensor, latent_size: Grid, grow: int = 0) -> Tensor:
    """Latent cells that the subject touches: bool (B, 1, 1, h, w) from masks (B, 1, H, W) in 0..1.

    `grow`: the cells as near as that to one of them, too.
    """
    resized = F.interpolate(masks.float(), size=latent_size, mode="bilinear", align_corners=False)
    touched = F.max_pool2d((resized != 0).float(), 2 * grow + 1, stride=1, padding=grow)
    return (touched != 0).unsqueeze(2)


def subject_region_loss(predicted: Tensor, target: Tensor, cells: Tensor) -> Tensor:
    """Mean squared error over the subject's cells and all channels, of the whole batch together.

    predicted, target (B, C, 1, h, w); cells bool (B, 1, 1, h, w), at least one True. The authors divide by the cells
    alone; their loss is this one times C = 4, which is what `subject_weight` is for.
    """
    error = (predicted - target).square() * cells
    return error.sum() / (cells.sum() * predicted.shape[1])


def preservation_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error on an ordinary clip (B, C, F, h, w)."""
    return F.mse_loss(predicted, target)


def subject_attention(layers: Sequence[Tensor], reduce: Literal["mean", "sum"] = "mean") -> Tensor:
    """A of the STCA loss: (B*F, cells) from each layer's (B*F, cells, phrase tokens), averaged over the layers.

    The phrase's k tokens share one softmax, so their "mean" (the authors') is at most 1/k; their "sum" reaches 1.
    """
    over_layers = torch.stack(list(layers)).mean(dim=0)
    return over_layers.mean(dim=-1) if reduce == "mean" else over_layers.sum(dim=-1)


def stca_loss(attention: Tensor, masks: Tensor, grid: Grid) -> Tensor:
    """Binary cross-entropy between A (B, h*w) and the masks (B, 1, H, W) resized to its grid (h, w)."""
    wanted = F.interpolate(masks.to(attention), size=grid, mode="bilinear", align_corners=False).flatten(1)
    # Rounding may lift a sum of probabilities, or of a mask's weights, a little above one, which the loss refuses.
    return F.binary_cross_entropy(attention.clamp(max=1.0), wanted.clamp(max=1.0))
