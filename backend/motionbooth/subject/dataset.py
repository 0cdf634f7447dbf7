"""What a subject is learned from, encoded once: pictures as VAE posteriors, masks, the prompt, ordinary clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import SubjectSpec
from torch import Tensor

from ..control.prompt import prompt_tokens
from ..models.registry import Base
from ..models.settings import TrainSettings
from .images import CENTERED, Mask, Placement, TrainingPicture, fit_picture
from .losses import mask_cells
from .masks import picture_with_mask


@dataclass(frozen=True)
class SubjectData:
    """N pictures of the subject and K ordinary clips, as the UNet meets them.

    `mean`, `std` (N, C, 1, h, w): the VAE's posterior of each picture, already in the latents' scale. `masks`
    (N, 1, H, W): 1 inside the subject, 0 outside and in the padding. `text` (1, tokens, D): "a sks dog", with the
    phrase at `positions`. `clips` (K, C, F, h, w) and their captions' embeddings `clip_text` (K, tokens, D).
    """

    mean: Tensor
    std: Tensor
    masks: Tensor
    text: Tensor
    positions: tuple[int, ...]
    clips: Tensor
    clip_text: Tensor


def read_pictures(
    subject: SubjectSpec,
    blob_path: Callable[[str], Path],
    base: Base,
    settings: TrainSettings,
    seed: int,
    on_picture: Callable[[int], None],
) -> list[TrainingPicture]:
    """The subject's pictures at the base's size, each `settings.placements` times.

    Raises InvalidInput naming the picture that cannot be used.
    """
    rng = np.random.default_rng(seed)
    pictures = []
    for number, picture in enumerate(subject.pictures, start=1):
        label = f"picture {number} of {len(subject.pictures)}"
        mask_path = None if picture.mask is None else blob_path(picture.mask)
        rgb, mask = picture_with_mask(blob_path(picture.image), mask_path, label)
        for placement in _placements(settings, mask, rng):
            pictures.append(fit_picture(rgb, mask, base.settings.width, base.settings.height, settings.fit, placement))
            _check_size(pictures[-1], base, label)
        on_picture(number)
    return pictures


def _placements(settings: TrainSettings, mask: Mask, rng: np.random.Generator) -> list[Placement]:
    """The paper's own first: as large as it can be, in the middle. The others anywhere, the subject smaller."""
    rows, columns = mask.nonzero()
    extent = max(np.ptp(rows) / mask.shape[0], np.ptp(columns) / mask.shape[1], 0.01)
    lowest = min(1.0, settings.smallest / extent)
    others = rng.uniform((lowest, 0, 0), (1, 1, 1), size=(settings.placements - 1, 3))
    return [CENTERED, *(Placement(*map(float, row)) for row in others)]


def _check_size(picture: TrainingPicture, base: Base, label: str) -> None:
    if not mask_cells(torch.from_numpy(picture.mask)[None, None], base.latent_size).any():
        raise InvalidInput(
            f"In {label} the subject is too thin or too small: nothing of it is left at the {picture.mask.shape[1]} x "
            f"{picture.mask.shape[0]} pixels of this base model. Crop the picture closer to it."
        )


@torch.no_grad()
def encode_pictures(base: Base, pictures: Sequence[TrainingPicture]) -> tuple[Tensor, Tensor, Tensor]:
    """(mean, std, masks) of SubjectData."""
    pixels = torch.from_numpy(np.stack([picture.rgb for picture in pictures])).to(base.device, base.dtype)
    pixels = rearrange(pixels / 127.5 - 1, "n h w c -> n c h w")
    posteriors = [base.vae.encode(picture[None]).latent_dist for picture in pixels]
    scale = base.vae.config.scaling_factor
    mean = torch.cat([posterior.mean for posterior in posteriors]).unsqueeze(2) * scale
    std = torch.cat([posterior.std for posterior in posteriors]).unsqueeze(2) * scale
    masks = torch.from_numpy(np.stack([picture.mask for picture in pictures]))[:, None]
    return mean, std, masks.to(base.device)


def gather_data(
    base: Base, subject: SubjectSpec, pictures: Sequence[TrainingPicture], clips: Tensor, captions: Sequence[str]
) -> SubjectData:
    """Everything that stays the same from step to step. Raises InvalidInput for a subject name that has no tokens."""
    tokens = prompt_tokens(base.tokenizer, subject.prompt, [f"{subject.token} {subject.class_word}"])
    mean, std, masks = encode_pictures(base, pictures)
    return SubjectData(
        mean,
        std,
        masks,
        base.embed([subject.prompt]),
        tokens.subjects[0],
        clips.to(base.device, base.dtype),
        base.embed(captions) if captions else mean.new_zeros(0),
    )
