"""The guide (ours, not the paper's): while there is much noise, the clip that forms is that of a given clip.

SDEdit (Meng et al., 2021) adds noise to a clip and denoises it from there. Here the subjects and the background start
from noise levels of their own: above a region's level, the region's estimate of the clean clip is replaced by the
guide. The noise in the latents stays what it was, so the region's latents are the guide with this noise. Every sampler
follows, since what it remembers are such estimates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from motionbooth_protocol.motion import Box
from torch import Tensor

from motionbooth.control.boxes import Grid, box_coverage
from motionbooth.control.latent_frames import groups


@dataclass(frozen=True)
class GuideControl:
    """The guide in one sampling step."""

    latents: Tensor
    """Clean latents (C, F', h, w)."""
    share: Tensor
    """(F', h, w), 0..1: how much of each cell's estimate is the guide's."""

    def applied_to(self, clean: Tensor) -> Tensor:
        """The estimate of the clean latents (B, C, F', h, w), float32, with the guide in it."""
        return torch.lerp(clean, self.latents.to(clean), self.share.to(clean))

    def ahead_of(self, travel: Sequence[Sequence[int]]) -> GuideControl:
        """The guide before the camera's last (dx, dy) of each frame, in cells; what it does not show then is free."""
        pairs = zip(self.latents.unbind(1), self.share, travel, strict=True)
        moved = [(_moved(latents, dx, dy), _moved(share, dx, dy)) for latents, share, (dx, dy) in pairs]
        latents, share = zip(*moved, strict=True)
        return GuideControl(torch.stack(latents, dim=1), torch.stack(share))

    def gathered(self, cells: Tensor) -> GuideControl:
        """The guide with each cell taken from that of `cells` (F', h * w), an index in the frame; -1 leaves it free."""
        source = cells.clamp_min(0).to(self.share.device)
        share = self.share.flatten(1).gather(1, source).where(cells.to(source) >= 0, 0)
        latents = self.latents.flatten(2)
        latents = latents.gather(2, source.to(latents.device).expand_as(latents))
        return GuideControl(latents.view_as(self.latents), share.view_as(self.share))


def _moved(content: Tensor, dx: int, dy: int) -> Tensor:
    """Content (..., h, w) moved right by dx and down by dy cells, with zeros where there is none."""
    height, width = content.shape[-2:]
    padded = F.pad(content, (max(dx, 0), max(-dx, 0), max(dy, 0), max(-dy, 0)))
    return padded[..., max(-dy, 0) :, max(-dx, 0) :][..., :height, :width]


def is_guided(noise_level: float, strength: float) -> bool:
    """Whether a region with this strength is the guide's in a step of this noise level."""
    return strength > 0 and noise_level > 1 - strength


@dataclass(frozen=True)
class Regions:
    """The shares (0..1) of pixels (F, H, W) or cells (F', h, w) that are of each region; the rest is free."""

    subjects: Tensor
    background: Tensor
    kept: Tensor
    """What is the guide's in every step, if the background has a strength at all."""

    @classmethod
    def of(cls, subjects: Tensor) -> Regions:
        """All that is not the subjects' is background."""
        return cls(subjects, 1 - subjects, torch.zeros_like(subjects))

    def guided(self, noise_level: float, subject: float, background: float) -> Tensor:
        """The share that is the guide's in a step of this noise level, with these strengths."""
        share = self.subjects * is_guided(noise_level, subject) + self.background * is_guided(noise_level, background)
        return share + self.kept * (background > 0)

    def in_cells(self, latent_size: Grid, temporal: int) -> Regions:
        """Those of cells, the means of their pixels. `temporal` as in Base."""
        return Regions(
            *(_in_cells(each, latent_size, temporal) for each in (self.subjects, self.background, self.kept))
        )


def _in_cells(pixels: Tensor, latent_size: Grid, temporal: int) -> Tensor:
    small = F.interpolate(pixels[:, None], latent_size, mode="area")[:, 0]
    return torch.stack([small[group.start : group.stop].mean(dim=0) for group in groups(len(pixels), temporal)])


def in_boxes(tracks: Sequence[Sequence[Box | None]], shape: tuple[int, int, int]) -> Tensor:
    """The share of each pixel that is in a subject's box: (F, H, W), which is the `shape`, 0..1."""
    return box_coverage(tracks, shape[1:]).float().amax(dim=0) if tracks else torch.zeros(shape)
