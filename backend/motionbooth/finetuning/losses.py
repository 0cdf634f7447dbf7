"""The three losses of fine-tuning (paper, section 3.2, equations 3 to 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from motionbooth.control.boxes import Grid


def mask_cells(masks: Tensor, latent_size: Grid, grow: int = 0) -> Tensor:
    """The latent cells that the subject touches: bool (B, 1, 1, h, w) from masks (B, 1, H, W) in 0..1.

    `grow`: cells up to this distance (in rows and columns) from one of them count, too.
    """
    resized = F.interpolate(masks.float(), size=latent_size, mode="bilinear", align_corners=False)
    touched = F.max_pool2d((resized != 0).float(), 2 * grow + 1, stride=1, padding=grow)
    return (touched != 0).unsqueeze(2)


def subject_region_loss(predicted: Tensor, target: Tensor, cells: Tensor) -> Tensor:
    """Mean squared error over the subject's cells and all channels of the whole batch.

    predicted, target (B, C, 1, h, w); cells bool (B, 1, 1, h, w), at least one True. The authors divide by the number
    of cells alone, so their loss is C = 4 times this one; `subject_weight` makes up for it.
    """
    error = (predicted - target).square() * cells
    return error.sum() / (cells.sum() * predicted.shape[1])


def prior_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error on prior-preservation clips (B, C, F, h, w)."""
    return F.mse_loss(predicted, target)


def subject_attention(layers: Sequence[Tensor], reduce: Literal["mean", "sum"] = "mean") -> Tensor:
    """A of the STCA loss: (B*F, cells), averaged over the layers' attention (B*F, cells, phrase tokens).

    The phrase's k tokens share one softmax, so their "mean" (the authors') is at most 1/k; their "sum" can reach 1.
    """
    over_layers = torch.stack(list(layers)).mean(dim=0)
    return over_layers.mean(dim=-1) if reduce == "mean" else over_layers.sum(dim=-1)


def stca_loss(attention: Tensor, masks: Tensor, grid: Grid) -> Tensor:
    """Binary cross-entropy between A (B, h*w) and the masks (B, 1, H, W) resized to its grid (h, w)."""
    target = F.interpolate(masks.to(attention), size=grid, mode="bilinear", align_corners=False).flatten(1)
    # Rounding can raise a sum of probabilities, or of a mask's weights, slightly above one, which the loss rejects. Not
    # a number, which the picture loss is then as well, would make CUDA unusable for the whole process.
    return F.binary_cross_entropy(attention.nan_to_num(0.0).clamp(max=1.0), target.clamp(max=1.0))
